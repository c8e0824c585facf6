// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine under the guest: an AArch64 CPU at EL1, and Xen.
//!
//! `bare_metal` is what there is when the guest runs: assembly, system registers, accesses at any address. All `unsafe`
//! of the guest is there. `elsewhere` has the same functions and does nothing, so that everything above can be
//! checked and tested on the machine that builds it.

use core::sync::atomic::{AtomicU16, AtomicU32};

#[cfg(bare_metal)]
mod bare_metal;
#[cfg(bare_metal)]
use bare_metal as here;

#[cfg(not(bare_metal))]
mod elsewhere;
#[cfg(not(bare_metal))]
use elsewhere as here;

pub use here::{
    acknowledge_interrupt, barrier, constant_image, counter, cpu, device_tree, enable_cpu_interface,
    end_of_interrupt, frequency, grant_table, hypercall, load, mask_interrupts, ram, send_interrupt,
    set_timer, start_cpu, store, unmask_interrupts, wait_for_interrupt,
};

/// How many grants there may be: four pages of them.
pub const GRANT_ENTRIES: usize = 2048;

/// An entry of the grant table (Xen's public header grant_table.h: grant_entry_v1). Xen reads and writes it at any time.
#[derive(Debug)]
#[repr(C)]
pub struct GrantEntry {
    /// What is permitted, and what is in use.
    pub flags: AtomicU16,
    /// To whom.
    pub domain: AtomicU16,
    /// Which page.
    pub frame: AtomicU32,
}

impl GrantEntry {
    #[cfg(not(bare_metal))]
    const fn new() -> Self {
        Self { flags: AtomicU16::new(0), domain: AtomicU16::new(0), frame: AtomicU32::new(0) }
    }
}

/// Why an access had no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The syndrome: exception class in bits 31 to 26, for a data abort the fault's status in bits 5 to 0.
    pub syndrome: u64,
    /// The address that was accessed.
    pub address: u64,
}

impl Abort {
    /// What is said of an address that has nothing behind it: a synchronous external abort, which Xen injects.
    pub const EXTERNAL: u64 = 0x10;
    /// An access that is not aligned, to an address that is mapped as a device.
    pub const ALIGNMENT: u64 = 0x21;

    /// The data fault's status code (Arm's architecture manual, ESR_ELx.ISS.DFSC).
    #[must_use]
    pub fn status(self) -> u64 {
        self.syndrome & 0x3f
    }
}

/// How wide an access is.
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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Half, Self::Word, Self::Double];

    /// In bytes.
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
