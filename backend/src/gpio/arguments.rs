// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of `backend gpio`.

use clap::Args;
use confinement::role::backend::Hardware;

use super::device::Gpio;
use super::line_option::LineOption;
use super::linux::LinuxLines;
use crate::arguments::DeviceArguments;
use crate::device::Device;
use crate::sysfs::Sysfs;

/// The arguments of `backend gpio`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A line for the guest, which numbers them from 0 in the order given.
    ///
    /// CHIP is a name (gpiochip0), a label, or a device-tree path; NAME is what the guest sees. In both, a
    /// backslash stands before a comma, an equals sign or a backslash that belongs to it.
    ///
    /// OPTION is one of: safe=0, safe=1 (driven to this level while no driver uses the line), safe=stay (held
    /// as the driver left it; released without one of these); bias=pull-up, bias=pull-down, bias=disabled;
    /// drive=push-pull, drive=open-drain, drive=open-source; debounce-us=N (an input counts when it has kept
    /// its level for N microseconds, up to 1000000)
    #[arg(long = "line", value_name = "CHIP:OFFSET[=NAME][,OPTION]...", group = "hardware")]
    lines: Vec<LineOption>,
}

impl DeviceArguments for Arguments {
    const KIND: &'static str = "gpio";
    const HARDWARE: Hardware = Hardware::Gpio;

    fn open(&self) -> anyhow::Result<Box<dyn Device>> {
        let names: Vec<_> = self.lines.iter().map(|line| line.name.clone()).collect();
        let safe: Vec<_> = self.lines.iter().map(|line| line.safe).collect();
        let lines = LinuxLines::open(&self.lines, &Sysfs::default())?;
        Ok(Box::new(Gpio::new(lines, &names, &safe)?))
    }

    #[cfg(feature = "sim")]
    fn simulate(&self, simulation: crate::sim::Simulation) -> anyhow::Result<Box<dyn Device>> {
        super::sim::device(simulation)
    }
}
