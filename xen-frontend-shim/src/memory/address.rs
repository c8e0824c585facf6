// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An address that the guest has written, and the range of its memory that a check makes of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use shim_config::MemoryBank;
use thiserror::Error;

/// Bytes of a page that a grant or a foreign mapping covers (Xen on Arm: always 4 KiB).
pub const PAGE: u64 = 4096;

/// The first address that stands for a grant (Linux: `XEN_GRANT_DMA_ADDR_OFF`).
pub const GRANT_SPACE: u64 = 1 << 63;

/// How many grants an address can name: 64 frames of 512 entries, Xen's default limit for a domain's grant
/// table. A backend is told of a memory region of this size, and may spend memory on it in proportion.
pub const MAX_GRANTS: u64 = 64 * 512;

/// One past the last address that stands for a grant.
pub const GRANT_SPACE_END: u64 = GRANT_SPACE + MAX_GRANTS * PAGE;

/// A grant reference: the guest's handle for a page that it shares. Xen checks it whenever it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantReference(pub u32);

/// The memory of a guest that its backends reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GuestMemory {
    /// The pages that the guest grants. Addresses name grant references.
    #[default]
    Granted,
    /// All of its RAM, which consists of these banks, page-aligned and in ascending order. Addresses are
    /// guest physical.
    All(Vec<MemoryBank>),
}

impl From<Vec<MemoryBank>> for GuestMemory {
    /// The memory that the configuration describes: without banks, what the guest grants.
    fn from(banks: Vec<MemoryBank>) -> Self {
        if banks.is_empty() { Self::Granted } else { Self::All(banks) }
    }
}

impl GuestMemory {
    /// Whether the range from `start` to `end`, which is not empty, lies in memory that backends may reach.
    fn contains(&self, start: u64, end: u64) -> bool {
        match self {
            Self::Granted => start >= GRANT_SPACE && end <= GRANT_SPACE_END,
            Self::All(banks) => banks.iter().any(|bank| {
                start >= bank.base && bank.base.checked_add(bank.size).is_some_and(|limit| end <= limit)
            }),
        }
    }
}

/// A page of a guest, as Xen maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    /// A page that the guest has granted.
    Granted(GrantReference),
    /// The page with this guest frame number.
    Frame(u64),
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The address does not stand for a grant.
    #[error(
        "address {0} is not a grant: the driver must use the platform's DMA address \
         (VIRTIO_F_ACCESS_PLATFORM)"
    )]
    NotAGrant(GuestAddress),
    /// The range does not lie in one bank of the guest's RAM.
    #[error("{1} bytes from address {0} are not in one bank of the guest's RAM")]
    NotRam(GuestAddress, u64),
    /// The address is not aligned as virtio 1.3, 2.7 requires.
    #[error("address {0} is not a multiple of {1}")]
    Misaligned(GuestAddress, u64),
}

/// An address as the guest has written it to registers: untrusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestAddress(u64);

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl From<u64> for GuestAddress {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl GuestAddress {
    /// The address with its lower half replaced.
    #[must_use]
    pub fn with_low(self, half: u32) -> Self {
        Self(self.0 & !u64::from(u32::MAX) | u64::from(half))
    }

    /// The address with its upper half replaced.
    #[must_use]
    pub fn with_high(self, half: u32) -> Self {
        Self(self.0 & u64::from(u32::MAX) | u64::from(half) << 32)
    }

    /// The `length` bytes of `memory` from this address, which has to be a multiple of `alignment`.
    pub fn range(
        self,
        length: u64,
        alignment: u64,
        memory: &GuestMemory,
    ) -> Result<GuestRange, AddressError> {
        if !self.0.is_multiple_of(alignment) {
            return Err(AddressError::Misaligned(self, alignment));
        }
        let end = self.0.checked_add(length).filter(|&end| end > self.0 && memory.contains(self.0, end));
        end.map(|end| GuestRange { start: self.0, end }).ok_or(match memory {
            GuestMemory::Granted => AddressError::NotAGrant(self),
            GuestMemory::All(_) => AddressError::NotRam(self, length),
        })
    }
}

/// A range of the grant space or of the guest's RAM. Whether the guest has granted it, or has a page there,
/// shows only when it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRange {
    start: u64,
    end: u64,
}

impl GuestRange {
    /// The address of the first byte.
    #[must_use]
    pub fn start(self) -> u64 {
        self.start
    }

    /// The page-aligned addresses around the range: of its first page, and past its last.
    #[must_use]
    pub fn pages(self) -> (u64, u64) {
        (self.start - self.start % PAGE, self.end.next_multiple_of(PAGE))
    }

    /// The first page. The others follow it.
    #[must_use]
    pub fn first(self) -> Page {
        match self.start.checked_sub(GRANT_SPACE) {
            // Below MAX_GRANTS by construction, which is far less than 32 bits.
            Some(offset) => Page::Granted(GrantReference(u32::try_from(offset / PAGE).unwrap_or(u32::MAX))),
            None => Page::Frame(self.start / PAGE),
        }
    }

    /// The first `length` bytes of the range, or all of it if it is shorter.
    #[must_use]
    pub fn prefix(self, length: u64) -> Self {
        Self { start: self.start, end: self.start.saturating_add(length).min(self.end) }
    }

    /// How many pages the range touches.
    #[must_use]
    pub fn page_count(self) -> u32 {
        let (start, end) = self.pages();
        u32::try_from((end - start) / PAGE).unwrap_or(u32::MAX)
    }

    /// Where the range begins in its first page.
    #[must_use]
    pub fn offset_in_page(self) -> usize {
        usize::try_from(self.start % PAGE).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const GRANTED: GuestMemory = GuestMemory::Granted;

    fn granted(reference: u32) -> Page {
        Page::Granted(GrantReference(reference))
    }

    /// 64 KiB at 1 GiB, and the last page below the grant space.
    fn banks() -> GuestMemory {
        let bank = |base, size| MemoryBank { base, size };
        GuestMemory::from(vec![bank(1 << 30, 0x1_0000), bank(GRANT_SPACE - PAGE, PAGE)])
    }

    #[test]
    fn an_address_in_ram_is_a_frame() {
        let range = GuestAddress((1 << 30) + 0x1ff0).range(0x20, 16, &banks()).expect("in RAM");
        assert_eq!((range.first(), range.page_count()), (Page::Frame((1 << 18) + 1), 2));
        assert_eq!(range.prefix(4).page_count(), 1);
        assert_eq!(range.prefix(0x1000), range);
    }

    #[test]
    fn an_address_that_is_not_in_one_bank_is_refused() {
        let memory = banks();
        for (address, length) in [
            (0, 16),
            ((1 << 30) - 2, 4),
            ((1 << 30) + 0x1_0000, 2),
            // Up to the end of a bank, and two bytes more.
            ((1 << 30) + 0xfffe, 4),
            (1 << 30, 0),
            (GRANT_SPACE - 2, 4),
            (GRANT_SPACE, 2),
            (u64::MAX - 1, 2),
            (1 << 30, u64::MAX),
        ] {
            let address = GuestAddress(address);
            assert_eq!(address.range(length, 2, &memory), Err(AddressError::NotRam(address, length)));
        }
        assert!(GuestAddress((1 << 30) + 0xfffe).range(2, 2, &memory).is_ok());
        assert!(GuestAddress(GRANT_SPACE - 2).range(2, 2, &memory).is_ok());
    }

    #[test]
    fn halves_may_be_set_in_any_order() {
        let address = GuestAddress::default().with_low(0x5000).with_high(0x8000_0000);
        assert_eq!(address, GuestAddress::default().with_high(0x8000_0000).with_low(0x5000));
        assert_eq!(address.range(16, 16, &GRANTED).expect("a grant").first(), granted(5));
    }

    #[test]
    fn a_range_covers_every_page_that_it_touches() {
        let range = GuestAddress(GRANT_SPACE + 7 * PAGE + 0xff0).range(0x20, 16, &GRANTED).expect("a grant");
        assert_eq!((range.first(), range.page_count(), range.offset_in_page()), (granted(7), 2, 0xff0));
        assert_eq!(range.pages(), (GRANT_SPACE + 7 * PAGE, GRANT_SPACE + 9 * PAGE));
    }

    #[test]
    fn an_address_that_is_not_a_grant_is_refused() {
        let not_a_grant = |address: u64, length| {
            let address = GuestAddress(address);
            assert_eq!(address.range(length, 2, &GRANTED), Err(AddressError::NotAGrant(address)));
        };
        not_a_grant(0, 16);
        not_a_grant(GRANT_SPACE - 2, 16);
        not_a_grant(GRANT_SPACE_END, 16);
        not_a_grant(GRANT_SPACE_END - 2, 3);
        not_a_grant(u64::MAX - 1, 1);
        not_a_grant(u64::MAX - 1, u64::MAX);
        not_a_grant(GRANT_SPACE, 0);
        let odd = GuestAddress(GRANT_SPACE + 8);
        assert_eq!(odd.range(16, 16, &GRANTED), Err(AddressError::Misaligned(odd, 16)));
    }

    /// Addresses and lengths near the boundaries, and any others.
    fn numbers() -> impl Strategy<Value = u64> {
        let edges = [0, PAGE, GRANT_SPACE, GRANT_SPACE_END, GRANT_SPACE_END - GRANT_SPACE, 1 << 32, u64::MAX];
        prop_oneof![
            4 => (select(edges.to_vec()), 0..64_u64, any::<bool>()).prop_map(|(edge, distance, is_below)| {
                if is_below { edge.wrapping_sub(distance) } else { edge.wrapping_add(distance) }
            }),
            4 => GRANT_SPACE..GRANT_SPACE_END,
            2 => 0..4 * PAGE,
            1 => any::<u64>(),
        ]
    }

    proptest! {
        /// Against a model with numbers that cannot wrap.
        #[test]
        fn grants_equal_those_of_the_model(address in numbers(), length in numbers(), shift in 0..5_u32) {
            let (alignment, wide) = (1 << shift, u128::from(address));
            let (start, end) = (wide - u128::from(GRANT_SPACE).min(wide), wide + u128::from(length));
            let space = u128::from(GRANT_SPACE);
            let is_inside = wide >= space && end <= u128::from(GRANT_SPACE_END) && length > 0;
            match GuestAddress(address).range(length, alignment, &GRANTED) {
                Err(AddressError::Misaligned(..)) => prop_assert_ne!(wide % u128::from(alignment), 0),
                Err(AddressError::NotRam(..)) => prop_assert!(false, "no banks"),
                Err(AddressError::NotAGrant(_)) => {
                    prop_assert!(!is_inside);
                    prop_assert_eq!(wide % u128::from(alignment), 0);
                }
                Ok(range) => {
                    prop_assert!(is_inside);
                    let page = u128::from(PAGE);
                    let (first, last) = (start / page, (end - space - 1) / page);
                    let reference = u32::try_from(first).expect("a grant");
                    prop_assert_eq!(range.first(), granted(reference));
                    prop_assert_eq!(u128::from(range.page_count()), last - first + 1);
                    prop_assert_eq!(range.offset_in_page() as u128, start % page);
                    prop_assert!(last < u128::from(MAX_GRANTS));
                    let pages = (space + first * page, space + (last + 1) * page);
                    prop_assert_eq!((u128::from(range.pages().0), u128::from(range.pages().1)), pages);
                    prop_assert_eq!(range.start(), address);
                }
            }
        }

        #[test]
        fn a_half_is_set_without_changing_the_other(address: u64, low: u32, high: u32) {
            let (old_low, old_high) = (address & 0xffff_ffff, address >> 32);
            let address = GuestAddress(address);
            prop_assert_eq!(address.with_low(low).0, old_high << 32 | u64::from(low));
            prop_assert_eq!(address.with_high(high).0, u64::from(high) << 32 | old_low);
        }
    }
}
