// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is measured, and of whom.

use crate::image::{IOCTL, OURS, UPSTREAM};
use crate::stack::Where;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// A guest, our shim, our daemon.
    Ours,
    /// A guest, our shim, the upstream daemon.
    Upstream,
    /// A program in the driver domain: what passthrough would cost.
    Ioctl,
}

impl Contender {
    /// All of them, in the order in which each round has them.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Upstream, Self::Ioctl];

    /// The name, in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Upstream => "upstream",
            Self::Ioctl => "ioctl",
        }
    }

    /// Where its program runs.
    #[must_use]
    pub fn place(self) -> Where {
        match self {
            Self::Ours => Where::Guest(0),
            Self::Upstream => Where::Guest(1),
            Self::Ioctl => Where::Driver,
        }
    }

    /// Its line of a chip, as it counts: our daemon gives a guest the lines that it has, upstream's the whole chip.
    fn line(self) -> u32 {
        match self {
            Self::Ours => OURS,
            Self::Upstream => UPSTREAM,
            Self::Ioctl => IOCTL,
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Write the number of a register, read two bytes.
    I2cRead,
    /// Write an offset, read 32 bytes of an EEPROM.
    EepromRead,
    /// Eight messages of one request, which are in flight together.
    I2cFlight,
    /// Read a line.
    GpioGet,
    /// Drive a line.
    GpioSet,
    /// Be told of an edge.
    GpioEdge,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::I2cRead, Self::GpioGet, Self::GpioSet, Self::GpioEdge, Self::EepromRead, Self::I2cFlight];

    /// The name, in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::I2cRead => "i2c_read",
            Self::EepromRead => "eeprom_read",
            Self::I2cFlight => "i2c_8_in_flight",
            Self::GpioGet => "gpio_get",
            Self::GpioSet => "gpio_set",
            Self::GpioEdge => "gpio_edge",
        }
    }

    /// The agent's command for `contender`, for so many requests. Edges have none: two programs make them.
    #[must_use]
    pub fn command(self, contender: Contender, count: u32) -> Option<String> {
        let line = contender.line();
        Some(match self {
            Self::I2cRead => format!("time-i2c 0 0x48 0 2 {count}"),
            Self::EepromRead => format!("time-i2c 0 0x50 0 32 {count}"),
            Self::I2cFlight => format!("time-i2c-flight 0 0x48 8 {count}"),
            Self::GpioGet => format!("time-gpio-get {} {line} {count}", chip(contender)),
            Self::GpioSet => format!("time-gpio-set {} {line} {count}", chip(contender)),
            Self::GpioEdge => return None,
        })
    }
}

/// The chip with the line that is read and driven, where the contender is.
fn chip(contender: Contender) -> &'static str {
    match contender {
        // The label that the kernel gives the PL061 at this address.
        Contender::Ioctl => "9030000.gpio",
        Contender::Ours | Contender::Upstream => "gpiochip0",
    }
}

/// The chip of edges where the contender is, the line as it counts, and as the chip in the driver domain does.
#[must_use]
pub fn edges(contender: Contender) -> (&'static str, (u32, u32)) {
    let line = contender.line();
    match contender {
        Contender::Ioctl => (crate::image::EDGES, (line, line)),
        Contender::Ours | Contender::Upstream => ("gpiochip1", (line, line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_contenders_drive_one_line() {
        let mut lines = Contender::ALL.map(Contender::line).to_vec();
        lines.dedup();
        assert_eq!(lines.len(), Contender::ALL.len());
    }

    #[test]
    fn all_but_edges_have_one_command() {
        for workload in Workload::ALL {
            let command = workload.command(Contender::Ours, 7);
            assert_eq!(command.is_none(), workload == Workload::GpioEdge);
            assert!(command.is_none_or(|command| command.ends_with(" 7")));
        }
    }
}
