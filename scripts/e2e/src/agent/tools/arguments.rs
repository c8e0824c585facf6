// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The arguments of a tool.

use std::error::Error;
use std::str::FromStr;

/// Why a tool failed.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The words after a tool's name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arguments<'a>(pub(super) &'a [&'a str]);

impl<'a> Arguments<'a> {
    /// Returns the argument at `index`.
    pub(super) fn text(self, index: usize) -> Result<&'a str, Failure> {
        self.0.get(index).copied().ok_or_else(|| "an argument is missing".into())
    }

    /// Returns the number that is the argument at `index`.
    pub(super) fn number<T: FromStr + TryFrom<u64>>(self, index: usize) -> Result<T, Failure> {
        number(self.text(index)?)
    }

    /// Returns the arguments from `index` on.
    pub(super) fn rest(self, index: usize) -> &'a [&'a str] {
        self.0.get(index..).unwrap_or_default()
    }

    /// Returns the numbers that are the arguments from `index` on.
    pub(super) fn numbers<T: FromStr + TryFrom<u64>>(self, index: usize) -> Result<Vec<T>, Failure> {
        self.rest(index).iter().map(|text| number(text)).collect()
    }
}

/// Parses a decimal number, or a hexadecimal number with the prefix `0x`.
pub(super) fn number<T: FromStr + TryFrom<u64>>(text: &str) -> Result<T, Failure> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16)?,
        None => text.parse()?,
    };
    T::try_from(value).map_err(|_| format!("{text} is too large").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(number::<u16>("0x50").ok(), Some(0x50));
        assert_eq!(number::<u16>("80").ok(), Some(80));
        assert!(number::<u8>("256").is_err());
        assert!(number::<u8>("-1").is_err());
    }
}
