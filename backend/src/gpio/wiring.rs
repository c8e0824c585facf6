// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The circuit of a line, as the operator describes it: bias, drive and debouncing.
//!
//! virtio-gpio has no messages for these (virtio 1.3, 5.18.6), so a guest can neither ask for them nor change them. They
//! go into each request of the line that the guest causes ([`super::linux`]): the bias into all, the drive into those
//! of an output, the debounce period into those of an input.
//!
//! Linux drives open-drain and open-source outputs, and debounces inputs, also where the controller cannot. A bias
//! that the controller does not have is left out by Linux without an error (`gpio_set_bias()`).

use std::num::NonZero;
use std::str::FromStr;

use gpiocdev_uapi::v2::LineFlags;

/// The longest debounce period, in microseconds. An input that is to rest for longer is not being debounced.
pub const LONGEST_DEBOUNCE: u32 = 1_000_000;

/// A resistor of the controller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// To the supply.
    PullUp,
    /// To ground.
    PullDown,
    /// None, also where the controller has one after reset.
    Disabled,
}

/// How an output is driven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drive {
    /// To both levels.
    #[default]
    PushPull,
    /// To low only: at high, the line is left to its bias and to other drivers.
    OpenDrain,
    /// To high only.
    OpenSource,
}

/// The circuit of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// As the controller has it, if not given.
    pub bias: Option<Bias>,
    /// Push-pull, if not given.
    pub drive: Drive,
    /// For so many microseconds an input must keep a level before it counts: at most [`LONGEST_DEBOUNCE`].
    pub debounce_us: Option<NonZero<u32>>,
}

impl Wiring {
    /// The flags of a request that has the direction that `direction` says.
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
            // Linux takes none of them without a direction.
            LineFlags::empty()
        }
    }
}

/// A word that an option does not know; says which it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write {0}")]
pub struct Unknown(&'static str);

impl FromStr for Bias {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        match text {
            "pull-up" => Ok(Self::PullUp),
            "pull-down" => Ok(Self::PullDown),
            "disabled" => Ok(Self::Disabled),
            _ => Err(Unknown("pull-up, pull-down or disabled")),
        }
    }
}

impl FromStr for Drive {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        match text {
            "push-pull" => Ok(Self::PushPull),
            "open-drain" => Ok(Self::OpenDrain),
            "open-source" => Ok(Self::OpenSource),
            _ => Err(Unknown("push-pull, open-drain or open-source")),
        }
    }
}

/// Reads a debounce period.
///
/// # Errors
/// Says which range it must be in.
pub fn debounce(text: &str) -> Result<NonZero<u32>, Unknown> {
    let period = text.parse().ok().filter(|period: &NonZero<u32>| period.get() <= LONGEST_DEBOUNCE);
    period.ok_or(Unknown("a number of microseconds from 1 to 1000000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_gets_the_flags_that_the_uapi_allows_with_it() {
        let wiring = Wiring { bias: Some(Bias::PullUp), drive: Drive::OpenDrain, debounce_us: None };
        let output = LineFlags::OPEN_DRAIN | LineFlags::BIAS_PULL_UP;
        assert_eq!(wiring.flags(LineFlags::OUTPUT), output);
        assert_eq!(wiring.flags(LineFlags::INPUT | LineFlags::EDGE_RISING), LineFlags::BIAS_PULL_UP);
        assert_eq!(wiring.flags(LineFlags::empty()), LineFlags::empty());
        assert_eq!(Wiring::default().flags(LineFlags::OUTPUT), LineFlags::empty());
    }

    #[test]
    fn a_period_is_bounded() {
        assert_eq!(debounce("1000000").map(NonZero::get), Ok(LONGEST_DEBOUNCE));
        for wrong in ["0", "1000001", "5ms", "-1", ""] {
            assert!(debounce(wrong).is_err(), "{wrong}");
        }
    }
}
