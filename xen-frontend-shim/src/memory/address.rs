// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An address that the guest has written, and the range of grant references that a check makes of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of a page that a grant covers (Xen on Arm: always 4 KiB).
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

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The address does not stand for a grant.
    #[error(
        "address {0} is not a grant: the driver must use the platform's DMA address \
         (VIRTIO_F_ACCESS_PLATFORM)"
    )]
    NotAGrant(GuestAddress),
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

    /// The grants of `length` bytes from this address, which has to be a multiple of `alignment`.
    pub fn grants(self, length: u64, alignment: u64) -> Result<GrantRange, AddressError> {
        if !self.0.is_multiple_of(alignment) {
            return Err(AddressError::Misaligned(self, alignment));
        }
        let end = self.0.checked_add(length).filter(|&end| end <= GRANT_SPACE_END);
        match end {
            Some(end) if self.0 >= GRANT_SPACE && length > 0 => Ok(GrantRange { start: self.0, end }),
            _ => Err(AddressError::NotAGrant(self)),
        }
    }
}

/// A range of the grant space. Whether the guest has granted it shows only when it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantRange {
    start: u64,
    end: u64,
}

impl GrantRange {
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

    /// The reference of the first page.
    #[must_use]
    pub fn first(self) -> GrantReference {
        // Below MAX_GRANTS by construction, which is far less than 32 bits.
        GrantReference(u32::try_from((self.start - GRANT_SPACE) / PAGE).unwrap_or(u32::MAX))
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

    #[test]
    fn halves_may_be_set_in_any_order() {
        let address = GuestAddress::default().with_low(0x5000).with_high(0x8000_0000);
        assert_eq!(address, GuestAddress::default().with_high(0x8000_0000).with_low(0x5000));
        assert_eq!(address.grants(16, 16).expect("a grant").first(), GrantReference(5));
    }

    #[test]
    fn a_range_covers_every_page_that_it_touches() {
        let range = GuestAddress(GRANT_SPACE + 7 * PAGE + 0xff0).grants(0x20, 16).expect("a grant");
        assert_eq!(
            (range.first(), range.page_count(), range.offset_in_page()),
            (GrantReference(7), 2, 0xff0)
        );
        assert_eq!(range.pages(), (GRANT_SPACE + 7 * PAGE, GRANT_SPACE + 9 * PAGE));
    }

    #[test]
    fn an_address_that_is_not_a_grant_is_refused() {
        let not_a_grant = |address: u64, length| {
            let address = GuestAddress(address);
            assert_eq!(address.grants(length, 2), Err(AddressError::NotAGrant(address)));
        };
        not_a_grant(0, 16);
        not_a_grant(GRANT_SPACE - 2, 16);
        not_a_grant(GRANT_SPACE_END, 16);
        not_a_grant(GRANT_SPACE_END - 2, 3);
        not_a_grant(u64::MAX - 1, 1);
        not_a_grant(u64::MAX - 1, u64::MAX);
        not_a_grant(GRANT_SPACE, 0);
        let odd = GuestAddress(GRANT_SPACE + 8);
        assert_eq!(odd.grants(16, 16), Err(AddressError::Misaligned(odd, 16)));
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
            match GuestAddress(address).grants(length, alignment) {
                Err(AddressError::Misaligned(..)) => prop_assert_ne!(wide % u128::from(alignment), 0),
                Err(AddressError::NotAGrant(_)) => {
                    prop_assert!(!is_inside);
                    prop_assert_eq!(wide % u128::from(alignment), 0);
                }
                Ok(range) => {
                    prop_assert!(is_inside);
                    let page = u128::from(PAGE);
                    let (first, last) = (start / page, (end - space - 1) / page);
                    prop_assert_eq!(u128::from(range.first().0), first);
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
