// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copies where the guest's memory is shared with this process.

use vm_memory::GuestAddress;

use super::Memory;

/// Copies from the guest.
pub(crate) struct CopyIn<'a> {
    memory: &'a Memory,
    failed: Vec<usize>,
}

impl<'a> CopyIn<'a> {
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self { memory, failed: Vec::new() }
    }

    /// Copies from the guest to `to`, for chain `owner`. Owners come in ascending order.
    pub(crate) fn add(&mut self, owner: usize, from: GuestAddress, to: &'a mut [u8]) {
        if !self.memory.read_mapped(from, to) {
            self.failed.push(owner);
        }
    }

    /// Returns the owners whose request is incomplete.
    pub(crate) fn run(self) -> Vec<usize> {
        self.failed
    }
}

/// Copies to the guest.
pub(crate) struct CopyOut<'a> {
    memory: &'a Memory,
    failed: Vec<usize>,
}

impl<'a> CopyOut<'a> {
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self { memory, failed: Vec::new() }
    }

    /// Copies `from` to the guest, for chain `owner`. Owners come in ascending order.
    pub(crate) fn add(&mut self, owner: usize, to: GuestAddress, from: &'a [u8]) {
        if !self.memory.write_mapped(to, from) {
            self.failed.push(owner);
        }
    }

    /// Returns the owners whose answer was not delivered as a whole.
    pub(crate) fn run(self) -> Vec<usize> {
        self.failed
    }
}
