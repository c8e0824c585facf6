// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What becomes of a line that no driver uses.
//!
//! That is the case before a driver configures the line and after it sets its direction to NONE; when the driver resets
//! the device, or its guest is gone; and when the frontend leaves and nobody can go on in its place. It is not the
//! case when a daemon or a frontend dies and another takes over: then the driver still uses the line, and it
//! stays as it is.
//!
//! Without a word of the operator a line is released, since only the operator knows what hangs on it: no level is safe
//! for every actuator, and a line that something else drives must not be driven at all. What the hardware does
//! with a released line is its driver's business. Most leave a former output as it was; some, as Linux's
//! gpio-virtio, turn it off.

use std::str::FromStr;

use serde::Deserialize;

use super::chip::Setup;

/// What becomes of a line that no driver uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Spelled")]
pub enum Safe {
    /// It is released, and whoever wants it may have it.
    #[default]
    Release,
    /// It is driven to this level, from the start of the daemon on.
    Level(bool),
    /// An output is held as the driver left it; anything else is released.
    Stay,
}

impl Safe {
    /// How the hardware must be set up for this.
    #[must_use]
    pub fn setup(self) -> Setup {
        match self {
            Self::Release => Setup::Released,
            Self::Level(level) => Setup::Output(level),
            Self::Stay => Setup::Left,
        }
    }
}

/// A text or a number that names no safe value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the safe value of a line is 0, 1 or \"stay\"")]
pub struct NoSafeValue;

impl FromStr for Safe {
    type Err = NoSafeValue;

    fn from_str(text: &str) -> Result<Self, NoSafeValue> {
        match text {
            "0" => Ok(Self::Level(false)),
            "1" => Ok(Self::Level(true)),
            "stay" => Ok(Self::Stay),
            _ => Err(NoSafeValue),
        }
    }
}

/// As it is written in the description of a board.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelled {
    Level(u8),
    Word(String),
}

impl TryFrom<Spelled> for Safe {
    type Error = NoSafeValue;

    fn try_from(spelled: Spelled) -> Result<Self, NoSafeValue> {
        match spelled {
            Spelled::Level(level) => level.to_string().parse(),
            Spelled::Word(word) if word == "stay" => Ok(Self::Stay),
            Spelled::Word(_) => Err(NoSafeValue),
        }
    }
}
