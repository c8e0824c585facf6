// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio I2C adapter device (virtio 1.3, 5.16).
//!
//! ```text
//!  chain ─▶ request ─▶ policy ─▶ device ─▶ transaction ─▶ Bus ─┬▶ linux  an adapter of the kernel
//!           (spec)     each      groups    (time, turn)        └▶ sim    a model of a board
//!                      message             beside the device
//! ```

pub mod bus;
pub mod device;
pub mod linux;
pub mod policy;
mod request;
pub mod sim;
mod spec;
pub mod time;
mod transaction;
pub mod turn;

use std::path::PathBuf;

use clap::Args;
use confinement::role::backend::Hardware;

use self::bus::Bus;
use self::device::I2c;
use self::linux::Adapter;
use self::policy::AllowList;
use self::sim::SimulatedBus;
use crate::cli::{Connection, Tuning};
use crate::confine;
use crate::device::Device;
use crate::sim::Simulation;

/// Arguments of `backend i2c`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    confinement: confine::Options,
    #[command(flatten)]
    tuning: Tuning,
    /// The adapter: its number, its name, or the device-tree path of the adapter or of what it is part of
    #[arg(long, value_name = "ADAPTER", conflicts_with = "board")]
    #[arg(required_unless_present_any = ["board", "print_capabilities"])]
    adapter: Option<String>,
    #[command(flatten)]
    simulation: Simulation,
    /// A directory that is the guest's own: its daemons that are given the same one use an adapter one after
    /// the other, so that a guest with several devices on a bus does not have it more often than others
    #[arg(long, value_name = "DIRECTORY", requires = "adapter")]
    turns: Option<PathBuf>,
    /// Addresses that the guest may reach, as 0x48,0x50-0x57, or `any`
    #[arg(long, value_name = "LIST", required_unless_present = "print_capabilities")]
    allow: Option<AllowList>,
}

impl Arguments {
    /// How the frontend comes in.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What the daemon is to give up.
    #[must_use]
    pub fn confinement(&self) -> confine::Options {
        self.confinement
    }

    /// How it is to trade processor time for latency.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// What the daemon drives.
    #[must_use]
    pub fn hardware(&self) -> Hardware {
        if self.simulation.is_wanted() { Hardware::Simulated } else { Hardware::I2c }
    }

    /// Opens the bus that the arguments name.
    ///
    /// # Errors
    /// Says what cannot be opened, and what there is instead.
    pub fn open(&self) -> anyhow::Result<Box<dyn Device>> {
        let (bus, turn): (Box<dyn Bus>, _) = match (self.simulation.load()?, &self.adapter) {
            (Some(parts), _) => (Box::new(SimulatedBus::new(parts)?), None),
            (None, Some(adapter)) => {
                let adapter = Adapter::open(adapter)?;
                let turn = self.turns.as_deref().map(|directory| adapter.turn(directory)).transpose()?;
                (Box::new(adapter), turn)
            }
            (None, None) => anyhow::bail!("name an adapter with --adapter, or a board with --sim"),
        };
        let policy =
            self.allow.clone().ok_or_else(|| anyhow::anyhow!("name the guest's addresses with --allow"))?;
        Ok(Box::new(I2c::new(bus, policy, turn)?))
    }
}
