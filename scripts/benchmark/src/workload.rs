// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The workloads, and the contenders that run them.

use crate::image::{CHIP, IOCTL, OURS, UPSTREAM};
use crate::stack::{Lines, Where};

/// A stack that is measured.
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

    /// The chip, where the contender is.
    #[must_use]
    pub fn chip(self) -> &'static str {
        match self {
            Self::Ioctl => CHIP,
            Self::Ours | Self::Upstream => "gpiochip0",
        }
    }

    /// Its line: our daemon gives a guest the lines that are its own, upstream's the whole chip.
    #[must_use]
    pub fn line(self) -> Lines {
        match self {
            Self::Ours => Lines { seen: 0, driven: OURS },
            Self::Upstream => Lines { seen: UPSTREAM, driven: UPSTREAM },
            Self::Ioctl => Lines { seen: IOCTL, driven: IOCTL },
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
        let (chip, line) = (contender.chip(), contender.line().seen);
        Some(match self {
            Self::I2cRead => format!("time-i2c 0 0x48 0 2 {count}"),
            Self::EepromRead => format!("time-i2c 0 0x50 0 32 {count}"),
            Self::I2cFlight => format!("time-i2c-flight 0 0x48 8 {count}"),
            Self::GpioGet => format!("time-gpio-get {chip} {line} {count}"),
            Self::GpioSet => format!("time-gpio-set {chip} {line} {count}"),
            Self::GpioEdge => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_contenders_drive_one_line() {
        let mut lines = Contender::ALL.map(|contender| contender.line().driven).to_vec();
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
