// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device status (virtio 1.3, 2.1) and the steps by which a driver may raise it (3.1.1), as data.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// ACKNOWLEDGE: the driver has found the device.
pub const ACKNOWLEDGE: Status = Status(1);
/// DRIVER: the driver knows how to drive the device.
pub const DRIVER: Status = Status(2);
/// DRIVER_OK: the driver is ready.
pub const DRIVER_OK: Status = Status(4);
/// FEATURES_OK: the features are negotiated.
pub const FEATURES_OK: Status = Status(8);
/// DEVICE_NEEDS_RESET: the device cannot continue until it is reset. Only the device sets it.
pub const NEEDS_RESET: Status = Status(64);
/// FAILED: the driver cannot use the device.
pub const FAILED: Status = Status(128);

/// The states of an initialisation, in the order of 3.1.1. One write may go from each to any later one, and
/// may add FAILED; every other write of a value that is not 0 is ignored.
///
/// | from ╲ to | 0x0   | 0x1 | 0x3 | 0xb      | 0xf      | with FAILED |
/// |-----------|-------|-----|-----|----------|----------|-------------|
/// | 0x0       | reset | yes | yes | if valid | if valid | yes         |
/// | 0x1       | reset | –   | yes | if valid | if valid | yes         |
/// | 0x3       | reset | no  | –   | if valid | if valid | yes         |
/// | 0xb       | reset | no  | no  | –        | yes      | yes         |
/// | 0xf       | reset | no  | no  | no       | –        | yes         |
/// | FAILED    | reset | no  | no  | no       | no       | –           |
///
/// "Valid" refers to the features. DEVICE_NEEDS_RESET is ignored in a write, and stays set until the reset.
const PATH: [Status; 5] = [Status(0), Status(1), Status(1 | 2), Status(1 | 2 | 8), Status::LIVE];

/// A set of status bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status(u8);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A value written to the Status register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusWrite {
    /// 0: reset the device (virtio 1.3, 4.2.2.1).
    Reset,
    /// Set these bits.
    Set(Status),
}

impl From<u32> for StatusWrite {
    fn from(written: u32) -> Self {
        match written.to_le_bytes() {
            [0, 0, 0, 0] => Self::Reset,
            [low, ..] => Self::Set(Status(low & (1 | 2 | 4 | 8 | 128))),
        }
    }
}

impl Status {
    /// The last state: the driver is ready.
    pub(super) const LIVE: Self = Self(1 | 2 | 8 | 4);

    /// The value of the register.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether all of `bits` are set.
    #[must_use]
    pub fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// The status with `bits` cleared.
    #[must_use]
    pub(super) fn without(self, bits: Self) -> Self {
        Self(self.0 & !bits.0)
    }

    /// The status with `bits` set as well.
    #[must_use]
    pub fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }

    /// The position in [`PATH`]; `None` if no initialisation reaches this state.
    fn progress(self) -> Option<usize> {
        let bits = Self(self.0 & !(FAILED.0 | NEEDS_RESET.0));
        PATH.iter().position(|&state| state == bits)
    }

    /// Whether an initialisation reaches this state.
    #[must_use]
    pub fn is_reachable(self) -> bool {
        self.progress().is_some()
    }

    /// The next bit to set towards `wanted`; `None` if there is none, or if the write is not permitted.
    #[must_use]
    pub fn next_step(self, wanted: Self) -> Option<Self> {
        let (here, there) = (self.progress()?, wanted.progress()?);
        match here.cmp(&there) {
            _ if self.has(FAILED) => None,
            Ordering::Less => PATH.get(here + 1).map(|next| Self(next.0 & !self.0)),
            Ordering::Equal => Some(FAILED).filter(|&failed| wanted.has(failed)),
            // 2.1.1: a driver must not clear bits.
            Ordering::Greater => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the steps as the transport does when none is refused.
    fn write(mut status: Status, written: u32) -> Status {
        match StatusWrite::from(written) {
            StatusWrite::Reset => Status::default(),
            StatusWrite::Set(wanted) => {
                while let Some(step) = status.next_step(wanted) {
                    status = status.with(step);
                }
                status
            }
        }
    }

    #[test]
    fn transitions_of_2_1_and_3_1_1() {
        // before, written, after
        let table = [
            (0, 0, 0),
            (0, 1, 1),
            (1, 3, 3),
            (3, 11, 11),
            (11, 15, 15),
            // From any state back to none.
            (1, 0, 0),
            (15, 0, 0),
            (143, 0, 0),
            (79, 0, 0),
            // Several steps at once, as long as none is left out.
            (0, 3, 3),
            (0, 15, 15),
            // A step is left out.
            (0, 2, 0),
            (1, 9, 1),
            (3, 7, 3),
            (0, 13, 0),
            (3, 0x87, 3),
            // Bits must not be cleared.
            (3, 1, 3),
            (15, 11, 15),
            (15, 4, 15),
            // FAILED from anywhere, and then nothing but a reset.
            (0, 128, 128),
            (15, 143, 143),
            (128, 129, 128),
            // The driver can neither set nor clear DEVICE_NEEDS_RESET.
            (15, 79, 15),
            (79, 15, 79),
            (79, 79, 79),
            // Reserved bits are ignored; a value that is not 0 is no reset.
            (3, 0x33, 3),
            (15, 0x100, 15),
            (0, 0xffff_ff01, 1),
        ];
        for (before, written, after) in table {
            assert_eq!(write(Status(before), written), Status(after), "{before:#x} ← {written:#x}");
        }
    }

    #[test]
    fn what_the_steps_lead_to_is_reachable_and_nothing_else() {
        let reachable: Vec<_> = (0..=u8::MAX).filter(|&bits| Status(bits).is_reachable()).collect();
        let steps = [0, 1, 3, 11, 15];
        let with = |bits: u8| steps.map(|step| step | bits);
        assert_eq!(reachable, [with(0), with(64), with(128), with(192)].concat());
    }

    #[test]
    fn no_write_clears_a_bit_except_a_reset() {
        for before in 0..=u8::MAX {
            for written in 1..=0x1ff {
                let after = write(Status(before), written);
                assert!(after.has(Status(before)), "{before:#x} ← {written:#x}");
            }
        }
    }
}
