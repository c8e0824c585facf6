// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The addresses of the bus that a guest may reach: turns an address that a guest requested to an
//! [`Address`].

use std::ops::RangeInclusive;
use std::str::FromStr;

use super::bus::Address;
use super::spec::RequestedAddress;

/// The addresses that `--allow` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowList {
    /// Ranges of [`Address::number`]; one of all numbers for `any`.
    ranges: Vec<RangeInclusive<u16>>,
}

impl AllowList {
    /// Returns the address, if the guest may reach it.
    pub(crate) fn authorise(&self, requested: RequestedAddress) -> Option<Address> {
        let address = match requested {
            RequestedAddress::SevenBit(value) => Address::SevenBit(value),
            RequestedAddress::TenBit(value) => Address::TenBit(value),
        };
        self.ranges.iter().any(|range| range.contains(&address.number())).then_some(address)
    }
}

/// Why an `--allow` list is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidList {
    /// Not hexadecimal.
    #[error("{0:?} is not an address: write it in hexadecimal, as 0x48")]
    Number(String),
    /// Not an I2C address.
    #[error("{0:#x} is not an address: 0x00 to 0x7f are, and 0xa000 to 0xa3ff for those of 10 bits")]
    Range(u16),
    /// The end is before the start.
    #[error("the range {0:?} is empty: write the lower address first")]
    Empty(String),
}

impl FromStr for AllowList {
    type Err = InvalidList;

    /// Parses `0x48,0x50-0x57`, or `any`.
    fn from_str(text: &str) -> Result<Self, InvalidList> {
        let ranges = match text {
            "any" => vec![0..=u16::MAX],
            list => list.split(',').map(|item| range(item.trim())).collect::<Result<_, _>>()?,
        };
        Ok(Self { ranges })
    }
}

fn range(item: &str) -> Result<RangeInclusive<u16>, InvalidList> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let range = address(first)?..=address(last)?;
    if range.is_empty() {
        return Err(InvalidList::Empty(item.to_owned()));
    }
    if *range.start() <= 0x7f && *range.end() > 0x7f {
        return Err(InvalidList::Range(*range.end()));
    }
    Ok(range)
}

fn address(text: &str) -> Result<u16, InvalidList> {
    let digits = text.trim().strip_prefix("0x");
    let value = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
    let value = value.ok_or_else(|| InvalidList::Number(text.to_owned()))?;
    Address::from_number(value).map(Address::number).ok_or(InvalidList::Range(value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_list_allows_the_addresses_in_it_and_no_others() {
        let list: AllowList = "0x48, 0x50-0x57,0xa150".parse().unwrap();
        let seven = |value| list.authorise(RequestedAddress::SevenBit(value));
        assert_eq!(seven(0x48), Some(Address::SevenBit(0x48)));
        assert_eq!(seven(0x57), Some(Address::SevenBit(0x57)));
        assert_eq!(seven(0x49), None);
        assert_eq!(seven(0x58), None);
        let ten = |value| list.authorise(RequestedAddress::TenBit(value));
        assert_eq!(ten(0x150), Some(Address::TenBit(0x150)));
        assert_eq!(ten(0x48), None, "a 10-bit address is not the 7-bit address of the same number");
    }

    #[test]
    fn any_allows_all_addresses() {
        let list: AllowList = "any".parse().unwrap();
        assert!(list.authorise(RequestedAddress::SevenBit(0)).is_some());
        assert!(list.authorise(RequestedAddress::TenBit(0x3ff)).is_some());
    }

    #[test]
    fn an_invalid_list_is_an_error_that_names_the_item() {
        let error = |text: &str| text.parse::<AllowList>().unwrap_err();
        assert_eq!(error("48"), InvalidList::Number("48".into()));
        assert_eq!(error(""), InvalidList::Number(String::new()));
        assert_eq!(error("0x80"), InvalidList::Range(0x80));
        assert_eq!(error("0x57-0x50"), InvalidList::Empty("0x57-0x50".into()));
        assert_eq!(error("0x50-0xa050"), InvalidList::Range(0xa050));
    }
}
