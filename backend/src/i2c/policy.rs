// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which addresses of the bus a guest may reach. The only way from an address that a guest asked for to an
//! [`Address`] that a bus takes.

use std::ops::RangeInclusive;
use std::str::FromStr;

use super::bus::Address;
use super::spec::RequestedAddress;

/// The addresses that `--allow` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowList {
    /// Of [`Address::number`]. All there are, for `any`.
    ranges: Vec<RangeInclusive<u16>>,
}

impl AllowList {
    /// Gives the address to those who may have it.
    pub(crate) fn authorise(&self, requested: RequestedAddress) -> Option<Address> {
        let address = match requested {
            RequestedAddress::SevenBit(value) => Address::SevenBit(value),
            RequestedAddress::TenBit(value) => Address::TenBit(value),
        };
        self.ranges.iter().any(|range| range.contains(&address.number())).then_some(address)
    }
}

/// What is wrong with an `--allow` list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// Not hexadecimal.
    #[error("{0:?} is not an address: write it in hexadecimal, as 0x48")]
    Number(String),
    /// Not on an I2C bus.
    #[error("{0:#x} is not an address: 0x00 to 0x7f are, and 0xa000 to 0xa3ff for those of 10 bits")]
    Range(u16),
    /// Its end is before its begin.
    #[error("the range {0:?} is empty: write the lower address first")]
    Empty(String),
}

impl FromStr for AllowList {
    type Err = BadList;

    /// `0x48,0x50-0x57`, or `any`.
    fn from_str(text: &str) -> Result<Self, BadList> {
        let ranges = match text {
            "any" => vec![0..=u16::MAX],
            list => list.split(',').map(|item| range(item.trim())).collect::<Result<_, _>>()?,
        };
        Ok(Self { ranges })
    }
}

fn range(item: &str) -> Result<RangeInclusive<u16>, BadList> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let range = address(first)?..=address(last)?;
    if range.is_empty() {
        return Err(BadList::Empty(item.to_owned()));
    }
    if *range.start() <= 0x7f && *range.end() > 0x7f {
        return Err(BadList::Range(*range.end()));
    }
    Ok(range)
}

fn address(text: &str) -> Result<u16, BadList> {
    let digits = text.trim().strip_prefix("0x");
    let value = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
    let value = value.ok_or_else(|| BadList::Number(text.to_owned()))?;
    Address::from_number(value).map(Address::number).ok_or(BadList::Range(value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_list_allows_what_it_names_and_nothing_else() {
        let list: AllowList = "0x48, 0x50-0x57,0xa150".parse().unwrap();
        let seven = |value| list.authorise(RequestedAddress::SevenBit(value));
        assert_eq!(seven(0x48), Some(Address::SevenBit(0x48)));
        assert_eq!(seven(0x57), Some(Address::SevenBit(0x57)));
        assert_eq!(seven(0x49), None);
        assert_eq!(seven(0x58), None);
        let ten = |value| list.authorise(RequestedAddress::TenBit(value));
        assert_eq!(ten(0x150), Some(Address::TenBit(0x150)));
        assert_eq!(ten(0x48), None, "0x48 of 10 bits is another target than 0x48 of 7");
    }

    #[test]
    fn any_is_any() {
        let list: AllowList = "any".parse().unwrap();
        assert!(list.authorise(RequestedAddress::SevenBit(0)).is_some());
        assert!(list.authorise(RequestedAddress::TenBit(0x3ff)).is_some());
    }

    #[test]
    fn a_wrong_list_is_refused_in_words() {
        let refused = |text: &str| text.parse::<AllowList>().unwrap_err();
        assert_eq!(refused("48"), BadList::Number("48".into()));
        assert_eq!(refused(""), BadList::Number(String::new()));
        assert_eq!(refused("0x80"), BadList::Range(0x80));
        assert_eq!(refused("0x57-0x50"), BadList::Empty("0x57-0x50".into()));
        assert_eq!(refused("0x50-0xa050"), BadList::Range(0xa050));
    }
}
