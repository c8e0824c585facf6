// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory as the frontend described it, and the copies from and to it.
//!
//! Without Xen the guest's memory is shared with this process, and a copy is a copy (`shared`). With Xen only
//! the rings are mapped; the hypervisor copies the buffers of a batch (`granted`): a mapping for each access
//! costs five times as much, and vm-memory, which would make it, panics on an invalid grant. A guest without
//! grants has all of its RAM mapped as foreign memory, and a copy is a copy again. An error belongs to the
//! piece that caused it, and so to one chain.

#[cfg(feature = "xen")]
mod granted;
#[cfg(not(feature = "xen"))]
mod shared;

#[cfg(feature = "xen")]
pub(crate) use granted::{CopyIn, CopyOut};
#[cfg(not(feature = "xen"))]
pub(crate) use shared::{CopyIn, CopyOut};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// The memory of the guest, empty before the frontend has described it.
#[derive(Debug, Default)]
pub struct Memory {
    map: GuestMemoryMmap,
    #[cfg(feature = "xen")]
    gntdev: Option<xen_bindings::Gntdev>,
    #[cfg(feature = "xen")]
    scratch: std::cell::RefCell<granted::Scratch>,
}

impl Memory {
    /// Uses the regions of a memory table.
    ///
    /// # Errors
    /// When a descriptor of the table cannot be duplicated.
    pub fn new(map: GuestMemoryMmap) -> std::io::Result<Self> {
        #[cfg(feature = "xen")]
        let gntdev = granted::gntdev(&map)?;
        Ok(Self {
            map,
            #[cfg(feature = "xen")]
            gntdev,
            #[cfg(feature = "xen")]
            scratch: std::cell::RefCell::default(),
        })
    }

    /// Returns the regions, to access the rings, which are always mapped.
    pub(crate) fn map(&self) -> &GuestMemoryMmap {
        &self.map
    }

    /// Copies from memory that is mapped; returns whether all of it was copied.
    fn read_mapped(&self, from: GuestAddress, to: &mut [u8]) -> bool {
        self.map.read_slice(to, from).is_ok()
    }

    /// Copies to memory that is mapped; returns whether all of it was copied.
    fn write_mapped(&self, to: GuestAddress, from: &[u8]) -> bool {
        self.map.write_slice(from, to).is_ok()
    }

    /// Whether [`map`](Self::map) can access `bytes` bytes from `address` on: all of them are in memory that
    /// is mapped until the table changes.
    pub(crate) fn is_mapped(&self, address: GuestAddress, bytes: u64) -> bool {
        let Some(end) = address.0.checked_add(bytes) else { return false };
        let mut at = address.0;
        while at < end {
            match self.map.find_region(GuestAddress(at)) {
                Some(region) if is_mapped_in_advance(region) => at = region.last_addr().0.saturating_add(1),
                _ => return false,
            }
        }
        true
    }
}

#[cfg(feature = "xen")]
use granted::is_mapped_in_advance;

/// Shared memory is mapped when the frontend describes it.
#[cfg(not(feature = "xen"))]
fn is_mapped_in_advance(_region: &vm_memory::GuestRegionMmap) -> bool {
    true
}
