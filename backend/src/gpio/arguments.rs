// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of `backend gpio`: typed arguments, then an opened device.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;
use clap::Args;
use confinement::role::backend::Hardware;

use super::chip::Lines;
use super::device::Gpio;
use super::linux::LinuxLines;
use super::safe::Safe;
use super::sim::{Board, SimLines};
use crate::cli::{Connection, Tuning};
use crate::confine;
use crate::device::Device;
use crate::sim::{Parts, Simulation};
use crate::sysfs::Sysfs;

/// Arguments of `backend gpio`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    confinement: confine::Options,
    #[command(flatten)]
    tuning: Tuning,
    /// A line for the guest, which numbers them from 0 in the order given. CHIP is a name (gpiochip0),
    /// a label, or a device-tree path; NAME is what the guest sees; with safe=, the line is driven to 0 or 1
    /// while no driver uses it, or held as the driver left it (stay), instead of released
    #[arg(long = "line", value_name = "CHIP:OFFSET[=NAME][,safe=0|1|stay]", conflicts_with = "board")]
    #[arg(required_unless_present_any = ["board", "print_capabilities"])]
    lines: Vec<LineArgument>,
    #[command(flatten)]
    simulation: Simulation,
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
        if self.simulation.is_wanted() { Hardware::Simulated } else { Hardware::Gpio }
    }

    /// Opens what the arguments name.
    ///
    /// # Errors
    /// Says what cannot be opened.
    pub fn open(&self) -> anyhow::Result<Box<dyn Device>> {
        match self.simulation.load()? {
            Some(Parts { board, journal, control }) => {
                let names: Vec<_> = board.gpio.lines.iter().map(|name| named(name)).collect();
                let safe: Vec<_> = board.gpio.lines.iter().map(|name| board.gpio.safe_value(name)).collect();
                let model =
                    Board::new(&board.gpio, journal).context("the board's [gpio] cannot be simulated")?;
                device(SimLines::new(model, control), &names, &safe)
                    .context("the board's [gpio] is not one for a guest: see its `lines`")
            }
            None => {
                let names: Vec<_> = self.lines.iter().map(|line| line.name.clone()).collect();
                let safe: Vec<_> = self.lines.iter().map(|line| line.safe).collect();
                device(LinuxLines::open(&self.lines, &Sysfs::default())?, &names, &safe)
            }
        }
    }
}

fn device(
    lines: impl Lines + 'static,
    names: &[Option<String>],
    safe: &[Safe],
) -> anyhow::Result<Box<dyn Device>> {
    Ok(Box::new(Gpio::new(lines, names, safe)?))
}

/// An empty name is none.
fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// A line that the operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineArgument {
    /// `gpiochipN`, a label, or a path in the device tree.
    pub chip: String,
    /// Number of the line on its chip.
    pub offset: u32,
    /// What the guest shall call it.
    pub name: Option<String>,
    /// What becomes of it when no driver uses it.
    pub safe: Safe,
}

/// Why an argument does not name a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a line is given as CHIP:OFFSET or CHIP:OFFSET=NAME, as in gpiochip0:3=power, with its safe value at the end \
     if it has one: gpiochip0:3=power,safe=0 (or 1, or stay)"
)]
pub struct NotALine;

impl FromStr for LineArgument {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        let (text, safe) = match text.rsplit_once(",safe=") {
            Some((text, safe)) => (text, safe.parse().map_err(|_| NotALine)?),
            None => (text, Safe::Release),
        };
        let (line, name) = match text.split_once('=') {
            Some((line, name)) => (line, Some(named(name).ok_or(NotALine)?)),
            None => (text, None),
        };
        // Labels may have colons, offsets do not.
        let (chip, offset) = line.rsplit_once(':').ok_or(NotALine)?;
        let chip = named(chip).ok_or(NotALine)?;
        Ok(Self { chip, offset: offset.parse().map_err(|_| NotALine)?, name, safe })
    }
}

impl fmt::Display for LineArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--line {}:{}", self.chip, self.offset)?;
        match &self.name {
            Some(name) => write!(f, "={name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_as_in_the_help() {
        let line = |chip: &str, offset, name: Option<&str>| {
            let name = name.map(str::to_owned);
            Ok(LineArgument { chip: chip.to_owned(), offset, name, safe: Safe::Release })
        };
        assert_eq!("gpiochip0:3=power".parse(), line("gpiochip0", 3, Some("power")));
        assert_eq!("a b:c:0".parse(), line("a b:c", 0, None));
        let path = "/passthrough/gpio@9030000";
        assert_eq!(format!("{path}:3=a=b:1").parse(), line(path, 3, Some("a=b:1")));
        let safe = |text: &str| text.parse::<LineArgument>().map(|line| (line.name, line.safe));
        assert_eq!(safe("c:0=lamp,safe=0"), Ok((Some("lamp".into()), Safe::Level(false))));
        assert_eq!(safe("c:0=a,safe=1,safe=stay"), Ok((Some("a,safe=1".into()), Safe::Stay)));
        assert_eq!(safe("c:0,safe=1"), Ok((None, Safe::Level(true))));
        for wrong in [
            "c:0=a,safe=",
            "c:0=a,safe=2",
            "c:0=a,safe=Stay",
            "c:0=,safe=0",
            ",safe=0",
            "",
            "3",
            ":3",
            "chip:",
            "chip:x",
            "chip:-1",
            "chip:1=",
            "chip:4294967296",
        ] {
            assert_eq!(wrong.parse::<LineArgument>(), Err(NotALine), "{wrong}");
        }
    }
}
