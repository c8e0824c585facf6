// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Boards: memory, hardware, and the description of the hardware for Xen and the driver domain. Each board is
//! a file in `images/boards`.

mod parse;

use std::path::Path;

use toml_span::{Deserialize, Spanned};

use crate::diagnostics::{self, Diagnostic, Source};
use crate::spanned::Property;

/// The boards that are built into the program.
const KNOWN: [(&str, &str); 1] = [("qemu-virt", include_str!("../boards/qemu-virt.toml"))];

/// The size of a page, the unit in which Xen assigns memory.
pub const PAGE: u64 = 4096;

/// The last shared peripheral interrupt of a GIC (Arm IHI 0069, 2.2.1: INTID 1019).
pub(crate) const LAST_SPI: u32 = 1019 - 32;

/// A board.
#[derive(Clone, Debug)]
pub struct Board {
    /// CPUs and memory.
    pub machine: Machine,
    /// Xen's command line on this board.
    pub xen_bootargs: Spanned<String>,
    /// How QEMU emulates the board, if it does.
    pub qemu: Option<Spanned<Qemu>>,
    /// The hardware that can be given to the driver domain.
    pub hardware: Vec<Hardware>,
}

/// CPUs and memory.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The number of CPUs.
    pub cpus: Spanned<u32>,
    /// The banks of RAM.
    pub ram: Spanned<Vec<Spanned<Region>>>,
    /// The place for kernels, ramdisks, device trees and the policy.
    pub modules: Spanned<Region>,
    /// The place of the driver domain's memory.
    pub static_memory: Spanned<Region>,
}

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first address.
    pub base: u64,
    /// The size in bytes.
    pub size: u64,
}

/// QEMU's emulation of a board.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The program.
    pub program: String,
    /// The value of `-M`.
    pub machine: String,
    /// Arguments other than those for CPUs, memory, files, sockets and hardware.
    pub args: Vec<String>,
}

/// A piece of hardware that can be given to the driver domain.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// The name in manifests.
    pub name: Spanned<String>,
    /// The kind of devices that it can serve.
    pub kind: Kind,
    /// The number of lines of a GPIO controller.
    pub lines: Option<Spanned<u32>>,
    /// The path in the host's device tree.
    pub host_node: Spanned<String>,
    /// The node's name in the driver domain's device tree, below `/passthrough`.
    pub node: Spanned<String>,
    /// The names by which the driver domain's kernel finds a driver.
    pub compatible: Vec<String>,
    /// The registers, by physical address.
    pub reg: Spanned<Vec<Spanned<Region>>>,
    /// The interrupts.
    pub interrupts: Vec<Interrupt>,
    /// The clocks of the hardware, which are fixed clocks in the driver domain.
    pub clocks: Vec<Clock>,
    /// More properties of the node in the driver domain.
    pub properties: Vec<(Spanned<String>, Property)>,
    /// The QEMU device that provides it, if it is not part of QEMU's machine.
    pub qemu: Option<QemuDevice>,
}

/// The kind of devices that hardware can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An I2C adapter.
    I2c,
    /// A GPIO controller.
    Gpio,
    /// Hardware of another kind, for a backend of `[[guest.virtio]]`.
    Other,
}

/// A shared peripheral interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The number of the SPI.
    pub spi: u32,
    /// The flags in the GIC's device tree binding: 1 for a rising edge, 4 for a high level.
    pub flags: u32,
}

/// A clock with a fixed frequency.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The name in `clock-names`.
    pub name: Spanned<String>,
    /// The frequency in hertz.
    pub frequency: u32,
}

/// A vhost-user device of QEMU. It connects to the socket `HARDWARE.sock` in QEMU's working directory.
#[derive(Clone, Debug)]
pub struct QemuDevice {
    /// The name of the device in QEMU.
    pub vhost_user: String,
    /// The bus that it is attached to.
    pub bus: String,
}

impl Kind {
    /// The name in messages, with its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::I2c => "an I2C adapter",
            Self::Gpio => "a GPIO controller",
            Self::Other => "hardware of another kind",
        }
    }
}

impl Board {
    /// The file of the board called `name`: one that is built in, or, if `name` ends in `.toml`, a path
    /// relative to `directory`, that of the manifest.
    ///
    /// # Errors
    ///
    /// There is no such board, or its file cannot be read.
    pub fn source(name: &Spanned<String>, directory: &Path) -> Result<Source, Diagnostic> {
        if name.value.ends_with(".toml") {
            let path = directory.join(&name.value);
            return match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Source { path: path.display().to_string(), text }),
                Err(error) => {
                    let title = format!("the board file {} cannot be read", path.display());
                    Err(Diagnostic::new(name.span, title, error.to_string())
                        .help("the path is relative to the manifest's directory"))
                }
            };
        }
        let known = KNOWN.iter().find(|(known, _)| *known == name.value);
        known.map(|(name, text)| Source { path: format!("{name}.toml"), text: (*text).into() }).ok_or_else(
            || {
                let names = diagnostics::listed(KNOWN.iter().map(|(name, _)| name));
                let help = format!("write {names}, or the path of a board file that ends in `.toml`");
                Diagnostic::new(name.span, format!("there is no board `{}`", name.value), "unknown board")
                    .help(help)
            },
        )
    }

    /// Reads a board file.
    ///
    /// # Errors
    ///
    /// All keys and values that are wrong by themselves, or the first place that is not TOML.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut value = toml_span::parse(text).map_err(diagnostics::from_error)?;
        Self::deserialize(&mut value).map_err(diagnostics::from_reader)
    }

    /// The piece of hardware called `name`.
    pub fn hardware(&self, name: &str) -> Option<&Hardware> {
        self.hardware.iter().find(|hardware| hardware.name.value == name)
    }
}

impl Hardware {
    /// The pages of the registers, which Xen assigns.
    pub fn pages(&self) -> impl Iterator<Item = Region> {
        self.reg.value.iter().map(|Spanned { value: reg, .. }| {
            let base = reg.base / PAGE * PAGE;
            let end = reg.end().checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
            Region { base, size: end - base }
        })
    }
}

impl Machine {
    /// The bytes of RAM in all banks.
    pub fn ram_size(&self) -> u64 {
        self.ram.value.iter().fold(0, |sum, bank| sum.saturating_add(bank.value.size))
    }
}

impl Region {
    /// The address after the last.
    pub fn end(self) -> u64 {
        self.base.saturating_add(self.size)
    }

    /// Whether all of it is in `other`.
    pub fn is_within(self, other: Self) -> bool {
        other.base <= self.base && self.end() <= other.end()
    }

    /// Whether some address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.base < other.end() && other.base < self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_that_are_built_in_are_accepted() {
        for (name, text) in KNOWN {
            let board = Board::parse(text).unwrap();
            assert_eq!(crate::validate::board(&board), [], "{name}");
        }
    }

    #[test]
    fn pages_cover_the_registers() {
        let board = Board::parse(KNOWN[0].1).unwrap();
        let pages: Vec<_> = board.hardware("i2c0").unwrap().pages().collect();
        assert_eq!(pages, [Region { base: 0xa00_3000, size: 0x1000 }]);
    }
}
