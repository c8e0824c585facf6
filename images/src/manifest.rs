// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The manifest: the board, the driver domain and its hardware, the guests and their devices.
//!
//! Each value carries its place in the file, for the diagnostics of [`crate::validate`]. The reader finds
//! unknown and missing keys and values of a wrong type; `validate` finds the rest.

mod parse;

use toml_span::{Deserialize, Spanned};

pub use crate::device::Device;
use crate::diagnostics::{self, Diagnostic};
use crate::spanned::Named;
pub use crate::spanned::{Memory, Property};

/// A manifest.
#[derive(Debug)]
pub struct Manifest {
    /// The name of a board that the builder has, or the path of a board file, relative to the manifest.
    pub board: Spanned<String>,
    /// The domain that owns the hardware.
    pub driver_domain: DriverDomain,
    /// The guests, in the order of their domids.
    pub guests: Vec<Guest>,
}

/// The keys of every domain.
#[derive(Clone, Debug)]
pub struct Domain {
    /// The size of the RAM.
    pub memory: Spanned<Memory>,
    /// The number of virtual CPUs.
    pub vcpus: Spanned<u32>,
    /// The kernel, below the directory of input files.
    pub kernel: Spanned<String>,
    /// The part of the kernel's command line that the author adds to that of the builder.
    pub bootargs: Option<Spanned<String>>,
}

/// The domain that owns the hardware and serves the guests.
#[derive(Clone, Debug)]
pub struct DriverDomain {
    /// Memory, CPUs and kernel.
    pub domain: Domain,
    /// The names of the board's hardware that it owns.
    pub hardware: Vec<Spanned<String>>,
    /// A program to keep running on the console, with its arguments.
    pub console: Vec<Spanned<String>>,
    /// Files to add to the ramdisk.
    pub files: Vec<ExtraFile>,
}

/// A file that is added to the driver domain's ramdisk.
#[derive(Clone, Debug)]
pub struct ExtraFile {
    /// The absolute path in the driver domain.
    pub destination: Spanned<String>,
    /// The path below the directory of input files.
    pub source: Spanned<String>,
}

impl ExtraFile {
    /// The files of a table `destination = source`.
    pub(crate) fn list(table: Named<Spanned<String>>) -> Vec<Self> {
        table.0.into_iter().map(|(destination, source)| Self { destination, source }).collect()
    }
}

/// A guest.
#[derive(Debug)]
pub struct Guest {
    /// The name: in file names, in log lines, and (as `NAME_t`) in the policy.
    pub name: Spanned<String>,
    /// Memory, CPUs and kernel.
    pub domain: Domain,
    /// The ramdisk, below the directory of input files.
    pub ramdisk: Option<Spanned<String>>,
    /// How the driver domain reaches its memory.
    pub memory_access: Spanned<MemoryAccess>,
    /// The virtio devices, type by type, each in the order of the file.
    pub devices: Vec<Device>,
}

/// How the driver domain reaches the memory of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryAccess {
    /// It reaches the pages that the guest grants, while it grants them.
    Granted,
    /// It reaches all of it, at any time. For guests that have no grants.
    All,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// All keys and values that are wrong by themselves, or the first place that is not TOML.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut value = toml_span::parse(text).map_err(diagnostics::from_error)?;
        Self::deserialize(&mut value).map_err(diagnostics::from_reader)
    }

    /// The files that are added to the driver domain's ramdisk, its own and those of devices. A file of
    /// several devices is there for each.
    pub fn files(&self) -> impl Iterator<Item = &ExtraFile> {
        let devices = self.guests.iter().flat_map(|guest| &guest.devices);
        self.driver_domain.files.iter().chain(devices.flat_map(|device| device.device_type.files()))
    }

    /// The driver domain and the guests, in the order of their domids.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        std::iter::once(&self.driver_domain.domain).chain(self.guests.iter().map(|guest| &guest.domain))
    }
}
