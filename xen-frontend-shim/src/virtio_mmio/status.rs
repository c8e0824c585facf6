// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device status (virtio 1.3, 2.1) and the steps by which a driver may raise it (3.1.1), as data.

use std::fmt;

/// The driver has noticed the device.
pub const ACKNOWLEDGE: Status = Status(1);
/// The driver knows how to drive it.
pub const DRIVER: Status = Status(2);
/// The driver is ready: the device is live.
pub const DRIVER_OK: Status = Status(4);
/// The features are agreed.
pub const FEATURES_OK: Status = Status(8);
/// The device cannot go on until it is reset. Only the device sets it.
pub const NEEDS_RESET: Status = Status(64);
/// The driver has given up.
pub const FAILED: Status = Status(128);

/// A step: the bit that the driver sets, and the bits that must stand before.
const STEPS: [(Status, Status); 5] = [
    (ACKNOWLEDGE, Status(0)),
    (DRIVER, ACKNOWLEDGE),
    (FEATURES_OK, Status(1 | 2)),
    (DRIVER_OK, Status(1 | 2 | 8)),
    (FAILED, Status(0)),
];

/// A set of status bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(u8);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What a write to the Status register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To reset the device (virtio 1.3, 4.2.2.1: writing 0).
    Reset,
    /// To set these bits.
    Set(Status),
}

impl From<u32> for Wish {
    fn from(written: u32) -> Self {
        let known = STEPS.iter().fold(0, |bits, (bit, _)| bits | bit.0);
        match written.to_le_bytes() {
            [0, 0, 0, 0] => Self::Reset,
            [low, ..] => Self::Set(Status(low & known)),
        }
    }
}

impl Status {
    /// As the register shows it.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether all of `bits` are set.
    #[must_use]
    pub fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// With `bits` set as well.
    #[must_use]
    pub fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }

    /// The next bit to set on the way to `wanted`; `None` when there is none, or none that may be set now.
    ///
    /// A driver must not clear bits other than by a reset (2.1.1), so a write that lacks a bit that is set leads
    /// nowhere; nor does any after FAILED.
    #[must_use]
    pub fn next_step(self, wanted: Self) -> Option<Self> {
        let driver_bits = Self(self.0 & !NEEDS_RESET.0);
        if self.has(FAILED) || !wanted.has(driver_bits) {
            return None;
        }
        let due = |&&(bit, after): &&(Self, Self)| wanted.has(bit) && !self.has(bit) && self.has(after);
        STEPS.iter().find(due).map(|&(bit, _)| bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the steps as the transport does when none is refused.
    fn write(mut status: Status, written: u32) -> Status {
        match Wish::from(written) {
            Wish::Reset => Status::default(),
            Wish::Set(wanted) => {
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
            // A step is left out: what comes before it is taken.
            (0, 2, 0),
            (1, 9, 1),
            (3, 7, 3),
            (0, 13, 1),
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
    fn no_write_clears_a_bit_except_a_reset() {
        for before in 0..=u8::MAX {
            for written in 1..=0x1ff {
                let after = write(Status(before), written);
                assert!(after.has(Status(before)), "{before:#x} ← {written:#x}");
            }
        }
    }
}
