// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The shim's own view of a ring: the two indices that say how far it is.

use std::io;

use super::pace::Progress;
use crate::hypervisor::{Hypervisor, Mapping};
use crate::memory::address::PAGE;
use crate::memory::{GrantRange, Ring};

/// The pages of a ring that hold its indices.
pub(super) struct RingView<M> {
    available: Index<M>,
    used: Index<M>,
}

/// A page, or two, and where the index is.
struct Index<M> {
    mapping: M,
    offset: usize,
}

impl<M: Mapping> RingView<M> {
    /// Maps all of a ring, to see that the guest granted it, and keeps what holds the indices.
    ///
    /// A backend that is told to map what is not granted fails as a whole. So the shim tries first: a guest that lies
    /// about its rings has a device that needs a reset, and keeps its backend.
    pub(super) fn map(hypervisor: &impl Hypervisor<Mapping = M>, ring: &Ring) -> io::Result<Self> {
        for part in ring.parts() {
            drop(hypervisor.map_grants(part.first(), part.page_count())?);
        }
        Ok(Self {
            available: Index::map(hypervisor, ring.available)?,
            used: Index::map(hypervisor, ring.used)?,
        })
    }

    /// How far the ring is.
    pub(super) fn progress(&self) -> Option<Progress> {
        Some(Progress { available: self.available.load()?, used: self.used.load()? })
    }

    /// The used index.
    pub(super) fn used(&self) -> Option<u16> {
        self.used.load()
    }
}

impl<M: Mapping> Index<M> {
    fn map(hypervisor: &impl Hypervisor<Mapping = M>, part: GrantRange) -> io::Result<Self> {
        // virtio 1.3, 2.7.6 and 2.7.8: the index follows the flags, perhaps on the next page.
        let offset = part.offset_in_page() + 2;
        let pages = if u64::try_from(offset).is_ok_and(|offset| offset < PAGE) { 1 } else { 2 };
        Ok(Self { mapping: hypervisor.map_grants(part.first(), pages)?, offset })
    }

    fn load(&self) -> Option<u16> {
        self.mapping.load_u16(self.offset)
    }
}
