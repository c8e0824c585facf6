// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory table of a backend. Of granted memory the pages of the rings are mapped in advance, all others
//! on demand. A guest's whole RAM is mapped in advance, since foreign memory has no mapping on demand.
//!
//! A ring is used all the time: its pages are mapped when the backend receives the table, and unmapped when
//! the next table replaces it. Any other page is a buffer of a request, which the backend maps or copies for
//! that request.
//!
//! When a driver resets one queue (virtio 1.3, 2.6.1), the next table has only the other rings. A page that
//! the queue shares with one of them stays mapped.

use thiserror::Error;

use crate::memory::address::{
    AddressError, GRANT_SPACE, GRANT_SPACE_END, GuestAddress, GuestMemory, GuestRange, PAGE,
};

/// The most regions that backends of the vhost crate accept in one message, each with a file descriptor.
pub const MAX_REGIONS: usize = 32;

/// When a region is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// When the backend receives the table.
    InAdvance,
    /// Page by page, while a request needs it.
    OnDemand,
}

/// A part of the grant space or of the guest's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Address of the first byte.
    pub start: u64,
    /// One past the address of the last byte.
    pub end: u64,
    /// When it is mapped.
    pub mapped: Mapped,
}

/// The rings are too scattered for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the rings need {0} memory regions, and a message carries {MAX_REGIONS}")]
pub struct TooManyRegions(usize);

/// One split virtqueue whose addresses are checked (virtio 1.3, 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// The queue's number.
    pub index: u16,
    /// Entries: a power of two.
    pub size: u16,
    /// The descriptor table.
    pub descriptors: GuestRange,
    /// The available ring, which the driver writes.
    pub available: GuestRange,
    /// The used ring, which the device writes.
    pub used: GuestRange,
}

impl Ring {
    /// Checks the addresses of a ring of `size` entries (a power of two) in `memory`. The lengths are those
    /// of the table in virtio 1.3, 2.7, with the two bytes for VIRTIO_F_EVENT_IDX.
    pub fn new(
        index: u16,
        size: u16,
        descriptors: GuestAddress,
        available: GuestAddress,
        used: GuestAddress,
        memory: &GuestMemory,
    ) -> Result<Self, AddressError> {
        let entries = u64::from(size);
        Ok(Self {
            index,
            size,
            descriptors: descriptors.range(16 * entries, 16, memory)?,
            available: available.range(6 + 2 * entries, 2, memory)?,
            used: used.range(6 + 8 * entries, 4, memory)?,
        })
    }

    /// Its three parts.
    #[must_use]
    pub fn parts(&self) -> [GuestRange; 3] {
        [self.descriptors, self.available, self.used]
    }
}

/// The table while `rings` are in use.
pub fn with_rings(memory: &GuestMemory, rings: &[Ring]) -> Result<Vec<Region>, TooManyRegions> {
    let table = match memory {
        GuestMemory::Granted => of_grants(rings),
        GuestMemory::All(banks) => {
            let region = |start, end| Region { start, end, mapped: Mapped::InAdvance };
            banks.iter().map(|bank| region(bank.base, bank.base.saturating_add(bank.size))).collect()
        }
    };
    if table.len() > MAX_REGIONS { Err(TooManyRegions(table.len())) } else { Ok(table) }
}

/// The grant space, with the pages of the rings mapped in advance.
fn of_grants(rings: &[Ring]) -> Vec<Region> {
    let mut table = Vec::new();
    let mut gap_start = GRANT_SPACE;
    let gap = |start, end| (start < end).then_some(Region { start, end, mapped: Mapped::OnDemand });
    for (start, end) in merged(rings) {
        table.extend(gap(gap_start, start));
        table.push(Region { start, end, mapped: Mapped::InAdvance });
        gap_start = end;
    }
    table.extend(gap(gap_start, GRANT_SPACE_END));
    table
}

/// The table while no ring is in use. A message has at least one region: the grant space without a mapping,
/// or the first page of the guest's RAM.
#[must_use]
pub fn without_rings(memory: &GuestMemory) -> Vec<Region> {
    match memory {
        GuestMemory::Granted => of_grants(&[]),
        GuestMemory::All(banks) => {
            let page = |start: u64| Region { start, end: start + PAGE, mapped: Mapped::InAdvance };
            banks.first().map(|bank| page(bank.base)).into_iter().collect()
        }
    }
}

/// The pages of all rings in ascending order, ranges that touch or overlap joined.
fn merged(rings: &[Ring]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<_> = rings.iter().flat_map(Ring::parts).map(GuestRange::pages).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use shim_config::MemoryBank;

    use super::*;
    use crate::memory::address::MAX_GRANTS;

    const GRANTED: GuestMemory = GuestMemory::Granted;

    fn ring(index: u16, page: u64) -> Ring {
        let at = |offset: u64| GuestAddress::from(GRANT_SPACE + page * PAGE + offset);
        // As Linux lays out 64 entries: the used ring on a page of its own.
        Ring::new(index, 64, at(0), at(0x400), at(PAGE), &GRANTED).expect("a valid ring")
    }

    fn check_covers_everything(table: &[Region]) {
        assert_eq!(table.first().map(|region| region.start), Some(GRANT_SPACE));
        assert_eq!(table.last().map(|region| region.end), Some(GRANT_SPACE_END));
        assert!(table.windows(2).all(|pair| pair[0].end == pair[1].start), "{table:?}");
        assert!(table.iter().all(|region| region.start < region.end), "{table:?}");
    }

    fn advance(table: &[Region]) -> Vec<(u64, u64)> {
        let mapped = table.iter().filter(|region| region.mapped == Mapped::InAdvance);
        mapped
            .map(|region| ((region.start - GRANT_SPACE) / PAGE, (region.end - GRANT_SPACE) / PAGE))
            .collect()
    }

    #[test]
    fn only_rings_are_mapped_in_advance() {
        let table = with_rings(&GRANTED, &[ring(1, 100), ring(0, 8)]).expect("few regions");
        check_covers_everything(&table);
        assert_eq!(advance(&table), [(8, 10), (100, 102)]);
        assert_eq!(table.len(), 5);
    }

    #[test]
    fn neighbours_are_joined_and_the_ends_need_no_gap() {
        let last = (GRANT_SPACE_END - GRANT_SPACE) / PAGE - 2;
        let rings = [ring(0, 0), ring(1, 2), ring(2, 3), ring(3, last)];
        let table = with_rings(&GRANTED, &rings).expect("few regions");
        check_covers_everything(&table);
        assert_eq!(advance(&table), [(0, 5), (last, last + 2)]);
    }

    #[test]
    fn scattered_rings_are_refused_before_the_message_is_too_long() {
        let rings: Vec<_> = (0..16).map(|n| ring(n, 10 * u64::from(n) + 1)).collect();
        assert_eq!(with_rings(&GRANTED, &rings[..15]).map(|table| table.len()), Ok(31));
        assert_eq!(with_rings(&GRANTED, &rings), Err(TooManyRegions(33)));
    }

    #[test]
    fn without_rings_nothing_is_mapped() {
        let table = without_rings(&GRANTED);
        check_covers_everything(&table);
        assert_eq!(advance(&table), []);
        assert_eq!(with_rings(&GRANTED, &[]), Ok(table));
    }

    #[test]
    fn all_ram_is_mapped_in_advance_while_a_ring_is_in_use() {
        let bank = |base, size| MemoryBank { base, size };
        let memory = GuestMemory::from(vec![bank(0x4000_0000, 0x400_0000), bank(1 << 33, 0x1000)]);
        let in_advance = |start, end| Region { start, end, mapped: Mapped::InAdvance };
        let at = |offset: u64| GuestAddress::from(0x4000_0000 + offset);
        let ring = Ring::new(0, 2, at(0), at(0x20), at(0x1000), &memory).expect("in RAM");
        assert_eq!(
            with_rings(&memory, &[ring]),
            Ok(vec![in_advance(0x4000_0000, 0x4400_0000), in_advance(1 << 33, (1 << 33) + 0x1000)])
        );
        assert_eq!(without_rings(&memory), [in_advance(0x4000_0000, 0x4000_1000)]);
    }

    /// A ring anywhere in the first and the last pages of the grant space, where they meet others and the
    /// ends.
    fn rings() -> impl Strategy<Value = Ring> {
        let part = (0..2_u64, 0..40_u64, 0..PAGE / 16).prop_map(|(end, page, offset)| {
            let page = if end == 0 { page } else { MAX_GRANTS - 1 - page };
            GuestAddress::from(GRANT_SPACE + page * PAGE + 16 * offset)
        });
        let ring = (0..9_u32, part.clone(), part.clone(), part);
        ring.prop_filter_map("beyond the end", |(shift, descriptors, available, used)| {
            Ring::new(0, 1 << shift, descriptors, available, used, &GRANTED).ok()
        })
    }

    proptest! {
        /// Against a set of pages.
        #[test]
        fn a_table_maps_the_pages_of_the_rings_and_no_other(rings in prop::collection::vec(rings(), 0..8)) {
            let page = |address: u64| (address - GRANT_SPACE) / PAGE;
            let pages_of = |(start, end)| page(start)..page(end);
            let expected: BTreeSet<_> =
                rings.iter().flat_map(Ring::parts).flat_map(|part| pages_of(part.pages())).collect();
            match with_rings(&GRANTED, &rings) {
                Ok(table) => {
                    check_covers_everything(&table);
                    prop_assert!(table.len() <= MAX_REGIONS);
                    let mapped = advance(&table).into_iter().flat_map(|(first, end)| first..end);
                    prop_assert!(mapped.eq(expected));
                }
                Err(TooManyRegions(count)) => prop_assert!(count > MAX_REGIONS),
            }
        }

        /// No sum wraps, whatever the driver has written.
        #[test]
        fn a_ring_lies_within_the_grant_space_or_is_none(
            shift in 0..16_u32,
            parts: [u64; 3],
            grants: [bool; 3],
        ) {
            let mut addresses = [GuestAddress::default(); 3];
            for ((address, part), is_grant) in addresses.iter_mut().zip(parts).zip(grants) {
                let grant = GRANT_SPACE + part % (MAX_GRANTS * PAGE + 64);
                *address = GuestAddress::from(if is_grant { grant & !15 } else { part });
            }
            let [descriptors, available, used] = addresses;
            let size = u16::try_from(1_u32 << shift).expect("16 bits");
            if let Ok(ring) = Ring::new(0, size, descriptors, available, used, &GRANTED) {
                let lengths = [16, 2, 8].map(|entry| u128::from(size) * entry).into_iter().zip([0, 6, 6]);
                for (part, (entries, rest)) in ring.parts().into_iter().zip(lengths) {
                    let end = u128::from(part.start()) + entries + rest;
                    prop_assert!(part.start() >= GRANT_SPACE && end <= u128::from(GRANT_SPACE_END));
                    prop_assert!(end <= u128::from(part.pages().1));
                }
            }
        }
    }
}
