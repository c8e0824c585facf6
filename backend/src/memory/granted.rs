// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copies on Xen. Where the guest's pages are granted: `IOCTL_GNTDEV_GRANT_COPY`, one call for a batch. Where
//! all of its RAM is mapped, at once.
//!
//! A guest with `xen,grant-dma` writes `1 << 63 | grant << 12 | offset` in place of an address (Linux,
//! `drivers/xen/grant-dma-ops.c`), and numbers the grants of adjacent pages consecutively. The region names
//! the domain that granted them (`xen_mmap_data`, vhost-user's XEN_MMAP extension).

use std::io;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapXenFlags};
use xen_bindings::{CopyBatch, DomId, Gntdev, GrantRef, PAGE_SIZE};

use super::Memory;

/// The bit of addresses that are grants.
const GRANT: u64 = 1 << 63;
const PAGE: u64 = PAGE_SIZE as u64;

/// Duplicates the descriptor of `/dev/xen/gntdev` that the frontend passed with its regions; all of them are
/// the same file.
pub(super) fn gntdev(map: &GuestMemoryMmap) -> io::Result<Option<Gntdev>> {
    let granted = map.iter().find(|region| flags(region).is_grant());
    let Some(file) = granted.and_then(|region| region.file_offset()) else { return Ok(None) };
    Ok(Some(Gntdev::from_fd(file.file().try_clone()?.into())))
}

pub(super) fn is_mapped_in_advance(region: &GuestRegionMmap) -> bool {
    flags(region).mmap_in_advance()
}

fn flags(region: &GuestRegionMmap) -> MmapXenFlags {
    MmapXenFlags::from_bits_truncate(region.xen_mmap_flags())
}

/// A place in a granted page.
struct Place {
    domain: DomId,
    grant: GrantRef,
    offset: u16,
    /// Bytes from the offset to the end of the page.
    left: usize,
}

impl Place {
    fn of(memory: &Memory, address: GuestAddress) -> Option<Self> {
        let region = memory.map.find_region(address).filter(|region| flags(region).is_grant())?;
        if address.0 & GRANT == 0 {
            return None;
        }
        let offset = address.0 % PAGE;
        Some(Self {
            domain: DomId::new(u16::try_from(region.xen_mmap_data()).ok()?),
            grant: GrantRef::new(u32::try_from((address.0 & !GRANT) / PAGE).ok()?),
            offset: u16::try_from(offset).ok()?,
            left: usize::try_from(PAGE - offset).ok()?,
        })
    }
}

/// Splits a buffer of the guest at page boundaries.
struct Pieces<'a> {
    memory: &'a Memory,
    /// The address of the next piece, unless it overflowed.
    at: Option<GuestAddress>,
    left: usize,
}

impl<'a> Pieces<'a> {
    fn of(memory: &'a Memory, address: GuestAddress, bytes: usize) -> Self {
        Self { memory, at: Some(address), left: bytes }
    }
}

impl Iterator for Pieces<'_> {
    /// A place and a length; `None` inside means that there is no grant for the rest of the buffer.
    type Item = Option<(Place, usize)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let Some(place) = self.at.and_then(|at| Place::of(self.memory, at)) else {
            self.left = 0;
            return Some(None);
        };
        let bytes = place.left.min(self.left);
        (self.at, self.left) = (following(self.at, bytes), self.left - bytes);
        Some(Some((place, bytes)))
    }
}

/// The allocations of a batch, kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    batch: CopyBatch<'static>,
    owners: Vec<usize>,
}

/// Whether an address is in RAM that is mapped as a whole, of a guest without grants.
fn is_foreign(memory: &Memory, address: GuestAddress) -> bool {
    memory.map.find_region(address).is_some_and(|region| flags(region).is_foreign())
}

/// A batch of copies, and the chain that each segment belongs to.
struct Copies<'a> {
    memory: &'a Memory,
    batch: CopyBatch<'a>,
    owners: Vec<usize>,
    failed: Vec<usize>,
}

impl<'a> Copies<'a> {
    fn new(memory: &'a Memory) -> Self {
        let Scratch { batch, owners } = memory.scratch.take();
        Self { memory, batch, owners, failed: Vec::new() }
    }

    /// Records that a segment was added for `owner`, or that there is no grant for it.
    fn record(&mut self, owner: usize, added: bool) {
        if added { self.owners.push(owner) } else { self.failed.push(owner) }
    }

    /// Records whether a buffer in mapped RAM was copied for `owner`.
    fn record_mapped(&mut self, owner: usize, copied: bool) {
        if !copied {
            self.failed.push(owner);
        }
    }

    /// Copies the batch and returns the owners of failed segments, without duplicates.
    fn run(mut self) -> Vec<usize> {
        if !self.batch.is_empty() {
            self.copy();
        }
        let Self { memory, batch, mut owners, mut failed } = self;
        owners.clear();
        memory.scratch.replace(Scratch { batch: batch.recycle(), owners });
        failed.sort_unstable();
        failed.dedup();
        failed
    }

    fn copy(&mut self) {
        let copied = self.memory.gntdev.as_ref().map(|gntdev| gntdev.copy(&mut self.batch));
        if let Some(Err(error)) = copied {
            log::error!("grant copies failed: {error}");
        }
        // After a failed call, the status of every segment is an error.
        for (owner, status) in self.owners.iter().zip(self.batch.statuses()) {
            if let Err(why) = status.ok() {
                log::debug!("a buffer cannot be copied: {why}");
                self.failed.push(*owner);
            }
        }
    }
}

/// A batch of copies from the guest.
pub(crate) struct CopyIn<'a>(Copies<'a>);

impl<'a> CopyIn<'a> {
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self(Copies::new(memory))
    }

    /// Adds a copy from the guest to `to`, for chain `owner`.
    pub(crate) fn add(&mut self, owner: usize, from: GuestAddress, mut to: &'a mut [u8]) {
        let Self(copies) = self;
        if is_foreign(copies.memory, from) {
            return copies.record_mapped(owner, copies.memory.read_mapped(from, to));
        }
        for piece in Pieces::of(copies.memory, from, to.len()) {
            let Some((place, bytes)) = piece else { return copies.record(owner, false) };
            let (piece, rest) = to.split_at_mut(bytes);
            to = rest;
            let added = copies.batch.from_guest(place.domain, place.grant, place.offset, piece);
            copies.record(owner, added.is_ok());
        }
    }

    /// Copies, and returns the owners whose request is incomplete.
    pub(crate) fn run(self) -> Vec<usize> {
        self.0.run()
    }
}

/// A batch of copies to the guest.
pub(crate) struct CopyOut<'a>(Copies<'a>);

impl<'a> CopyOut<'a> {
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self(Copies::new(memory))
    }

    /// Adds a copy of `from` to the guest, for chain `owner`.
    pub(crate) fn add(&mut self, owner: usize, to: GuestAddress, mut from: &'a [u8]) {
        let Self(copies) = self;
        if is_foreign(copies.memory, to) {
            return copies.record_mapped(owner, copies.memory.write_mapped(to, from));
        }
        for piece in Pieces::of(copies.memory, to, from.len()) {
            let Some((place, bytes)) = piece else { return copies.record(owner, false) };
            let (piece, rest) = from.split_at(bytes);
            from = rest;
            let added = copies.batch.to_guest(place.domain, place.grant, place.offset, piece);
            copies.record(owner, added.is_ok());
        }
    }

    /// Copies, and returns the owners whose answer was not delivered as a whole.
    pub(crate) fn run(self) -> Vec<usize> {
        self.0.run()
    }
}

fn following(at: Option<GuestAddress>, bytes: usize) -> Option<GuestAddress> {
    let bytes = u64::try_from(bytes).ok()?;
    at.and_then(|at| at.0.checked_add(bytes)).map(GuestAddress)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;
    use vm_memory::{FileOffset, MmapRange, MmapRegion};

    use super::*;

    const GUEST: u32 = 7;

    /// Returns grants 0 to 15 of a guest, none of them mapped.
    fn memory() -> Memory {
        regions(&[(GRANT, 16, GUEST)])
    }

    /// Returns regions of this address, number of pages and guest. The file is not a gntdev: every copy
    /// fails.
    fn regions(regions: &[(u64, usize, u32)]) -> Memory {
        let region = |(address, pages, guest): &(u64, usize, u32)| {
            let file = FileOffset::new(File::open("/dev/null").unwrap(), 0);
            let flags = MmapXenFlags::GRANT | MmapXenFlags::NO_ADVANCE_MAP;
            let (bytes, address) = (*pages * PAGE_SIZE, GuestAddress(*address));
            let range = MmapRange::new(bytes, Some(file), address, flags.bits(), *guest);
            GuestRegionMmap::new(MmapRegion::from_range(range).unwrap(), address).unwrap()
        };
        let regions = regions.iter().map(region).collect();
        Memory::new(GuestMemoryMmap::from_regions(regions).unwrap()).unwrap()
    }

    /// A grant reference has 32 bits.
    const PAGES_OF_ALL_GRANTS: u64 = 1 << 32;

    /// What a frontend may describe, and a guest refer to.
    const REGIONS: [(u64, usize, u32); 6] = [
        // Addresses that are not grants, in a region that is described as granted.
        (0x1_0000, 4, GUEST),
        (GRANT, 16, GUEST),
        // The next region, of another guest.
        (GRANT + 16 * PAGE, 3, 9),
        // A domain id that does not exist.
        (GRANT + 19 * PAGE, 2, 0x1_0000 + GUEST),
        // The last two grants, and two pages beyond.
        (GRANT + (PAGES_OF_ALL_GRANTS - 2) * PAGE, 4, GUEST),
        // The highest possible region.
        (0_u64.wrapping_sub(5 * PAGE), 4, GUEST),
    ];

    /// The model: the domain and the grant of `address`, with numbers that do not overflow.
    fn grant_of(address: u128) -> Option<(u16, u32)> {
        let inside = |(begin, pages, _): &&(u64, usize, u32)| {
            let (begin, bytes) = (u128::from(*begin), *pages as u128 * 4096);
            begin <= address && address < begin + bytes
        };
        let (.., guest) = REGIONS.iter().find(inside)?;
        let page = address.checked_sub(1 << 63)? / 4096;
        Some((u16::try_from(*guest).ok()?, u32::try_from(page).ok()?))
    }

    /// Returns addresses near the ends of regions, and any others.
    fn addresses() -> impl Strategy<Value = u64> {
        let near = (prop::sample::select(REGIONS.to_vec()), any::<bool>(), -9000..9000_i64);
        let near = near.prop_map(|((begin, pages, _), at_end, distance)| {
            let end = begin + if at_end { pages as u64 * PAGE } else { 0 };
            end.wrapping_add_signed(distance)
        });
        prop_oneof![8 => near, 1 => any::<u64>(), 1 => any::<u64>().prop_map(|address| address | GRANT)]
    }

    fn lengths() -> impl Strategy<Value = usize> {
        prop_oneof![4 => 0..3 * PAGE_SIZE, 2 => 0..40 * PAGE_SIZE, 1 => any::<usize>()]
    }

    proptest! {
        #[test]
        fn a_buffer_is_split_into_the_grants_of_its_address(address in addresses(), bytes in lengths()) {
            let memory = regions(&REGIONS);
            let (mut at, end) = (u128::from(address), u128::from(address) + bytes as u128);
            let mut has_grant = true;
            for piece in Pieces::of(&memory, GuestAddress(address), bytes) {
                prop_assert!(has_grant, "nothing after that");
                let Some((place, length)) = piece else {
                    has_grant = false;
                    continue;
                };
                let (last, length) = (u128::from(place.offset) + length as u128 - 1, length as u128);
                prop_assert!(length > 0 && last < 4096 && at + length <= end);
                let grant = Some((place.domain.get(), place.grant.get()));
                prop_assert_eq!((grant, u128::from(place.offset)), (grant_of(at), at % 4096));
                at += length;
            }
            prop_assert_eq!(has_grant, at == end);
            prop_assert!(has_grant || grant_of(at).is_none());
        }

        #[test]
        fn granted_bytes_are_copied_and_others_fail(address in addresses(), bytes in 0..40 * PAGE_SIZE) {
            let memory = regions(&REGIONS);
            let pieces: Vec<_> = Pieces::of(&memory, GuestAddress(address), bytes).collect();
            let good = pieces.iter().flatten().count();
            let failed = vec![5; pieces.len() - good];
            let mut buffer = vec![0; bytes];
            let mut copy = CopyIn::new(&memory);
            copy.add(5, GuestAddress(address), &mut buffer);
            prop_assert_eq!((copy.0.batch.len(), &copy.0.owners), (good, &vec![5; good]));
            prop_assert_eq!(&copy.0.failed, &failed);
            drop(copy);
            let mut copy = CopyOut::new(&memory);
            copy.add(5, GuestAddress(address), &buffer);
            prop_assert_eq!((copy.0.batch.len(), &copy.0.owners), (good, &vec![5; good]));
            prop_assert_eq!(&copy.0.failed, &failed);
        }
    }

    #[test]
    fn an_address_is_a_grant_and_an_offset() {
        let memory = memory();
        let place = Place::of(&memory, GuestAddress(GRANT | 0x3ff8)).unwrap();
        assert_eq!((place.domain, place.grant), (DomId::new(7), GrantRef::new(3)));
        assert_eq!((place.offset, place.left), (0xff8, 8));
        assert!(Place::of(&memory, GuestAddress(0x3ff8)).is_none(), "an address that is not a grant");
        assert!(Place::of(&memory, GuestAddress(GRANT | 0x1_0000)).is_none(), "beyond the region");
    }

    #[test]
    fn a_buffer_is_cut_at_each_page() {
        let memory = memory();
        let mut buffer = [0; 2 * PAGE_SIZE];
        let mut copy = CopyIn::new(&memory);
        copy.add(0, GuestAddress(GRANT | 0x1ff0), &mut buffer);
        assert_eq!(copy.0.batch.len(), 3);
        assert_eq!(copy.0.owners, [0, 0, 0]);
        let mut copy = CopyOut::new(&memory);
        copy.add(0, GuestAddress(GRANT | 0x1000), &buffer);
        assert_eq!(copy.0.batch.len(), 2);
    }

    #[test]
    fn an_owner_of_several_failed_segments_is_returned_once() {
        let memory = memory();
        let (mut first, mut second) = ([0; 2 * PAGE_SIZE], [0; 8]);
        let mut copy = CopyIn::new(&memory);
        copy.add(1, GuestAddress(GRANT | 0xf010), &mut first);
        copy.add(4, GuestAddress(GRANT), &mut second);
        assert_eq!(copy.run(), [1, 4]);
    }

    #[test]
    fn an_unmapped_region_cannot_hold_a_ring() {
        assert!(!memory().is_mapped(GuestAddress(GRANT), 16));
    }
}
