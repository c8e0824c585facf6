// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The safe value of a line, which applies while no driver uses it.
//!
//! No driver uses a line before one configures it and after it sets the direction to NONE; after the driver
//! resets the device, or its guest ends; and after the frontend disconnects and no daemon can continue. While
//! a daemon or a frontend is replaced after its death, the driver still uses the line, and it stays as it is.
//!
//! By default a line is released. Only the operator knows what is connected to it: no level is safe for every
//! actuator, and a line that other hardware drives must not be driven. The hardware decides about a released
//! line: most controllers leave an output as it was; some, such as Linux's gpio-virtio, turn it off.

use std::str::FromStr;

use super::lines::Setup;

/// What happens with a line that no driver uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SafeValue {
    /// It is released, and another process may request it.
    #[default]
    Release,
    /// It is driven to this level, from the start of the daemon on.
    Level(bool),
    /// An output is held as the driver left it; any other line is released.
    Stay,
}

impl SafeValue {
    /// Returns how the hardware must be set up.
    #[must_use]
    pub fn setup(self) -> Setup {
        match self {
            Self::Release => Setup::Released,
            Self::Level(level) => Setup::Output(level),
            Self::Stay => Setup::Kept,
        }
    }
}

/// A text that is not a safe value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the safe value of a line is 0, 1 or \"stay\"")]
pub struct InvalidSafeValue;

impl FromStr for SafeValue {
    type Err = InvalidSafeValue;

    fn from_str(text: &str) -> Result<Self, InvalidSafeValue> {
        match text {
            "0" => Ok(Self::Level(false)),
            "1" => Ok(Self::Level(true)),
            "stay" => Ok(Self::Stay),
            _ => Err(InvalidSafeValue),
        }
    }
}
