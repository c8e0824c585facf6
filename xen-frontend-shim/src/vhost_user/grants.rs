// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a backend reaches the memory of a memory table: through grants.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::MmapXenFlags;

use crate::memory::{Mapped, Region};

/// What backs the regions of a memory table.
pub trait Backing {
    /// The region as the message has it, and the descriptor that the backend maps it from.
    fn describe(&self, region: &Region) -> (VhostUserMemoryRegion, RawFd);
}

/// Grants of a guest, which the backend maps through a descriptor of `/dev/xen/gntdev` of its own.
///
/// A mapping belongs to the open file: when the last descriptor of it is closed, the backend's and this one,
/// the kernel unmaps what the backend has left mapped.
#[derive(Debug)]
pub struct Grants {
    /// An open `/dev/xen/gntdev` for this backend only, restricted to the guest.
    pub gntdev: OwnedFd,
    /// The guest.
    pub domid: u16,
}

impl Backing for Grants {
    fn describe(&self, region: &Region) -> (VhostUserMemoryRegion, RawFd) {
        let flags = match region.mapped {
            Mapped::InAdvance => MmapXenFlags::GRANT,
            Mapped::OnDemand => MmapXenFlags::GRANT | MmapXenFlags::NO_ADVANCE_MAP,
        };
        // The user address defines the address space of the rings' addresses: here, the guest's own.
        let region = VhostUserMemoryRegion::with_xen(
            region.start,
            region.end - region.start,
            region.start,
            0,
            flags.bits(),
            u32::from(self.domid),
        );
        (region, self.gntdev.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::address::{GRANT_SPACE, GRANT_SPACE_END};
    use crate::memory::table;
    use crate::vhost_user::test_backend::ring;

    #[test]
    fn rings_are_mapped_in_advance_and_the_rest_on_demand() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let grants = Grants { gntdev: file.into(), domid: 2 };
        let table = table::with_rings(&[ring(8)]).unwrap();
        let described: Vec<_> = table
            .iter()
            .map(|region| {
                let (region, fd) = grants.describe(region);
                assert_eq!(
                    (fd, { region.mmap_offset }, { region.xen_mmap_data }),
                    (grants.gntdev.as_raw_fd(), 0, 2)
                );
                assert_eq!({ region.user_addr }, { region.guest_phys_addr });
                (region.guest_phys_addr - GRANT_SPACE, { region.memory_size }, { region.xen_mmap_flags })
            })
            .collect();
        let rest = GRANT_SPACE_END - GRANT_SPACE - 0x9000;
        assert_eq!(described, [(0, 0x8000, 0xa), (0x8000, 0x1000, 0x2), (0x9000, rest, 0xa)]);
    }
}
