// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Types of values in manifests and board files: amounts of memory, device tree properties, words, and tables
//! with keys of the author.

mod property;

use toml_span::de_helpers::expected;
use toml_span::value::{Value, ValueInner};
use toml_span::{DeserError, Deserialize, Error, ErrorKind, Span, Spanned};

pub(crate) use self::property::Compatible;
pub use self::property::Property;

/// The bytes of one MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// An error with `help` after a line break, where [`crate::diagnostics::from_error`] divides it.
pub(crate) fn custom(span: Span, title: impl std::fmt::Display, help: impl std::fmt::Display) -> Error {
    Error { kind: ErrorKind::Custom(format!("{title}\n{help}").into()), span, line_info: None }
}

/// An amount of memory: `"64 MiB"` or `"1 GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory {
    /// The amount in bytes.
    pub bytes: u64,
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let text = value.take_string(Some("an amount of memory such as \"64 MiB\""))?;
        let units = [("GiB", 1 << 30), ("MiB", MIB)];
        let bytes = units.iter().find_map(|(unit, factor)| {
            let count: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            count.checked_mul(*factor)
        });
        bytes.map(|bytes| Self { bytes }).ok_or_else(|| {
            let title = format!("`{text}` is not an amount of memory");
            custom(value.span, title, "write a whole number of MiB or GiB, such as \"64 MiB\"").into()
        })
    }
}

impl Memory {
    /// The amount in MiB.
    pub fn mib(self) -> u64 {
        self.bytes / MIB
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MiB", self.mib())
    }
}

/// A table whose keys are names of the author, in the order of the file.
#[derive(Clone, Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<(Spanned<String>, T)>);

// Not derived: `T` need not have a default.
impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let table = match value.take() {
            ValueInner::Table(table) => table,
            other => return Err(expected("a table", other, value.span).into()),
        };
        let mut entries = Vec::new();
        let mut errors = Vec::new();
        for (key, mut item) in table {
            match T::deserialize(&mut item) {
                Ok(item) => entries.push((Spanned::with_span(key.name.into(), key.span), item)),
                Err(mut error) => errors.append(&mut error.errors),
            }
        }
        entries.sort_by_key(|(key, _)| key.span.start);
        if errors.is_empty() { Ok(Self(entries)) } else { Err(DeserError { errors }) }
    }
}

/// Ends a table: the value, or the errors if a key is missing, wrong or unknown.
macro_rules! finish {
    ($table:ident, $value:expr) => {{
        // The closure stops at the first required value that is missing; `finalize` has them all.
        let value = (|| Ok::<_, toml_span::Error>($value))();
        $table.finalize(None)?;
        value.map_err(Into::into)
    }};
}
pub(crate) use finish;

/// Reads one of several words.
pub(crate) fn choice<T: Copy>(value: &mut Value<'_>, choices: &[(&str, T)]) -> Result<T, DeserError> {
    let span = value.span;
    let text = value.take_string(None)?;
    choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| {
        let words = crate::diagnostics::listed(choices.iter().map(|(word, _)| word));
        custom(span, format!("`{text}` is not known here"), format!("write one of {words}")).into()
    })
}
