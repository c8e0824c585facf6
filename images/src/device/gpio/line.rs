// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A line of a virtio GPIO controller.

use std::fmt;

use toml_span::de_helpers::{TableHelper, expected};
use toml_span::value::{Value, ValueInner};
use toml_span::{DeserError, Deserialize, Spanned};

use crate::spanned::{choice, custom, finish};

/// A line of a GPIO controller of the driver domain, as a guest gets it.
#[derive(Clone, Debug)]
pub struct Line {
    /// The name of the controller.
    pub chip: Spanned<String>,
    /// The number of the line at the controller.
    pub line: Spanned<i64>,
    /// The name in the guest.
    pub name: Option<Spanned<String>>,
    /// What the backend does with the line while no driver uses it.
    pub safe: Option<Safe>,
    /// The resistor that the controller connects.
    pub bias: Option<Bias>,
    /// How the line is driven as an output.
    pub drive: Option<Drive>,
    /// The microseconds for which an input must keep a level before that counts.
    pub debounce: Option<Spanned<i64>>,
    /// Refused: no backend serves a line to two guests.
    pub shared: Option<Spanned<bool>>,
}

/// What the backend does with a line that no driver uses: before the guest sets it up, and after the guest
/// releases it, is reset or ends. Without a value the line is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safe {
    /// Drives it low.
    Low,
    /// Drives it high.
    High,
    /// Keeps driving it as it was driven.
    Stay,
}

/// The resistor that a controller connects to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// To the supply.
    PullUp,
    /// To ground.
    PullDown,
    /// None.
    Disabled,
}

/// How an output is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// To both levels.
    PushPull,
    /// To low only.
    OpenDrain,
    /// To high only.
    OpenSource,
}

impl Bias {
    /// All of them, as in a manifest and on the backend's command line.
    pub const WORDS: [(&'static str, Self); 3] =
        [("pull-up", Self::PullUp), ("pull-down", Self::PullDown), ("disabled", Self::Disabled)];
}

impl Drive {
    /// All of them, as in a manifest and on the backend's command line.
    pub const WORDS: [(&'static str, Self); 3] =
        [("push-pull", Self::PushPull), ("open-drain", Self::OpenDrain), ("open-source", Self::OpenSource)];
}

/// The word of `value`.
fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}

impl fmt::Display for Safe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "0",
            Self::High => "1",
            Self::Stay => "stay",
        })
    }
}

impl fmt::Display for Bias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&Self::WORDS, *self))
    }
}

impl fmt::Display for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&Self::WORDS, *self))
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let chip = table.required("chip");
        let line = table.required("line");
        let name = table.optional("name");
        let safe = table.optional("safe");
        let bias = table.optional("bias");
        let drive = table.optional("drive");
        let debounce = table.optional("debounce-us");
        let shared = table.optional("shared");
        finish!(table, Self { chip: chip?, line: line?, name, safe, bias, drive, debounce, shared })
    }
}

impl<'de> Deserialize<'de> for Bias {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        choice(value, &Self::WORDS)
    }
}

impl<'de> Deserialize<'de> for Drive {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        choice(value, &Self::WORDS)
    }
}

impl<'de> Deserialize<'de> for Safe {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let written = value.take();
        match &written {
            ValueInner::Integer(0) => return Ok(Self::Low),
            ValueInner::Integer(1) => return Ok(Self::High),
            ValueInner::String(word) if word == "stay" => return Ok(Self::Stay),
            _ => {}
        }
        let title = match written {
            ValueInner::Integer(number) => format!("{number} is no level of a line"),
            ValueInner::String(word) => format!("`{word}` is no safe value"),
            other => return Err(expected("0, 1 or \"stay\"", other, span).into()),
        };
        let help = "write 0 or 1 for a line that is to be driven while its guest does not use it, \
                    \"stay\" for one that is to keep its level, or leave `safe` out to have it released";
        Err(custom(span, title, help).into())
    }
}
