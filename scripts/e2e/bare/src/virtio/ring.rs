// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A split virtqueue (virtio 1.3, 2.7), each of its parts in a granted page.

use anyhow::{Result, ensure};

use crate::grants::Granted;
use crate::machine;

/// The maximum number of entries: their descriptors fill a page.
pub const LARGEST: u16 = 256;

/// VIRTQ_DESC_F_NEXT: the chain continues (virtio 1.3, 2.7.5).
pub const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: the device writes the buffer.
pub const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A descriptor. Its fields may have any value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// The address of the buffer.
    pub address: u64,
    /// The length of the buffer.
    pub length: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`], or any other bits.
    pub flags: u16,
    /// The next descriptor of the chain.
    pub next: u16,
}

/// An entry of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The index of the chain's first descriptor.
    pub head: u32,
    /// The number of bytes that the device has written.
    pub written: u32,
}

/// A ring.
#[derive(Debug)]
pub struct Ring {
    /// The number of entries.
    pub size: u16,
    /// The page of the descriptors.
    pub descriptors: Granted,
    /// The page of the available ring.
    pub available: Granted,
    /// The page of the used ring.
    pub used: Granted,
    /// The number of used entries that were taken. Wraps.
    taken: u16,
}

impl Ring {
    /// Creates an empty ring.
    ///
    /// # Errors
    /// Returns an error if `size` is 0 or more than [`LARGEST`], or if no grant is free.
    pub fn new(size: u16) -> Result<Self> {
        ensure!((1..=LARGEST).contains(&size), "a ring of {size} entries");
        let (descriptors, available, used) = (Granted::new()?, Granted::new()?, Granted::new()?);
        Ok(Self { size, descriptors, available, used, taken: 0 })
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index % self.size)
    }

    /// Writes a descriptor.
    pub fn set(&self, index: u16, descriptor: Descriptor) {
        let (page, at) = (self.descriptors.page(), 16 * usize::from(index));
        page.write(at, &descriptor.address.to_le_bytes());
        page.write(at + 8, &descriptor.length.to_le_bytes());
        page.write_u16(at + 12, descriptor.flags);
        page.write_u16(at + 14, descriptor.next);
    }

    /// Returns the index of the available ring.
    #[must_use]
    pub fn available_index(&self) -> u16 {
        self.available.page().read_u16(2)
    }

    /// Sets the index of the available ring.
    pub fn set_available_index(&self, index: u16) {
        machine::barrier();
        self.available.page().write_u16(2, index);
        machine::barrier();
    }

    /// Writes an entry of the available ring.
    pub fn set_available(&self, index: u16, head: u16) {
        self.available.page().write_u16(4 + 2 * self.slot(index), head);
    }

    /// Makes a chain available.
    pub fn offer(&self, head: u16) {
        let index = self.available_index();
        self.set_available(index, head);
        self.set_available_index(index.wrapping_add(1));
    }

    /// Sets or clears VIRTQ_AVAIL_F_NO_INTERRUPT (2.7.7).
    pub fn set_no_interrupt(&self, no_interrupt: bool) {
        self.available.page().write_u16(0, u16::from(no_interrupt));
    }

    /// Returns the index of the used ring.
    #[must_use]
    pub fn used_index(&self) -> u16 {
        self.used.page().read_u16(2)
    }

    /// Returns an entry of the used ring.
    #[must_use]
    pub fn used_entry(&self, index: u16) -> Used {
        let (page, at) = (self.used.page(), 4 + 8 * self.slot(index));
        Used { head: page.read_u32(at), written: page.read_u32(at + 4) }
    }

    /// Returns whether the driver domain has a page of the ring mapped.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        [&self.descriptors, &self.available, &self.used].into_iter().any(Granted::is_in_use)
    }

    /// Returns whether the device has used a chain that was not taken yet.
    #[must_use]
    pub fn has_used(&self) -> bool {
        self.used_index() != self.taken
    }

    /// Takes the next used chain.
    pub fn take(&mut self) -> Option<Used> {
        let used = self.has_used().then(|| self.used_entry(self.taken))?;
        self.taken = self.taken.wrapping_add(1);
        Some(used)
    }
}
