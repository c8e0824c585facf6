// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The description of a simulated board.
//!
//! ```toml
//! [[i2c.target]]
//! address = 0x48
//! model = "lm75"
//! temperature = 23.5
//!
//! [gpio]
//! lines = ["led", "button"]
//! wires = [[0, 1]]
//! safe = { led = 0 }
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::gpio::safe::{InvalidSafeValue, SafeValue};

/// A board: its I2C bus and its GPIO chip.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// The I2C bus, empty if there is none.
    #[serde(default)]
    pub i2c: I2cBus,
    /// The GPIO chip, without lines if there is none.
    #[serde(default)]
    pub gpio: GpioChip,
}

/// The I2C bus of a board.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct I2cBus {
    /// The targets on the bus.
    #[serde(default, rename = "target")]
    pub targets: Vec<I2cTarget>,
}

/// An I2C target.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct I2cTarget {
    /// Its address; 0xa000 is added to a 10-bit address.
    pub address: u16,
    /// Its model.
    #[serde(flatten)]
    pub model: Model,
}

/// The models of I2C targets.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "model", rename_all = "lowercase", deny_unknown_fields)]
pub enum Model {
    /// A temperature sensor.
    Lm75 {
        /// Temperature in degrees Celsius.
        temperature: f64,
    },
    /// An EEPROM of 256 bytes.
    At24c02 {
        /// Size of a page in bytes, 8 or 16.
        #[serde(default = "default_page")]
        page: u8,
        /// Whether the write-protect pin is high.
        #[serde(default, rename = "write-protect")]
        write_protect: bool,
        /// Number of transactions that it refuses after a write, while it programs its cells.
        #[serde(default, rename = "busy-polls")]
        busy_polls: u32,
    },
    /// A real-time clock.
    Ds1307 {},
}

fn default_page() -> u8 {
    8
}

/// The GPIO chip of a board.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpioChip {
    /// The lines' names, in the order of their offsets.
    #[serde(default)]
    pub lines: Vec<String>,
    /// Pairs of offsets of lines that are connected.
    #[serde(default)]
    pub wires: Vec<[u16; 2]>,
    /// The safe values of lines, by name.
    #[serde(default)]
    pub safe: BTreeMap<String, WrittenSafeValue>,
}

impl GpioChip {
    /// Returns the safe value of the line of this name.
    #[must_use]
    pub fn safe_value(&self, name: &str) -> SafeValue {
        self.safe.get(name).map(|written| written.0).unwrap_or_default()
    }
}

/// A safe value as it is written in a board: 0, 1 or "stay".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NumberOrWord")]
pub struct WrittenSafeValue(SafeValue);

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrWord {
    Number(u8),
    Word(String),
}

impl TryFrom<NumberOrWord> for WrittenSafeValue {
    type Error = InvalidSafeValue;

    fn try_from(written: NumberOrWord) -> Result<Self, InvalidSafeValue> {
        match written {
            NumberOrWord::Number(level) => level.to_string().parse().map(Self),
            NumberOrWord::Word(word) if word == "stay" => Ok(Self(SafeValue::Stay)),
            NumberOrWord::Word(_) => Err(InvalidSafeValue),
        }
    }
}

impl Board {
    /// Reads the description of a board from a file.
    ///
    /// # Errors
    /// Names the file, the line and the reason.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the board {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} does not describe a board", path.display()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_board_has_a_bus_and_a_chip() {
        let text = r#"
            [[i2c.target]]
            address = 0x48
            model = "lm75"
            temperature = 23.5
            [[i2c.target]]
            address = 0x50
            model = "at24c02"
            [[i2c.target]]
            address = 0x68
            model = "ds1307"
            [gpio]
            lines = ["led", "button"]
            wires = [[0, 1]]
        "#;
        let board: Board = toml::from_str(text).unwrap();
        assert_eq!(board.i2c.targets.len(), 3);
        assert_eq!(board.i2c.targets[0].model, Model::Lm75 { temperature: 23.5 });
        assert_eq!(board.gpio.wires, [[0, 1]]);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = "[[i2c.target]]\naddress = 0x48\nmodel = \"lm75\"\ntemperature = 1.0\ncolour = 3";
        assert!(toml::from_str::<Board>(text).is_err());
        assert!(toml::from_str::<Board>("[spi]").is_err());
    }
}
