// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The shim's own mapping of a ring, from which it reads the available and the used index.

use std::io;

use super::stall::Progress;
use crate::hypervisor::{Hypervisor, Mapping};
use crate::memory::{GuestRange, Ring};

/// The pages of a ring that hold its indices.
pub(super) struct RingView<M> {
    available: Index<M>,
    used: Index<M>,
}

/// A mapping of one page or two, and the offset of the index in it.
struct Index<M> {
    mapping: M,
    offset: usize,
}

impl<M: Mapping> RingView<M> {
    /// Maps all of a ring, to check that the guest has granted it or has memory there, and keeps the pages
    /// with the indices.
    ///
    /// A backend that is sent a ring that cannot be mapped fails as a whole. With this check before it, the
    /// device needs a reset and the backend goes on.
    pub(super) fn map(hypervisor: &impl Hypervisor<Mapping = M>, ring: &Ring) -> io::Result<Self> {
        for part in ring.parts() {
            drop(hypervisor.map(part)?);
        }
        Ok(Self {
            available: Index::map(hypervisor, ring.available)?,
            used: Index::map(hypervisor, ring.used)?,
        })
    }

    /// Both indices.
    pub(super) fn progress(&self) -> Option<Progress> {
        Some(Progress { available: self.available.load()?, used: self.used.load()? })
    }

    /// The used index.
    pub(super) fn used(&self) -> Option<u16> {
        self.used.load()
    }
}

impl<M: Mapping> Index<M> {
    fn map(hypervisor: &impl Hypervisor<Mapping = M>, part: GuestRange) -> io::Result<Self> {
        // virtio 1.3, 2.7.6 and 2.7.8: the index follows the flags, possibly on the next page.
        Ok(Self { mapping: hypervisor.map(part.prefix(4))?, offset: part.offset_in_page() + 2 })
    }

    fn load(&self) -> Option<u16> {
        self.mapping.load_u16(self.offset)
    }
}
