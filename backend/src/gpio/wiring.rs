// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The wiring of a line, as the operator describes it: bias, drive and debouncing.
//!
//! virtio-gpio has no messages for these (virtio 1.3, 5.18.6), so a guest can neither read nor change them.
//! They are part of each line request ([`super::linux`]): the bias of all, the drive of outputs, the debounce
//! period of inputs.
//!
//! Linux emulates open drain, open source and debouncing where the controller lacks them. It ignores a bias
//! that the controller lacks, without an error (`gpio_set_bias()`).

use std::num::NonZero;
use std::str::FromStr;

use gpiocdev_uapi::v2::LineFlags;

/// Maximum debounce period in microseconds.
pub const LONGEST_DEBOUNCE: u32 = 1_000_000;

/// The bias resistor of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// To the supply.
    PullUp,
    /// To ground.
    PullDown,
    /// No resistor, also where the controller has one after reset.
    Disabled,
}

/// How an output is driven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drive {
    /// To both levels.
    #[default]
    PushPull,
    /// To low only: at high, the bias and other drivers decide the level.
    OpenDrain,
    /// To high only.
    OpenSource,
}

/// The wiring of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// As the controller has it, if `None`.
    pub bias: Option<Bias>,
    /// Push-pull by default.
    pub drive: Drive,
    /// Time in microseconds for which an input must keep a level before it counts, at most
    /// [`LONGEST_DEBOUNCE`].
    pub debounce_us: Option<NonZero<u32>>,
}

impl Wiring {
    /// Returns the flags of the wiring for a request with the direction in `direction`.
    #[must_use]
    pub fn flags(self, direction: LineFlags) -> LineFlags {
        let bias = match self.bias {
            None => LineFlags::empty(),
            Some(Bias::PullUp) => LineFlags::BIAS_PULL_UP,
            Some(Bias::PullDown) => LineFlags::BIAS_PULL_DOWN,
            Some(Bias::Disabled) => LineFlags::BIAS_DISABLED,
        };
        let drive = match self.drive {
            Drive::PushPull => LineFlags::empty(),
            Drive::OpenDrain => LineFlags::OPEN_DRAIN,
            Drive::OpenSource => LineFlags::OPEN_SOURCE,
        };
        if direction.contains(LineFlags::OUTPUT) {
            bias | drive
        } else if direction.contains(LineFlags::INPUT) {
            bias
        } else {
            // Linux refuses them without a direction.
            LineFlags::empty()
        }
    }
}

/// An unknown value of an option; the text lists the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write {0}")]
pub struct UnknownValue(&'static str);

impl FromStr for Bias {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        match text {
            "pull-up" => Ok(Self::PullUp),
            "pull-down" => Ok(Self::PullDown),
            "disabled" => Ok(Self::Disabled),
            _ => Err(UnknownValue("pull-up, pull-down or disabled")),
        }
    }
}

impl FromStr for Drive {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        match text {
            "push-pull" => Ok(Self::PushPull),
            "open-drain" => Ok(Self::OpenDrain),
            "open-source" => Ok(Self::OpenSource),
            _ => Err(UnknownValue("push-pull, open-drain or open-source")),
        }
    }
}

/// Parses a debounce period.
///
/// # Errors
/// When it is not in the valid range.
pub fn debounce(text: &str) -> Result<NonZero<u32>, UnknownValue> {
    let period = text.parse().ok().filter(|period: &NonZero<u32>| period.get() <= LONGEST_DEBOUNCE);
    period.ok_or(UnknownValue("a number of microseconds from 1 to 1000000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_flags_that_the_uapi_allows_for_its_direction() {
        let wiring = Wiring { bias: Some(Bias::PullUp), drive: Drive::OpenDrain, debounce_us: None };
        let output = LineFlags::OPEN_DRAIN | LineFlags::BIAS_PULL_UP;
        assert_eq!(wiring.flags(LineFlags::OUTPUT), output);
        assert_eq!(wiring.flags(LineFlags::INPUT | LineFlags::EDGE_RISING), LineFlags::BIAS_PULL_UP);
        assert_eq!(wiring.flags(LineFlags::empty()), LineFlags::empty());
        assert_eq!(Wiring::default().flags(LineFlags::OUTPUT), LineFlags::empty());
    }

    #[test]
    fn a_debounce_period_beyond_its_range_is_an_error() {
        assert_eq!(debounce("1000000").map(NonZero::get), Ok(LONGEST_DEBOUNCE));
        for wrong in ["0", "1000001", "5ms", "-1", ""] {
            assert!(debounce(wrong).is_err(), "{wrong}");
        }
    }
}
