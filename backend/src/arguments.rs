// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the command line needs of each kind of device.

use clap::Args;
use confinement::role::backend::Hardware;

use crate::device::Device;

/// The arguments of one kind of device, besides those that all kinds share ([`crate::cli`]).
pub trait DeviceArguments: Args {
    /// `type` of `--print-capabilities`.
    const KIND: &'static str;

    /// The hardware, which decides what the confined daemon may do.
    const HARDWARE: Hardware;

    /// Opens the hardware that the arguments name.
    ///
    /// # Errors
    /// When it cannot be opened; the error lists what exists instead.
    fn open(&self) -> anyhow::Result<Box<dyn Device>>;

    /// Creates the device on a simulated board.
    ///
    /// # Errors
    /// When the description of the board is invalid.
    #[cfg(feature = "sim")]
    fn simulate(&self, simulation: crate::sim::Simulation) -> anyhow::Result<Box<dyn Device>>;
}
