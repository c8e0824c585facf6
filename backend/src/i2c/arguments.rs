// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of `backend i2c`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use confinement::role::backend::Hardware;

use super::bus::Bus;
use super::device::I2c;
use super::linux::Adapter;
use super::policy::AllowList;
use super::turn::BusTurn;
use crate::arguments::DeviceArguments;
use crate::device::Device;

/// The arguments of `backend i2c`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The adapter: its number, its name, or the device-tree path of the adapter or of what it is part of
    #[arg(long, value_name = "ADAPTER", group = "hardware")]
    adapter: Option<String>,
    /// A directory that is the guest's own: its daemons that are given the same one use an adapter one after
    /// the other, so that a guest with several devices on a bus does not have it more often than others
    #[arg(long, value_name = "DIRECTORY", requires = "adapter")]
    turns: Option<PathBuf>,
    /// Addresses that the guest may reach, as 0x48,0x50-0x57, or `any`
    #[arg(long, value_name = "LIST", required_unless_present = "print_capabilities")]
    allow: Option<AllowList>,
    /// Serve a driver that does not accept VIRTIO_I2C_F_ZERO_LENGTH_REQUEST, such as Zephyr's. Its messages
    /// of length 0 fail. Without this option the driver is refused, as virtio 1.3, 5.16.6.4 demands
    #[arg(long)]
    no_strict: bool,
}

impl Arguments {
    fn device(&self, bus: Box<dyn Bus>, turn: Option<BusTurn>) -> anyhow::Result<Box<dyn Device>> {
        let policy = self.allow.clone().context("name the guest's addresses with --allow")?;
        Ok(Box::new(I2c::new(bus, policy, turn)?.strict(!self.no_strict)))
    }
}

impl DeviceArguments for Arguments {
    const KIND: &'static str = "i2c";
    const HARDWARE: Hardware = Hardware::I2c;

    fn open(&self) -> anyhow::Result<Box<dyn Device>> {
        let adapter = Adapter::open(self.adapter.as_deref().context("name an adapter with --adapter")?)?;
        let turn = self.turns.as_deref().map(|directory| adapter.turn(directory)).transpose()?;
        self.device(Box::new(adapter), turn)
    }

    #[cfg(feature = "sim")]
    fn simulate(&self, simulation: crate::sim::Simulation) -> anyhow::Result<Box<dyn Device>> {
        self.device(Box::new(super::sim::SimulatedBus::new(simulation)?), None)
    }
}
