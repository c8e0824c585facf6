// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The workloads, and the contenders that run them.

use crate::image::{CHIP, IOCTL, OURS, UPSTREAM};
use crate::stack::{Lines, Where};

/// A way to serve requests that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// A guest, our shim, our backend.
    Ours,
    /// A guest, our shim, the upstream daemon.
    Upstream,
    /// A program in the driver domain: the cost of a passed-through device.
    Ioctl,
}

impl Contender {
    /// All contenders, in the order of a round.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Upstream, Self::Ioctl];

    /// The name in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Upstream => "upstream",
            Self::Ioctl => "ioctl",
        }
    }

    /// The domain in which its program runs.
    #[must_use]
    pub fn place(self) -> Where {
        match self {
            Self::Ours => Where::Guest(0),
            Self::Upstream => Where::Guest(1),
            Self::Ioctl => Where::Driver,
        }
    }

    /// The name of the chip in that domain.
    #[must_use]
    pub fn chip(self) -> &'static str {
        match self {
            Self::Ioctl => CHIP,
            Self::Ours | Self::Upstream => "gpiochip0",
        }
    }

    /// Its line. Our backend gives a guest only its own lines, upstream's the whole chip.
    #[must_use]
    pub fn line(self) -> Lines {
        match self {
            Self::Ours => Lines { seen: 0, driven: OURS },
            Self::Upstream => Lines { seen: UPSTREAM, driven: UPSTREAM },
            Self::Ioctl => Lines { seen: IOCTL, driven: IOCTL },
        }
    }
}

/// The request of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Write the number of a register, read two bytes.
    I2cRead,
    /// Write an offset, read 32 bytes of an EEPROM.
    EepromRead,
    /// Eight messages in flight at the same time.
    I2cFlight,
    /// Read a line.
    GpioGet,
    /// Set a line.
    GpioSet,
    /// Receive an edge event.
    GpioEdge,
}

impl Workload {
    /// All workloads.
    pub const ALL: [Self; 6] =
        [Self::I2cRead, Self::GpioGet, Self::GpioSet, Self::GpioEdge, Self::EepromRead, Self::I2cFlight];

    /// The name in figures.
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

    /// The agent's command for `count` requests of `contender`. Edges have none, because two programs run.
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
    fn contenders_use_different_lines() {
        let mut lines = Contender::ALL.map(|contender| contender.line().driven).to_vec();
        lines.dedup();
        assert_eq!(lines.len(), Contender::ALL.len());
    }

    #[test]
    fn all_workloads_but_edges_have_a_command() {
        for workload in Workload::ALL {
            let command = workload.command(Contender::Ours, 7);
            assert_eq!(command.is_none(), workload == Workload::GpioEdge);
            assert!(command.is_none_or(|command| command.ends_with(" 7")));
        }
    }
}
