// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory as the frontend described it, and the copies to and from it.
//!
//! Without Xen the guest's memory is shared with this process, and a copy is a copy (`shared`). With Xen only the rings
//! are mapped; buffers are copied by the hypervisor, a batch at a time (`granted`): a mapping that is made for each
//! access costs five times as much, and the library that would make it panics if the guest's grant is bad.
//! Errors belong to the piece, and so to the chain, that caused them.

#[cfg(feature = "xen")]
mod granted;
#[cfg(not(feature = "xen"))]
mod shared;

#[cfg(feature = "xen")]
pub(crate) use granted::{CopyIn, CopyOut};
#[cfg(not(feature = "xen"))]
pub(crate) use shared::{CopyIn, CopyOut};

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// The memory of the guest behind the present frontend. Nothing, before the frontend described it.
#[derive(Debug, Default)]
pub struct Memory {
    map: GuestMemoryMmap,
    #[cfg(feature = "xen")]
    gntdev: Option<xen_bindings::Gntdev>,
    #[cfg(feature = "xen")]
    scratch: std::cell::RefCell<granted::Scratch>,
}

impl Memory {
    /// Takes what the frontend sent.
    ///
    /// # Errors
    /// When a descriptor that came with it cannot be duplicated.
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

    /// For the rings, which are always mapped.
    pub(crate) fn map(&self) -> &GuestMemoryMmap {
        &self.map
    }

    /// Whether `bytes` from `address` on can be accessed by [`map`](Self::map) at any time: all of them are in memory that
    /// is mapped now and stays so.
    pub(crate) fn is_mapped(&self, address: GuestAddress, bytes: u64) -> bool {
        let Some(end) = address.0.checked_add(bytes) else { return false };
        let mut at = address.0;
        while at < end {
            match self.map.find_region(GuestAddress(at)) {
                Some(region) if mapped_in_advance(region) => at = region.last_addr().0.saturating_add(1),
                _ => return false,
            }
        }
        true
    }
}

#[cfg(feature = "xen")]
use granted::mapped_in_advance;

/// Shared memory is mapped when the frontend describes it.
#[cfg(not(feature = "xen"))]
fn mapped_in_advance(_region: &vm_memory::GuestRegionMmap) -> bool {
    true
}
