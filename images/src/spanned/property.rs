// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Device tree properties in TOML.

use toml_span::de_helpers::expected;
use toml_span::value::{Table, Value, ValueInner};
use toml_span::{DeserError, Deserialize, Span};

use super::custom;

/// The value of a device tree property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// `true`: a property without a value.
    Flag,
    /// Integers of 32 bits, negative ones as their two's complement.
    Cells(Vec<u32>),
    /// The bytes of integers of another width, in big endian: `{ u8 = [0x12, -1] }`.
    Bytes(Vec<u8>),
    /// Strings.
    Strings(Vec<String>),
}

/// The other widths of integers, in bytes.
const WIDTHS: [(&str, usize); 3] = [("u8", 1), ("u16", 2), ("u64", 8)];

/// The width of a cell, in bytes.
const CELL: usize = 4;

/// The help for an empty list.
const NO_VALUE: &str = "write `true` for a property that has no value, or leave the property out";

impl<'de> Deserialize<'de> for Property {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let items = match value.take() {
            ValueInner::Boolean(true) => return Ok(Self::Flag),
            ValueInner::Table(table) => return wide(table, span).map(Self::Bytes),
            ValueInner::Array(items) => items,
            one @ (ValueInner::Integer(_) | ValueInner::String(_)) => vec![Value::with_span(one, span)],
            other => {
                return Err(expected("true, an integer, a string, or an array of these", other, span).into());
            }
        };
        match items.first() {
            None => Err(custom(span, "an empty list", NO_VALUE).into()),
            Some(first) if first.as_str().is_some() => each(items, text).map(Self::Strings),
            Some(_) => each(items, cell).map(Self::Cells),
        }
    }
}

/// The value of `compatible`: at least one name, the most specific first. A string is a list of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compatible(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Compatible {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let items = match value.take() {
            ValueInner::Array(items) => items,
            one @ ValueInner::String(_) => vec![Value::with_span(one, span)],
            other => return Err(expected("a string, or an array of strings", other, span).into()),
        };
        if items.is_empty() {
            let help = "write a name such as \"national,lm75\", or several, the most specific first";
            return Err(custom(span, "`compatible` without a name", help).into());
        }
        each(items, compatible_name).map(Self)
    }
}

/// A name by which a kernel finds drivers. Linux also passes it to programs, one in a line: it has neither
/// blanks nor control characters.
fn compatible_name(value: &mut Value<'_>) -> Result<String, DeserError> {
    let span = value.span;
    let name = value.take_string(None)?;
    if name.is_empty() || !name.chars().all(|char| char.is_ascii_graphic()) {
        let help = "write a name such as \"national,lm75\": letters, digits and punctuation, without blanks";
        return Err(custom(span, format!("{name:?} cannot be a name in `compatible`"), help).into());
    }
    Ok(name.into())
}

/// A string of a device tree, which a NUL ends.
fn text(value: &mut Value<'_>) -> Result<String, DeserError> {
    let text = value.take_string(None)?;
    if text.contains('\0') {
        let help = "write an array of strings for several, or `{ u8 = […] }` for bytes of any value";
        return Err(custom(value.span, format!("{text:?} has a NUL, which ends a string"), help).into());
    }
    Ok(text.into())
}

fn cell(value: &mut Value<'_>) -> Result<u32, DeserError> {
    let [.., a, b, c, d] = integer(value, CELL)?.to_be_bytes();
    Ok(u32::from_be_bytes([a, b, c, d]))
}

/// Integers of the width that is the only key of `table`.
fn wide(table: Table<'_>, span: Span) -> Result<Vec<u8>, DeserError> {
    let mut entries = table.into_iter();
    let width = |name: &str| WIDTHS.iter().find(|(known, _)| *known == name);
    let (Some((key, mut value)), None) = (entries.next(), entries.next()) else {
        return Err(no_width(span).into());
    };
    let Some((_, bytes)) = width(&key.name) else { return Err(no_width(key.span).into()) };
    let items = match value.take() {
        ValueInner::Array(items) if items.is_empty() => {
            return Err(custom(value.span, "an empty list", NO_VALUE).into());
        }
        ValueInner::Array(items) => items,
        one @ ValueInner::Integer(_) => vec![Value::with_span(one, value.span)],
        other => return Err(expected("an integer, or an array of integers", other, value.span).into()),
    };
    let numbers = each(items, |item| integer(item, *bytes))?;
    Ok(numbers
        .iter()
        .flat_map(|number| number.to_be_bytes().into_iter().skip(size_of::<i64>() - bytes))
        .collect())
}

fn no_width(span: Span) -> toml_span::Error {
    let help =
        "write one of `{ u8 = […] }`, `{ u16 = […] }` and `{ u64 = […] }`; integers of 32 bits need no table";
    custom(span, "not a width of integers", help)
}

/// An integer of `bytes` bytes, signed or unsigned.
fn integer(value: &mut Value<'_>, bytes: usize) -> Result<i64, DeserError> {
    let span = value.span;
    let number = match value.take() {
        ValueInner::Integer(number) => number,
        other => return Err(expected("an integer", other, span).into()),
    };
    let bits = bytes * 8;
    let (least, most) = (-(1_i128 << (bits - 1)), (1_i128 << bits) - 1);
    if (least..=most).contains(&number.into()) {
        return Ok(number);
    }
    let help = format!("write {least} to {most}{}", if bytes == CELL { ", or `{ u64 = […] }`" } else { "" });
    Err(custom(span, format!("{number} does not fit into {bits} bits"), help).into())
}

/// Reads all of `items`, or returns all their errors.
fn each<'de, T>(
    items: Vec<Value<'de>>,
    read: impl Fn(&mut Value<'de>) -> Result<T, DeserError>,
) -> Result<Vec<T>, DeserError> {
    let mut good = Vec::new();
    let mut errors = Vec::new();
    for mut item in items {
        match read(&mut item) {
            Ok(item) => good.push(item),
            Err(mut error) => errors.append(&mut error.errors),
        }
    }
    if errors.is_empty() { Ok(good) } else { Err(DeserError { errors }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(text: &str) -> Result<Property, String> {
        let text = format!("p = {text}");
        let mut value = toml_span::parse(&text).unwrap();
        let ValueInner::Table(table) = value.take() else { unreachable!() };
        let (_, mut value) = table.into_iter().next().unwrap();
        Property::deserialize(&mut value).map_err(|error| error.to_string())
    }

    #[test]
    fn integers_have_the_given_width() {
        let cells = |cells: &[u32]| Ok(Property::Cells(cells.to_vec()));
        let bytes = |bytes: &[u8]| Ok(Property::Bytes(bytes.to_vec()));
        assert_eq!(property("-1"), cells(&[u32::MAX]));
        assert_eq!(property("[0, -2_147_483_648, 0xffff_ffff]"), cells(&[0, 1 << 31, u32::MAX]));
        assert_eq!(property("{ u8 = [0x12, -1, 255, -128] }"), bytes(&[0x12, 0xff, 0xff, 0x80]));
        assert_eq!(property("{ u16 = [0x1234, -2] }"), bytes(&[0x12, 0x34, 0xff, 0xfe]));
        assert_eq!(property("{ u64 = 0x1_0000_0002 }"), bytes(&[0, 0, 0, 1, 0, 0, 0, 2]));
        assert_eq!(property("{ u64 = -1 }"), bytes(&[0xff; 8]));
    }

    #[test]
    fn value_that_does_not_fit_or_is_empty_is_refused() {
        let refused = [
            "4_294_967_296",
            "-2_147_483_649",
            "[1, 4_294_967_296]",
            "{ u8 = 256 }",
            "{ u8 = [-129] }",
            "{ u16 = 65_536 }",
            "{ u32 = 1 }",
            "{ u8 = 1, u16 = 1 }",
            "{}",
            "{ u8 = [] }",
            "{ u8 = \"a\" }",
            "[]",
            "[1, \"a\"]",
            "[\"a\", 1]",
            "false",
            "1.5",
            "\"a\\u0000b\"",
        ];
        for text in refused {
            assert!(property(text).is_err(), "{text}: {:?}", property(text));
        }
    }
}
