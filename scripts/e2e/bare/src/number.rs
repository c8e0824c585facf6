// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbers in commands.

use alloc::format;

use anyhow::{Context, Result};

/// Parses a decimal number, or a hexadecimal one after `0x`.
///
/// # Errors
/// Returns an error if the text is not a number or the number does not fit.
pub fn number<T: TryFrom<u64>>(text: &str) -> Result<T> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16)?,
        None => text.parse()?,
    };
    T::try_from(value).ok().with_context(|| format!("{text} is too large"))
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
