// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What no manifest should repeat: where a board's memory is, what hardware it has, and how that looks to Xen and to
//! the driver domain. One file per board, in `images/boards`; a new board is a new file.

mod parse;

use std::path::Path;

use toml_span::{Deserialize, Spanned};

use crate::diagnostics::{self, Diagnostic, Source};
use crate::spanned::Property;

/// The boards that the builder carries with it.
const KNOWN: [(&str, &str); 1] = [("qemu-virt", include_str!("../boards/qemu-virt.toml"))];

/// The bytes of a page: the least that Xen can assign.
pub const PAGE: u64 = 4096;

/// The last shared peripheral interrupt of a GIC (Arm IHI 0069, 2.2.1: INTID 1019).
pub(crate) const LAST_SPI: u32 = 1019 - 32;

/// One board.
#[derive(Clone, Debug)]
pub struct Board {
    /// CPUs and memory.
    pub machine: Machine,
    /// Xen's command line on this board.
    pub xen_bootargs: Spanned<String>,
    /// How QEMU emulates it.
    pub qemu: Option<Spanned<Qemu>>,
    /// What can be given to the driver domain.
    pub hardware: Vec<Hardware>,
}

/// CPUs and memory.
#[derive(Clone, Debug)]
pub struct Machine {
    /// How many CPUs there are.
    pub cpus: Spanned<u32>,
    /// The banks of RAM.
    pub ram: Spanned<Vec<Spanned<Region>>>,
    /// Where the boot loader puts kernels, ramdisks and device trees.
    pub modules: Spanned<Region>,
    /// Where the driver domain's memory is taken from.
    pub static_memory: Spanned<Region>,
}

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first address.
    pub base: u64,
    /// How many bytes it has.
    pub size: u64,
}

/// How QEMU emulates the board.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The program.
    pub program: String,
    /// The value of `-M`.
    pub machine: String,
    /// Further arguments, but for CPUs, memory, files, sockets and hardware.
    pub args: Vec<String>,
}

/// A piece of hardware that can be given to the driver domain.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// The name by which manifests know it.
    pub name: Spanned<String>,
    /// What it can be used for.
    pub kind: Kind,
    /// How many lines a GPIO controller has.
    pub lines: Option<Spanned<u32>>,
    /// Its path in the host's device tree.
    pub host_node: Spanned<String>,
    /// Its name in the driver domain's device tree, below `/passthrough`.
    pub node: Spanned<String>,
    /// What its driver knows it by.
    pub compatible: Vec<String>,
    /// Its registers, by physical address.
    pub reg: Spanned<Vec<Spanned<Region>>>,
    /// Its interrupts.
    pub interrupts: Vec<Interrupt>,
    /// The clocks that feed it, which the driver domain sees as fixed.
    pub clocks: Vec<Clock>,
    /// Further properties of its node in the driver domain.
    pub properties: Vec<(Spanned<String>, Property)>,
    /// The device by which QEMU provides it, if it is no part of the machine.
    pub qemu: Option<QemuDevice>,
}

/// What hardware can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An I2C adapter.
    I2c,
    /// A GPIO controller.
    Gpio,
}

/// A shared peripheral interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number among the SPIs.
    pub spi: u32,
    /// The flags of the GIC's device tree binding: 1 for a rising edge, 4 for a high level.
    pub flags: u32,
}

/// A clock that does not change.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Its name for the device.
    pub name: Spanned<String>,
    /// Hertz.
    pub frequency: u32,
}

/// A vhost-user device of QEMU. It connects to the socket `HARDWARE.sock` in QEMU's working directory.
#[derive(Clone, Debug)]
pub struct QemuDevice {
    /// QEMU's name for the device.
    pub vhost_user: String,
    /// The slot it is put in.
    pub bus: String,
}

impl Kind {
    /// The name in messages, with its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::I2c => "an I2C adapter",
            Self::Gpio => "a GPIO controller",
        }
    }
}

impl Board {
    /// The file of the board called `name`: one that the builder carries, or, if `name` ends in `.toml`, a file
    /// beside the manifest (which is in `directory`).
    ///
    /// # Errors
    ///
    /// What is wrong with the name, to be shown at its place in the manifest.
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
                let names: Vec<_> = KNOWN.iter().map(|(name, _)| name).collect();
                Diagnostic::new(name.span, format!("there is no board `{}`", name.value), "unknown board")
                    .help(format!(
                        "write {}, or the path of a board file that ends in `.toml`",
                        diagnostics::listed(names)
                    ))
            },
        )
    }

    /// Reads a board file.
    ///
    /// # Errors
    ///
    /// All keys and values that are not as they must be, or the first place that is not TOML at all.
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
    /// The pages that must be assigned for the driver domain to reach its registers.
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
    fn the_boards_that_the_builder_carries_are_accepted() {
        for (name, text) in KNOWN {
            let board = Board::parse(text).unwrap();
            assert_eq!(crate::validate::board(&board), [], "{name}");
        }
    }

    #[test]
    fn registers_are_assigned_by_whole_pages() {
        let board = Board::parse(KNOWN[0].1).unwrap();
        let pages: Vec<_> = board.hardware("i2c0").unwrap().pages().collect();
        assert_eq!(pages, [Region { base: 0xa00_3000, size: 0x1000 }]);
    }
}
