// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of `backend gpio`: typed arguments, then an opened device.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;
use clap::Args;
use confinement::role::backend::Hardware;

use super::chip::Lines;
use super::device::Gpio;
use super::linux::LinuxLines;
use super::safe::Safe;
use super::sim::{Board, SimLines};
use super::wiring::{self, Wiring};
use crate::cli::{Connection, Tuning};
use crate::confine;
use crate::device::Device;
use crate::sim::{Parts, Simulation};
use crate::sysfs::Sysfs;

/// Arguments of `backend gpio`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    confinement: confine::Options,
    #[command(flatten)]
    tuning: Tuning,
    /// A line for the guest, which numbers them from 0 in the order given.
    ///
    /// CHIP is a name (gpiochip0), a label, or a device-tree path; NAME is what the guest sees. In both, a backslash
    /// stands before a comma, an equals sign or a backslash that belongs to it.
    ///
    /// OPTION is one of: safe=0, safe=1 (driven to this level while no driver uses the line), safe=stay (held as the
    /// driver left it; released without one of these); bias=pull-up, bias=pull-down, bias=disabled;
    /// drive=push-pull, drive=open-drain, drive=open-source; debounce-us=N (an input counts when it has kept its
    /// level for N microseconds, up to 1000000)
    #[arg(long = "line", value_name = "CHIP:OFFSET[=NAME][,OPTION]...", conflicts_with = "board")]
    #[arg(required_unless_present_any = ["board", "print_capabilities"])]
    lines: Vec<LineArgument>,
    #[command(flatten)]
    simulation: Simulation,
}

impl Arguments {
    /// How the frontend comes in.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What the daemon is to give up.
    #[must_use]
    pub fn confinement(&self) -> confine::Options {
        self.confinement
    }

    /// How it is to trade processor time for latency.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// What the daemon drives.
    #[must_use]
    pub fn hardware(&self) -> Hardware {
        if self.simulation.is_wanted() { Hardware::Simulated } else { Hardware::Gpio }
    }

    /// Opens what the arguments name.
    ///
    /// # Errors
    /// Says what cannot be opened.
    pub fn open(&self) -> anyhow::Result<Box<dyn Device>> {
        match self.simulation.load()? {
            Some(Parts { board, journal, control }) => {
                let names: Vec<_> = board.gpio.lines.iter().map(|name| named(name)).collect();
                let safe: Vec<_> = board.gpio.lines.iter().map(|name| board.gpio.safe_value(name)).collect();
                let model =
                    Board::new(&board.gpio, journal).context("the board's [gpio] cannot be simulated")?;
                device(SimLines::new(model, control), &names, &safe)
                    .context("the board's [gpio] is not one for a guest: see its `lines`")
            }
            None => {
                let names: Vec<_> = self.lines.iter().map(|line| line.name.clone()).collect();
                let safe: Vec<_> = self.lines.iter().map(|line| line.safe).collect();
                device(LinuxLines::open(&self.lines, &Sysfs::default())?, &names, &safe)
            }
        }
    }
}

fn device(
    lines: impl Lines + 'static,
    names: &[Option<String>],
    safe: &[Safe],
) -> anyhow::Result<Box<dyn Device>> {
    Ok(Box::new(Gpio::new(lines, names, safe)?))
}

/// An empty name is none.
fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// A line that the operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineArgument {
    /// `gpiochipN`, a label, or a path in the device tree.
    pub chip: String,
    /// Number of the line on its chip.
    pub offset: u32,
    /// What the guest shall call it.
    pub name: Option<String>,
    /// What becomes of it when no driver uses it.
    pub safe: Safe,
    /// Bias, drive and debouncing.
    pub wiring: Wiring,
}

/// Why an argument does not describe a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// What stands before the options.
    #[error("a line is given as CHIP:OFFSET or CHIP:OFFSET=NAME, as in gpiochip0:3=power")]
    NotALine,
    /// A word between commas.
    #[error(
        "a line has no option {0:?}: it can have safe=, bias=, drive= and debounce-us=; a comma that belongs to the \
         name is written with a backslash before it"
    )]
    NoOption(String),
    /// An option that is known, with a value that is not.
    #[error("{value:?} is no value of {option}=: {help}")]
    NoValue {
        /// The option.
        option: String,
        /// What was given.
        value: String,
        /// What can be given.
        help: String,
    },
    /// An option that was given before.
    #[error("{0}= is given twice")]
    Twice(String),
}

impl FromStr for LineArgument {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        let (line, mut rest) = split(text, ',');
        let (place, name) = split(line, '=');
        // Labels may have colons, offsets do not.
        let (chip, offset) = place.rsplit_once(':').ok_or(LineError::NotALine)?;
        let given = |text: &str| unescape(text).and_then(|text| named(&text)).ok_or(LineError::NotALine);
        let mut line = Self {
            chip: given(chip)?,
            offset: offset.parse().map_err(|_| LineError::NotALine)?,
            name: name.map(given).transpose()?,
            safe: Safe::default(),
            wiring: Wiring::default(),
        };
        let mut seen = Vec::new();
        while let Some(options) = rest {
            let option;
            (option, rest) = split(options, ',');
            let (key, value) =
                option.split_once('=').ok_or_else(|| LineError::NoOption(option.to_owned()))?;
            line.set(key, value)?;
            if seen.contains(&key) {
                return Err(LineError::Twice(key.to_owned()));
            }
            seen.push(key);
        }
        Ok(line)
    }
}

impl LineArgument {
    /// Sets one option.
    fn set(&mut self, option: &str, value: &str) -> Result<(), LineError> {
        let wrong = |error: &dyn fmt::Display| LineError::NoValue {
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
            _ => return Err(LineError::NoOption(format!("{option}={value}"))),
        }
        Ok(())
    }
}

/// The text before and after the first `delimiter` that has no backslash before it.
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

/// The text without its backslashes, each of which makes the next character stand for itself. None if the last has none.
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        plain.push(if char == '\\' { chars.next()? } else { char });
    }
    Some(plain)
}

impl fmt::Display for LineArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--line {}:{}", self.chip, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;
    use crate::gpio::wiring::{Bias, Drive};

    fn parse(text: &str) -> Result<LineArgument, LineError> {
        text.parse()
    }

    /// As the image builder writes a label or a name.
    fn escape(text: &str) -> String {
        text.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=")
    }

    #[test]
    fn lines_are_written_as_in_the_help() {
        let line = |chip: &str, offset, name: Option<&str>| {
            let (chip, name) = (chip.to_owned(), name.map(str::to_owned));
            Ok(LineArgument { chip, offset, name, safe: Safe::Release, wiring: Wiring::default() })
        };
        assert_eq!(parse("gpiochip0:3=power"), line("gpiochip0", 3, Some("power")));
        assert_eq!(parse("a b:c:0"), line("a b:c", 0, None));
        let path = "/passthrough/gpio@9030000";
        assert_eq!(parse(&format!("{path}:3=Red LED Vdd")), line(path, 3, Some("Red LED Vdd")));
        assert_eq!(parse(r"a\=b\,c:1=x\\,safe=stay").map(|line| (line.chip, line.name, line.safe)), {
            Ok(("a=b,c".into(), Some(r"x\".into()), Safe::Stay))
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
            assert_eq!(parse(wrong), Err(LineError::NotALine), "{wrong}");
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
        assert_eq!((line.name.as_deref(), line.safe), (Some("lamp"), Safe::Level(true)));
        let debounce_us = NonZero::new(5000);
        let wiring = Wiring { bias: Some(Bias::PullDown), drive: Drive::OpenDrain, debounce_us };
        assert_eq!(line.wiring, wiring);
        assert_eq!(parse("c:0,safe=0").map(|line| (line.name, line.safe)), Ok((None, Safe::Level(false))));
    }

    /// A word that was meant as an option must not become a name.
    #[test]
    fn an_option_that_is_not_known_is_an_error() {
        let complaint = |text: &str| parse(text).expect_err(text).to_string();
        for (text, option) in [
            ("gpiochip0:3=power,save=0", "save=0"),
            ("c:0,pull-up", "pull-up"),
            ("c:0=Motor, left", " left"),
            ("c:0=a,", ""),
            ("c:0=a,safe=1,", ""),
            ("c:0=a,Safe=1", "Safe=1"),
        ] {
            let expected = format!("a line has no option {option:?}: it can have safe=, bias=, drive= and");
            assert!(complaint(text).starts_with(&expected), "{text}: {}", complaint(text));
        }
        for text in
            ["c:0,safe=", "c:0,safe=2", "c:0,safe=Stay", r"c:0,bias=up", "c:0,drive=", "c:0,debounce-us=0"]
        {
            assert!(matches!(parse(text), Err(LineError::NoValue { .. })), "{text}");
        }
        let expected = r#""up" is no value of bias=: write pull-up, pull-down or disabled"#;
        assert_eq!(complaint("c:0,bias=up"), expected);
        assert_eq!(complaint("c:0,safe=0,bias=pull-up,safe=0"), "safe= is given twice");
    }
}
