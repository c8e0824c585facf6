// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What goes into a device tree as its author writes it.

use toml_span::de_helpers::expected;
use toml_span::value::{Table, Value, ValueInner};
use toml_span::{DeserError, Deserialize, Span};

use super::custom;

/// The value of a device tree property as it is written in TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// `true`: the property is there and has no value.
    Flag,
    /// Integers: cells of 32 bits, negative ones as their two's complement.
    Cells(Vec<u32>),
    /// Integers of another width, as `{ u8 = [0x12, -1] }`: their bytes, the most significant of each first.
    Bytes(Vec<u8>),
    /// Strings.
    Strings(Vec<String>),
}

/// The widths of integers that are no cells, with their bytes.
const WIDTHS: [(&str, usize); 3] = [("u8", 1), ("u16", 2), ("u64", 8)];

/// The bytes of a cell.
const CELL: usize = 4;

/// What to write where a list has nothing in it.
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
            None => Err(custom(span, "a list with nothing in it", NO_VALUE).into()),
            Some(first) if first.as_str().is_some() => each(items, text).map(Self::Strings),
            Some(_) => each(items, cell).map(Self::Cells),
        }
    }
}

/// The names of what a device is compatible with, the most specific first; at least one. A string stands for a
/// list of one.
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
            return Err(custom(span, "a device that is compatible with nothing", help).into());
        }
        each(items, binding).map(Self)
    }
}

/// A name by which drivers are found. The kernel also gives it to programs of user space, one to a line, so it
/// has neither blanks nor control characters.
fn binding(value: &mut Value<'_>) -> Result<String, DeserError> {
    let span = value.span;
    let name = value.take_string(None)?;
    if name.is_empty() || !name.chars().all(|char| char.is_ascii_graphic()) {
        let help = "write a name such as \"national,lm75\": letters, digits and punctuation, without blanks";
        return Err(custom(span, format!("{name:?} is nothing to be compatible with"), help).into());
    }
    Ok(name.into())
}

/// A string of a device tree, where a NUL ends it.
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

/// Integers whose width the only key of `table` is.
fn wide(table: Table<'_>, span: Span) -> Result<Vec<u8>, DeserError> {
    let mut entries = table.into_iter();
    let width = |name: &str| WIDTHS.iter().find(|(known, _)| *known == name);
    let (Some((key, mut value)), None) = (entries.next(), entries.next()) else {
        return Err(no_width(span).into());
    };
    let Some((_, bytes)) = width(&key.name) else { return Err(no_width(key.span).into()) };
    let items = match value.take() {
        ValueInner::Array(items) if items.is_empty() => {
            return Err(custom(value.span, "a list with nothing in it", NO_VALUE).into());
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
    custom(span, "this is no width of integers", help)
}

/// An integer that `bytes` bytes have room for, with or without a sign.
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
    Err(custom(span, format!("{number} has more than {bits} bits"), help).into())
}

/// Reads all of `items`, and says of all that are wrong what is.
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
    fn integers_have_the_width_that_is_written() {
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
    fn what_has_no_room_or_no_value_is_refused() {
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
