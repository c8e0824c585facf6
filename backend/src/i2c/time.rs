// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Time limits of transactions.
//!
//! All guests of an adapter wait in one queue of the kernel, each with one transaction at most (see
//! [`BusTurn`]), and are served in the order in which they came. So the maximum wait is the sum of the
//! maximum times of the others:
//!
//! ```text
//!   guests before it  ×  (the maximum time of its bytes  +  the time-outs of its adapter)
//!    WAITING_GUESTS   ×  (    TRANSACTION_TIME_MAX       +      ADAPTER_TIMEOUTS        )
//! ```
//!
//! [`BusTurn`]: super::turn::BusTurn

use std::time::Duration;

/// Maximum time that the bytes of a transaction may take. In standard mode, 100 kHz, this suffices for the
/// longest message of Linux (8192 bytes, 0.74 s) after a register number.
pub(super) const TRANSACTION_TIME_MAX: Duration = Duration::from_millis(750);

/// Time that an adapter adds when the bus is stuck or another controller has it: its time-out, and the same
/// time again for retries by the kernel. The adapter's driver may choose the time-out; the kernel's default
/// is 1 s.
const ADAPTER_TIMEOUTS: Duration = Duration::from_secs(2);

/// Number of guests that may wait for an adapter before this one: more than a board has.
const WAITING_GUESTS: u32 = 16;

/// Maximum time of a transaction in the kernel. One that takes longer does not only wait for other guests.
pub(super) const TRANSFER_LIMIT: Duration =
    TRANSACTION_TIME_MAX.saturating_add(ADAPTER_TIMEOUTS).saturating_mul(WAITING_GUESTS);

/// Maximum time to wait for the transaction on the bus when the queue stops; most end within it. It is less
/// than a frontend waits for a reply: 5 s for xen-frontend-shim.
pub(super) const STOP_WAIT: Duration = Duration::from_secs(2);

/// The clock of a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    hertz: u32,
}

impl Clock {
    /// Standard mode, the default of a bus whose clock is unknown.
    pub const STANDARD: Self = Self { hertz: 100_000 };

    /// Creates a clock of `hertz`, unless that is 0.
    #[must_use]
    pub fn new(hertz: u32) -> Option<Self> {
        (hertz > 0).then_some(Self { hertz })
    }

    /// Returns the frequency in hertz.
    #[must_use]
    pub fn hertz(self) -> u32 {
        self.hertz
    }

    /// Returns the time of a transaction whose messages have so many bytes, if no target stretches the clock:
    /// nine bits for each byte, a start condition and the address for each message, and a stop condition
    /// (I2C-bus specification, 3.1).
    #[must_use]
    pub fn time(self, messages: impl IntoIterator<Item = usize>) -> Duration {
        // A 10-bit address has two bytes, and the first one again before a read.
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
        assert_eq!(Clock::new(400_000).unwrap().time([0]), Duration::from_micros(73), "rounded up");
        assert_eq!(Clock::new(0), None);
        assert!(slow.time([usize::MAX, usize::MAX]) > TRANSACTION_TIME_MAX);
    }

    /// Guests rely on it: the longest message of Linux can be read from a register in standard mode.
    #[test]
    fn the_longest_message_has_its_time_in_standard_mode() {
        assert!(Clock::STANDARD.time([2, 8192]) <= TRANSACTION_TIME_MAX);
        assert!(Clock::STANDARD.time([8192, 8192]) > TRANSACTION_TIME_MAX);
        assert!(Clock::new(10_000).unwrap().time([8192]) > TRANSACTION_TIME_MAX);
    }

    /// A frontend waits 5 s for a reply.
    #[test]
    fn a_stop_waits_longer_than_a_transaction_and_shorter_than_a_frontend() {
        assert!(TRANSACTION_TIME_MAX < STOP_WAIT && STOP_WAIT < Duration::from_secs(5));
        assert_eq!(TRANSFER_LIMIT, Duration::from_secs(44));
    }
}
