// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How long a transaction has the bus, and how long one may wait for it.
//!
//! All guests of an adapter wait in one queue of the kernel, each with one transaction at most (see
//! [`Turn`]), and the queue is first come, first served. So the longest that a transaction waits is the
//! longest that each of the others takes:
//!
//! ```text
//!   others before it  ×  (the longest that its bytes have the bus  +  what an adapter adds that cannot go on)
//!        OTHERS       ×  (             LONGEST                     +                 STUCK                  )
//! ```
//!
//! [`Turn`]: super::turn::Turn

use std::time::Duration;

/// The longest that the bytes of a transaction may have the bus. In standard mode, 100 kHz, that is time for
/// one message of the longest that Linux takes (8192 bytes, 0.74 s), with a register's number before it.
pub(super) const LONGEST: Duration = Duration::from_millis(750);

/// What an adapter adds to that when the bus is stuck, or another controller has it: it waits for as long as
/// its time-out says, and the kernel tries again for as long as that. An adapter's driver can choose the
/// time-out; the kernel's choice is a second.
const STUCK: Duration = Duration::from_secs(2);

/// How many guests may wait for an adapter before this one: more than a board has.
const OTHERS: u32 = 16;

/// A transaction that has been with the kernel for so long does not come back: it waits for something else
/// than its turn.
pub(super) const GIVEN_UP: Duration = LONGEST.saturating_add(STUCK).saturating_mul(OTHERS);

/// How long a driver that stops its queue is kept waiting for a transaction that is on the bus, to learn what
/// becomes of it: most are done by then. It is less than a frontend allows for an answer: xen-frontend-shim's
/// limit is 5 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The clock of a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    hertz: u32,
}

impl Clock {
    /// Standard mode: what a bus is taken to have that does not say.
    pub const STANDARD: Self = Self { hertz: 100_000 };

    /// A clock of `hertz`, if there is any.
    #[must_use]
    pub fn new(hertz: u32) -> Option<Self> {
        (hertz > 0).then_some(Self { hertz })
    }

    /// In hertz.
    #[must_use]
    pub fn hertz(self) -> u32 {
        self.hertz
    }

    /// How long a transaction has the bus whose messages have so many bytes, if no target stretches the
    /// clock: nine bits for each byte, a start condition and the address for each message, and a stop
    /// condition (I2C-bus specification, 3.1).
    #[must_use]
    pub fn time(self, messages: impl IntoIterator<Item = usize>) -> Duration {
        // An address of ten bits has two bytes, and the first of them again before a read.
        const ADDRESS: usize = 3;
        const BYTE: usize = 9;
        const CONDITION: usize = 1;
        let bits = messages
            .into_iter()
            .map(|bytes| bytes.saturating_add(ADDRESS).saturating_mul(BYTE).saturating_add(CONDITION))
            .fold(CONDITION, usize::saturating_add);
        let bits = u64::try_from(bits).unwrap_or(u64::MAX);
        Duration::from_micros(bits.saturating_mul(1_000_000).div_ceil(self.hertz.into()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_takes_nine_bits() {
        let slow = Clock::new(1000).unwrap();
        assert_eq!(slow.time([0]), Duration::from_millis(29));
        assert_eq!(slow.time([1]) - slow.time([0]), Duration::from_millis(9));
        assert_eq!(slow.time([1, 2]), Duration::from_millis(1 + 2 * 28 + 3 * 9));
        assert_eq!(
            Clock::new(400_000).unwrap().time([0]),
            Duration::from_micros(73),
            "not less than it takes"
        );
        assert_eq!(Clock::new(0), None);
        assert!(slow.time([usize::MAX, usize::MAX]) > LONGEST);
    }

    /// What guests rely on: the longest message of Linux can be read from a register in standard mode.
    #[test]
    fn the_longest_message_has_its_time_in_standard_mode() {
        assert!(Clock::STANDARD.time([2, 8192]) <= LONGEST);
        assert!(Clock::STANDARD.time([8192, 8192]) > LONGEST);
        assert!(Clock::new(10_000).unwrap().time([8192]) > LONGEST);
    }

    /// A frontend waits 5 s for an answer, and each guest waits for all others once.
    #[test]
    fn bounds_are_in_order() {
        assert!(LONGEST < PATIENCE && PATIENCE < Duration::from_secs(5));
        assert_eq!(GIVEN_UP, Duration::from_secs(44));
    }
}
