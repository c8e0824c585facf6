// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Walks along the descriptors of a chain (virtio 1.3, 2.7.5).

use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress};

use crate::memory::Memory;

/// Size of a descriptor (virtio 1.3, 2.7.5).
const DESCRIPTOR_BYTES: u64 = 16;

/// Maximum size of an indirect table: a request has a header, some pieces of a buffer and a status.
const INDIRECT_ENTRIES: u16 = 64;

/// A table of descriptors: that of the ring, or an indirect one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DescriptorTable {
    pub(crate) address: GuestAddress,
    pub(crate) size: u16,
    /// VIRTIO_F_INDIRECT_DESC was negotiated, and this is not an indirect table.
    pub(crate) may_be_indirect: bool,
}

/// Reads a chain, one descriptor at a time. Each is read once, so that the guest cannot change it after the
/// check.
pub(super) struct ChainWalker<'a> {
    memory: &'a Memory,
    table: DescriptorTable,
    next: Option<u16>,
    /// Descriptors that may follow. A chain of more than its table has is a loop (virtio 1.3, 2.7.5.2).
    left: u16,
}

impl<'a> ChainWalker<'a> {
    pub(super) fn new(memory: &'a Memory, table: DescriptorTable, head: u16) -> Self {
        Self { memory, table, next: Some(head), left: table.size }
    }

    /// Returns the next descriptor of the chain.
    pub(super) fn next(&mut self) -> Result<Option<Descriptor>, MalformedChain> {
        let Some(index) = self.next else { return Ok(None) };
        self.left = self.left.checked_sub(1).ok_or(MalformedChain::Loop)?;
        let descriptor = self.read(index)?;
        if has_flag(&descriptor, VRING_DESC_F_INDIRECT) {
            self.enter(&descriptor)?;
            return self.next();
        }
        self.next = has_flag(&descriptor, VRING_DESC_F_NEXT).then(|| descriptor.next());
        Ok(Some(descriptor))
    }

    fn read(&self, index: u16) -> Result<Descriptor, MalformedChain> {
        if index >= self.table.size {
            return Err(MalformedChain::OutsideTable { index });
        }
        let offset = u64::from(index) * DESCRIPTOR_BYTES;
        let address = self.table.address.checked_add(offset).ok_or(MalformedChain::NoSuchMemory)?;
        self.memory.map().read_obj(address).map_err(|_| MalformedChain::NoSuchMemory)
    }

    /// Continues in the table that `descriptor` refers to (virtio 1.3, 2.7.5.3).
    fn enter(&mut self, descriptor: &Descriptor) -> Result<(), MalformedChain> {
        let entries = u64::from(descriptor.len()) / DESCRIPTOR_BYTES;
        let is_whole = u64::from(descriptor.len()) % DESCRIPTOR_BYTES == 0;
        // VIRTQ_DESC_F_WRITE must be ignored here (2.7.5.3.2).
        if !self.table.may_be_indirect || has_flag(descriptor, VRING_DESC_F_NEXT) || !is_whole {
            return Err(MalformedChain::Indirect);
        }
        let size = u16::try_from(entries)
            .ok()
            .filter(|size| (1..=INDIRECT_ENTRIES).contains(size))
            .ok_or(MalformedChain::Indirect)?;
        self.table = DescriptorTable { address: descriptor.addr(), size, may_be_indirect: false };
        (self.next, self.left) = (Some(0), size);
        Ok(())
    }
}

fn has_flag(descriptor: &Descriptor, flag: u32) -> bool {
    u32::from(descriptor.flags()) & flag != 0
}

/// Why a chain is malformed. Its used length is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedChain {
    /// `next` is not an index into the table (virtio 1.3, 2.7.5).
    #[error("descriptor {index} is outside of its table")]
    OutsideTable {
        /// The index that the guest gave.
        index: u16,
    },
    /// The chain loops (virtio 1.3, 2.7.5.2).
    #[error("the chain is longer than its table, so it loops")]
    Loop,
    /// Device-readable descriptors must come first (virtio 1.3, 2.7.4.2).
    #[error("a device-readable descriptor follows a device-writable one")]
    ReadableAfterWritable,
    /// The chain is longer than any request of this device.
    #[error("longer than the {limit} bytes that this queue allows")]
    TooLong {
        /// The limit that was exceeded.
        limit: usize,
    },
    /// Not negotiated, nested, chained, or of a wrong size (virtio 1.3, 2.7.5.3.1).
    #[error("an indirect descriptor that is not allowed")]
    Indirect,
    /// The descriptor is not in the guest's memory.
    #[error("outside of the guest's memory")]
    NoSuchMemory,
}
