// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copies where the guest's pages are granted: `IOCTL_GNTDEV_GRANT_COPY`, one call for a batch.
//!
//! A guest with `xen,grant-dma` writes `1 << 63 | grant << 12 | offset` where others write an address
//! (Linux, `drivers/xen/grant-dma-ops.c`), and numbers the grants of adjacent pages one after the other. Whose grants
//! they are, the frontend says with the region (`xen_mmap_data`, vhost-user's XEN_MMAP extension).

use std::io;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapXenFlags};
use xen_bindings::{CopyBatch, DomId, Gntdev, GrantRef, PAGE_SIZE};

use super::Memory;

/// Marks addresses that are grants.
const GRANT: u64 = 1 << 63;
const PAGE: u64 = PAGE_SIZE as u64;

/// The descriptor of `/dev/xen/gntdev` that the frontend passed with its regions. They are all the same.
pub(super) fn gntdev(map: &GuestMemoryMmap) -> io::Result<Option<Gntdev>> {
    let granted = map.iter().find(|region| flags(region).is_grant());
    let Some(file) = granted.and_then(|region| region.file_offset()) else { return Ok(None) };
    Ok(Some(Gntdev::from_fd(file.file().try_clone()?.into())))
}

pub(super) fn mapped_in_advance(region: &GuestRegionMmap) -> bool {
    flags(region).mmap_in_advance()
}

fn flags(region: &GuestRegionMmap) -> MmapXenFlags {
    MmapXenFlags::from_bits_truncate(region.xen_mmap_flags())
}

/// The page that a guest's address is in, and where in it.
struct Place {
    domain: DomId,
    grant: GrantRef,
    offset: u16,
    /// Bytes from there to the end of the page.
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

/// What a batch is made in, kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    batch: CopyBatch<'static>,
    owners: Vec<usize>,
}

/// A batch, and to whom its segments belong.
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

    /// Notes what was added for `owner`, or that its address is in no page.
    fn note(&mut self, owner: usize, added: bool) {
        if added { self.owners.push(owner) } else { self.failed.push(owner) }
    }

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
            log::error!("{error}");
        }
        // Where nothing was copied, all of them say so.
        for (owner, status) in self.owners.iter().zip(self.batch.statuses()) {
            if let Err(why) = status.ok() {
                log::debug!("a buffer cannot be copied: {why}");
                self.failed.push(*owner);
            }
        }
    }
}

/// Copies from the guest, collected and then run at once.
pub(crate) struct CopyIn<'a>(Copies<'a>);

impl<'a> CopyIn<'a> {
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self(Copies::new(memory))
    }

    /// Fills `to` from the guest's memory, on behalf of chain `owner`.
    pub(crate) fn add(&mut self, owner: usize, from: GuestAddress, mut to: &'a mut [u8]) {
        let Self(copies) = self;
        let mut at = Some(from);
        while !to.is_empty() {
            let Some(place) = at.and_then(|at| Place::of(copies.memory, at)) else {
                return copies.note(owner, false);
            };
            let (piece, rest) = to.split_at_mut(place.left.min(to.len()));
            at = following(at, piece.len());
            to = rest;
            let added = copies.batch.from_guest(place.domain, place.grant, place.offset, piece);
            copies.note(owner, added.is_ok());
        }
    }

    /// Which owners got less than they asked for.
    pub(crate) fn run(self) -> Vec<usize> {
        self.0.run()
    }
}

/// Copies to the guest, collected and then run at once.
pub(crate) struct CopyOut<'a>(Copies<'a>);

impl<'a> CopyOut<'a> {
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self(Copies::new(memory))
    }

    /// Writes `from` to the guest's memory, on behalf of chain `owner`.
    pub(crate) fn add(&mut self, owner: usize, to: GuestAddress, mut from: &'a [u8]) {
        let Self(copies) = self;
        let mut at = Some(to);
        while !from.is_empty() {
            let Some(place) = at.and_then(|at| Place::of(copies.memory, at)) else {
                return copies.note(owner, false);
            };
            let (piece, rest) = from.split_at(place.left.min(from.len()));
            at = following(at, piece.len());
            from = rest;
            let added = copies.batch.to_guest(place.domain, place.grant, place.offset, piece);
            copies.note(owner, added.is_ok());
        }
    }

    /// Which owners could not deliver everything.
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

    use vm_memory::{FileOffset, MmapRange, MmapRegion};

    use super::*;

    const GUEST: u32 = 7;

    /// Grants 0 to 15 of a guest, of which nothing is mapped. The file is no gntdev: every copy fails as a whole.
    fn memory() -> Memory {
        let file = FileOffset::new(File::open("/dev/null").unwrap(), 0);
        let flags = MmapXenFlags::GRANT | MmapXenFlags::NO_ADVANCE_MAP;
        let range = MmapRange::new(16 * PAGE_SIZE, Some(file), GuestAddress(GRANT), flags.bits(), GUEST);
        let region = MmapRegion::from_range(range).unwrap();
        let region = GuestRegionMmap::new(region, GuestAddress(GRANT)).unwrap();
        Memory::new(GuestMemoryMmap::from_regions(vec![region]).unwrap()).unwrap()
    }

    #[test]
    fn an_address_is_a_grant_and_an_offset() {
        let memory = memory();
        let place = Place::of(&memory, GuestAddress(GRANT | 0x3ff8)).unwrap();
        assert_eq!((place.domain, place.grant), (DomId::new(7), GrantRef::new(3)));
        assert_eq!((place.offset, place.left), (0xff8, 8));
        assert!(Place::of(&memory, GuestAddress(0x3ff8)).is_none(), "an address that is no grant");
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
    fn who_gets_nothing_is_told_once() {
        let memory = memory();
        let (mut first, mut second) = ([0; 2 * PAGE_SIZE], [0; 8]);
        let mut copy = CopyIn::new(&memory);
        copy.add(1, GuestAddress(GRANT | 0xf010), &mut first);
        copy.add(4, GuestAddress(GRANT), &mut second);
        assert_eq!(copy.run(), [1, 4]);
    }

    #[test]
    fn rings_are_not_where_nothing_is_mapped() {
        assert!(!memory().is_mapped(GuestAddress(GRANT), 16));
    }
}
