// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The option `--line`: a line, and how it is wired.

use std::fmt;
use std::str::FromStr;

use super::safe::SafeValue;
use super::wiring::{self, Wiring};

/// A line that the operator chose: the value of `--line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineOption {
    /// A name (`gpiochipN`), a label, or a device-tree path.
    pub chip: String,
    /// Number of the line on its chip.
    pub offset: u32,
    /// Its name for the guest.
    pub name: Option<String>,
    /// What happens with it while no driver uses it.
    pub safe: SafeValue,
    /// Bias, drive and debouncing.
    pub wiring: Wiring,
}

/// Why a value of `--line` is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineOptionError {
    /// The part before the options.
    #[error("a line is given as CHIP:OFFSET or CHIP:OFFSET=NAME, as in gpiochip0:3=power")]
    NotALine,
    /// An unknown option.
    #[error(
        "a line has no option {0:?}: it can have safe=, bias=, drive= and debounce-us=; a comma \
         that belongs to the name is written with a backslash before it"
    )]
    NoOption(String),
    /// A known option with an unknown value.
    #[error("{value:?} is not a value of {option}=: {help}")]
    NoValue {
        /// The option.
        option: String,
        /// The value.
        value: String,
        /// The valid values.
        help: String,
    },
    /// A repeated option.
    #[error("{0}= is given twice")]
    Twice(String),
}

impl FromStr for LineOption {
    type Err = LineOptionError;

    fn from_str(text: &str) -> Result<Self, LineOptionError> {
        let (line, mut rest) = split(text, ',');
        let (place, name) = split(line, '=');
        // A label may contain colons, an offset does not.
        let (chip, offset) = place.rsplit_once(':').ok_or(LineOptionError::NotALine)?;
        let given =
            |text: &str| unescape(text).filter(|text| !text.is_empty()).ok_or(LineOptionError::NotALine);
        let mut line = Self {
            chip: given(chip)?,
            offset: offset.parse().map_err(|_| LineOptionError::NotALine)?,
            name: name.map(given).transpose()?,
            safe: SafeValue::default(),
            wiring: Wiring::default(),
        };
        let mut seen = Vec::new();
        while let Some(options) = rest {
            let option;
            (option, rest) = split(options, ',');
            let (key, value) =
                option.split_once('=').ok_or_else(|| LineOptionError::NoOption(option.to_owned()))?;
            line.set(key, value)?;
            if seen.contains(&key) {
                return Err(LineOptionError::Twice(key.to_owned()));
            }
            seen.push(key);
        }
        Ok(line)
    }
}

impl LineOption {
    /// Sets one option.
    fn set(&mut self, option: &str, value: &str) -> Result<(), LineOptionError> {
        let wrong = |error: &dyn fmt::Display| LineOptionError::NoValue {
            option: option.to_owned(),
            value: value.to_owned(),
            help: error.to_string(),
        };
        match option {
            "safe" => self.safe = value.parse().map_err(|error| wrong(&error))?,
            "bias" => self.wiring.bias = Some(value.parse().map_err(|error| wrong(&error))?),
            "drive" => self.wiring.drive = value.parse().map_err(|error| wrong(&error))?,
            "debounce-us" => {
                self.wiring.debounce_us = Some(wiring::debounce(value).map_err(|error| wrong(&error))?);
            }
            _ => return Err(LineOptionError::NoOption(format!("{option}={value}"))),
        }
        Ok(())
    }
}

/// Splits the text at the first `delimiter` that has no backslash before it.
fn split(text: &str, delimiter: char) -> (&str, Option<&str>) {
    let mut is_escaped = false;
    for (place, char) in text.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if char == '\\' {
            is_escaped = true;
        } else if char == delimiter {
            let (before, after) = text.split_at(place);
            return (before, after.strip_prefix(delimiter));
        }
    }
    (text, None)
}

/// Removes backslashes, each of which quotes the next character. Returns `None` if no character follows the
/// last one.
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        plain.push(if char == '\\' { chars.next()? } else { char });
    }
    Some(plain)
}

impl fmt::Display for LineOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--line {}:{}", self.chip, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;
    use crate::gpio::wiring::{Bias, Drive};

    fn parse(text: &str) -> Result<LineOption, LineOptionError> {
        text.parse()
    }

    /// Escapes a label or a name as the image builder does.
    fn escape(text: &str) -> String {
        text.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=")
    }

    #[test]
    fn lines_are_written_as_in_the_help() {
        let line = |chip: &str, offset, name: Option<&str>| {
            let (chip, name) = (chip.to_owned(), name.map(str::to_owned));
            Ok(LineOption { chip, offset, name, safe: SafeValue::Release, wiring: Wiring::default() })
        };
        assert_eq!(parse("gpiochip0:3=power"), line("gpiochip0", 3, Some("power")));
        assert_eq!(parse("a b:c:0"), line("a b:c", 0, None));
        let path = "/passthrough/gpio@9030000";
        assert_eq!(parse(&format!("{path}:3=Red LED Vdd")), line(path, 3, Some("Red LED Vdd")));
        assert_eq!(parse(r"a\=b\,c:1=x\\,safe=stay").map(|line| (line.chip, line.name, line.safe)), {
            Ok(("a=b,c".into(), Some(r"x\".into()), SafeValue::Stay))
        });
        for wrong in [
            ",safe=0",
            "",
            "3",
            ":3",
            "chip:",
            "chip:x",
            "chip:-1",
            "chip:1=",
            "chip:1=,safe=0",
            "chip:4294967296",
            r"chip:1=x\",
        ] {
            assert_eq!(parse(wrong), Err(LineOptionError::NotALine), "{wrong}");
        }
    }

    /// Virtio 1.3, 5.18.6.1: a name is any 7-bit ASCII.
    #[test]
    fn any_name_and_any_label_can_be_given() {
        let all: String = (1..128_u8).map(char::from).collect();
        for part in [all.as_str(), ",", "=", r"\", r"\,", r",safe=0", "a:b", " "] {
            let line = parse(&format!("{part}:0={part},bias=pull-up", part = escape(part))).expect("a line");
            assert_eq!((line.chip.as_str(), line.name.as_deref()), (part, Some(part)));
            assert_eq!(line.wiring.bias, Some(Bias::PullUp));
        }
    }

    #[test]
    fn options_come_in_any_order() {
        let line = parse("c:0=lamp,debounce-us=5000,safe=1,drive=open-drain,bias=pull-down").expect("a line");
        assert_eq!((line.name.as_deref(), line.safe), (Some("lamp"), SafeValue::Level(true)));
        let debounce_us = NonZero::new(5000);
        let wiring = Wiring { bias: Some(Bias::PullDown), drive: Drive::OpenDrain, debounce_us };
        assert_eq!(line.wiring, wiring);
        assert_eq!(
            parse("c:0,safe=0").map(|line| (line.name, line.safe)),
            Ok((None, SafeValue::Level(false)))
        );
    }

    /// A mistyped option must not become a name.
    #[test]
    fn an_unknown_option_is_an_error() {
        let error = |text: &str| parse(text).expect_err(text).to_string();
        for (text, option) in [
            ("gpiochip0:3=power,save=0", "save=0"),
            ("c:0,pull-up", "pull-up"),
            ("c:0=Motor, left", " left"),
            ("c:0=a,", ""),
            ("c:0=a,safe=1,", ""),
            ("c:0=a,SafeValue=1", "SafeValue=1"),
        ] {
            let expected = format!("a line has no option {option:?}: it can have safe=, bias=, drive= and");
            assert!(error(text).starts_with(&expected), "{text}: {}", error(text));
        }
        for text in
            ["c:0,safe=", "c:0,safe=2", "c:0,safe=Stay", r"c:0,bias=up", "c:0,drive=", "c:0,debounce-us=0"]
        {
            assert!(matches!(parse(text), Err(LineOptionError::NoValue { .. })), "{text}");
        }
        let expected = r#""up" is not a value of bias=: write pull-up, pull-down or disabled"#;
        assert_eq!(error("c:0,bias=up"), expected);
        assert_eq!(error("c:0,safe=0,bias=pull-up,safe=0"), "safe= is given twice");
    }
}
