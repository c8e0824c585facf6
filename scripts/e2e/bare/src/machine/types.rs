// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The types of the functions of [`machine`](super).

use core::sync::atomic::{AtomicU16, AtomicU32};

/// The number of entries of the grant table: four pages.
pub const GRANT_ENTRIES: usize = 2048;

/// An entry of the grant table (`grant_entry_v1` in Xen's public header grant_table.h). Xen may access it at
/// any time.
#[derive(Debug)]
#[repr(C)]
pub struct GrantEntry {
    /// `GTF_*`: permissions, and whether the page is in use.
    pub flags: AtomicU16,
    /// The domain that may use the page.
    pub domain: AtomicU16,
    /// The frame number of the page.
    pub frame: AtomicU32,
}

impl GrantEntry {
    #[cfg(not(bare_metal))]
    pub(super) const fn new() -> Self {
        Self { flags: AtomicU16::new(0), domain: AtomicU16::new(0), frame: AtomicU32::new(0) }
    }
}

/// A failed access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// ESR_EL1: exception class in bits 31 to 26, fault status of a data abort in bits 5 to 0.
    pub syndrome: u64,
    /// The address that was accessed.
    pub address: u64,
}

impl Abort {
    /// The fault status of an access to an address with nothing behind it: Xen injects a synchronous external
    /// abort.
    pub const EXTERNAL: u64 = 0x10;
    /// The fault status of an unaligned access to device memory.
    pub const ALIGNMENT: u64 = 0x21;

    /// The data fault status code (Arm ARM, ESR_ELx.ISS.DFSC).
    #[must_use]
    pub fn status(self) -> u64 {
        self.syndrome & 0x3f
    }
}

/// The width of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Width {
    /// All widths.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Half, Self::Word, Self::Double];

    /// The width in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }
}
