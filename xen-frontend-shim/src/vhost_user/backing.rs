// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a backend reaches the memory of a memory table: through grants, or as foreign pages.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::MmapXenFlags;

use crate::memory::{GuestMemory, Mapped, Region};

/// What backs the regions of a memory table.
pub trait Backing {
    /// The memory of the guest that the backend reaches.
    fn memory(&self) -> &GuestMemory;

    /// The region as the message has it, and the descriptor that the backend maps it from.
    fn describe(&self, region: &Region) -> (VhostUserMemoryRegion, RawFd);
}

/// The memory of a guest, which the backend maps through a descriptor of its own.
///
/// A mapping of grants belongs to the open file: when the last descriptor of it is closed, the backend's and
/// this one, the kernel unmaps what the backend has left mapped. A foreign mapping belongs to the process.
#[derive(Debug)]
pub struct GuestBacking {
    /// An open `/dev/xen/gntdev` or, if the backend reaches all of the guest's RAM, `/dev/xen/privcmd`: for
    /// this backend only, restricted to the guest.
    pub device: OwnedFd,
    /// The guest.
    pub domid: u16,
    /// What the backend reaches.
    pub memory: GuestMemory,
}

impl Backing for GuestBacking {
    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn describe(&self, region: &Region) -> (VhostUserMemoryRegion, RawFd) {
        let kind = match self.memory {
            GuestMemory::Granted => MmapXenFlags::GRANT,
            GuestMemory::All(_) => MmapXenFlags::FOREIGN,
        };
        let flags = match region.mapped {
            Mapped::InAdvance => kind,
            Mapped::OnDemand => kind | MmapXenFlags::NO_ADVANCE_MAP,
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
        (region, self.device.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use shim_config::MemoryBank;

    use super::*;
    use crate::memory::address::{GRANT_SPACE, GRANT_SPACE_END};
    use crate::memory::table;
    use crate::vhost_user::test_backend::ring;

    #[test]
    fn rings_are_mapped_in_advance_and_the_rest_on_demand() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let grants = GuestBacking { device: file.into(), domid: 2, memory: GuestMemory::Granted };
        let table = table::with_rings(&grants.memory, &[ring(8)]).unwrap();
        let described: Vec<_> = table
            .iter()
            .map(|region| {
                let (region, fd) = grants.describe(region);
                assert_eq!(
                    (fd, { region.mmap_offset }, { region.xen_mmap_data }),
                    (grants.device.as_raw_fd(), 0, 2)
                );
                assert_eq!({ region.user_addr }, { region.guest_phys_addr });
                (region.guest_phys_addr - GRANT_SPACE, { region.memory_size }, { region.xen_mmap_flags })
            })
            .collect();
        let rest = GRANT_SPACE_END - GRANT_SPACE - 0x9000;
        assert_eq!(described, [(0, 0x8000, 0xa), (0x8000, 0x1000, 0x2), (0x9000, rest, 0xa)]);
    }

    #[test]
    fn a_bank_of_ram_is_foreign_and_mapped_in_advance() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let memory = GuestMemory::from(vec![MemoryBank { base: 0x4000_0000, size: 0x80_0000 }]);
        let all = GuestBacking { device: file.into(), domid: 3, memory };
        let table = table::with_rings(&all.memory, &[]).unwrap();
        let [region] = table.as_slice() else { panic!("{table:?}") };
        let (region, fd) = all.describe(region);
        assert_eq!(fd, all.device.as_raw_fd());
        assert_eq!(({ region.guest_phys_addr }, { region.user_addr }), (0x4000_0000, 0x4000_0000));
        assert_eq!(({ region.memory_size }, { region.mmap_offset }), (0x80_0000, 0));
        assert_eq!(({ region.xen_mmap_flags }, { region.xen_mmap_data }), (0x1, 3));
    }
}
