// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory as the frontend described it, and the copies to and from it.
//!
//! Without Xen the guest's memory is shared with this process and a copy is a copy. With Xen only the rings
//! are mapped; buffers are copied by the hypervisor, a batch at a time, because mapping a grant that the guest
//! can take back is a fault waiting to happen. Errors belong to the piece, and so to the chain, that caused them.

use vm_memory::{GuestAddress, GuestMemoryMmap};

#[cfg(not(feature = "xen"))]
use vm_memory::Bytes;

/// The memory of the guest behind the present frontend. Nothing, before the frontend described it.
#[derive(Debug, Default)]
pub struct Memory {
    map: GuestMemoryMmap,
}

impl Memory {
    /// Takes what the frontend sent.
    #[must_use]
    pub fn new(map: GuestMemoryMmap) -> Self {
        Self { map }
    }

    /// For the rings, which are always mapped.
    pub(crate) fn map(&self) -> &GuestMemoryMmap {
        &self.map
    }
}

/// Copies from the guest, collected and then run at once.
pub(crate) struct CopyIn<'a> {
    memory: &'a Memory,
    failed: Vec<usize>,
}

#[cfg(not(feature = "xen"))]
impl<'a> CopyIn<'a> {
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self { memory, failed: Vec::new() }
    }

    /// Fills `to` from the guest's memory, on behalf of chain `owner`.
    pub(crate) fn add(&mut self, owner: usize, from: GuestAddress, to: &'a mut [u8]) {
        if self.memory.map.read_slice(to, from).is_err() {
            note(&mut self.failed, owner);
        }
    }

    /// Which owners got less than they asked for, in ascending order.
    pub(crate) fn run(self) -> Vec<usize> {
        self.failed
    }
}

/// Copies to the guest, collected and then run at once.
pub(crate) struct CopyOut<'a> {
    memory: &'a Memory,
    failed: Vec<usize>,
}

#[cfg(not(feature = "xen"))]
impl<'a> CopyOut<'a> {
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self { memory, failed: Vec::new() }
    }

    /// Writes `from` to the guest's memory, on behalf of chain `owner`.
    pub(crate) fn add(&mut self, owner: usize, to: GuestAddress, from: &'a [u8]) {
        if self.memory.map.write_slice(from, to).is_err() {
            note(&mut self.failed, owner);
        }
    }

    /// Which owners could not deliver everything, in ascending order.
    pub(crate) fn run(self) -> Vec<usize> {
        self.failed
    }
}

/// Owners come in ascending order; each is noted once.
#[cfg(not(feature = "xen"))]
fn note(failed: &mut Vec<usize>, owner: usize) {
    if failed.last() != Some(&owner) {
        failed.push(owner);
    }
}
