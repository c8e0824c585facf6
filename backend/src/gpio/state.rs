// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device knows of its lines, and where it writes that down for a daemon that takes over.
//!
//! The end of the frontend's memory for chains in flight ([`Tail`]) has a word for each line, after two that say what it
//! is. A word is written at once or not at all, and its upper half is the complement of the lower: so a daemon
//! that is killed at any moment leaves words that are true, and what was never written, or by somebody else,
//! is recognised. It is written when the hardware has done what it says. A request that the daemon died over
//! is answered with an error, and undone if its word was not yet there.
//!
//! ```text
//!  bit  31      16 15    11 10     9    8     7     6 5 4 3 2     1 0
//!      ┌──────────┬────────┬─────┬─────┬─────┬─────┬───────┬─────┬─────────┐
//!      │ not(low) │   0    │level│known│deaf │latch│trigger│value│direction│
//!      └──────────┴────────┴─────┴─────┴─────┴─────┴───────┴─────┴─────────┘
//! ```

use crate::inflight::Tail;

use super::spec::{Direction, Trigger};

/// "GP", and the version of this layout.
const MAGIC: u32 = 0x4750_0001;

/// Words before the lines'.
const HEADER_WORDS: usize = 2;

/// What is known of a line. All of it is dropped at once, by assigning the default, when the driver sets the direction
/// to NONE ("The device MUST discard all state information", 5.18.6.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineState {
    /// As the driver configured it.
    pub(super) direction: Direction,
    /// The value that the driver last set; drives the line when it is an output.
    pub(super) value: bool,
    /// What raises the interrupt, while it is enabled.
    pub(super) trigger: Option<Trigger>,
    /// An edge was sensed while the interrupt was masked.
    pub(super) latched: bool,
    /// The driver does not listen: it queued a buffer for a disabled interrupt and got it back, or was told
    /// that enabling failed. Linux's would queue a returned buffer again at once, for ever. So the next is
    /// kept until the driver decides about the interrupt (5.18.7.1: "The driver can do this before
    /// enabling").
    pub(super) deaf: bool,
    /// What the line's level was when it was last seen, while an interrupt is enabled: a daemon that takes over
    /// finds out by it what happened when nobody looked.
    pub(super) level: Option<bool>,
}

impl LineState {
    fn to_word(self) -> u32 {
        let Self { direction, value, trigger, latched, deaf, level } = self;
        let low = u32::from(direction.to_wire())
            | u32::from(value) << 2
            | trigger.map_or(0, Trigger::to_wire) << 3
            | u32::from(latched) << 7
            | u32::from(deaf) << 8
            | u32::from(level.is_some()) << 9
            | u32::from(level == Some(true)) << 10;
        low | (!low & 0xffff) << 16
    }

    fn from_word(word: u32) -> Option<Self> {
        let bit = |number: u32| word & (1 << number) != 0;
        let state = Self {
            direction: Direction::from_wire(word & 0b11)?,
            value: bit(2),
            trigger: Trigger::from_wire(word >> 3 & 0b1111)?,
            latched: bit(7),
            deaf: bit(8),
            level: bit(9).then_some(bit(10)),
        };
        // Also finds bits that mean nothing.
        (state.to_word() == word).then_some(state)
    }
}

/// The words of all lines.
#[derive(Debug)]
pub(super) struct Record {
    tail: Tail,
    lines: u16,
}

impl Record {
    /// Bytes for so many lines.
    pub(super) fn bytes(lines: u16) -> usize {
        (HEADER_WORDS + usize::from(lines)) * Tail::WORD
    }

    pub(super) fn new(tail: Tail, lines: u16) -> Self {
        Self { tail, lines }
    }

    /// Whether there is anything to go on with. There is not at first, and after the driver has reset the device.
    pub(super) fn is_current(&self) -> bool {
        (self.tail.word(0), self.tail.word(1)) == (MAGIC, u32::from(self.lines))
    }

    /// Begins anew, with lines of which nothing is known.
    pub(super) fn begin(&self) {
        self.tail.set_word(0, 0);
        (0..self.lines).for_each(|line| self.set(line, LineState::default()));
        self.tail.set_word(1, self.lines.into());
        self.tail.set_word(0, MAGIC);
    }

    /// What a former daemon knew of a line; nothing where that cannot be read.
    pub(super) fn get(&self, line: u16) -> Option<LineState> {
        LineState::from_word(self.tail.word(HEADER_WORDS + usize::from(line)))
    }

    pub(super) fn set(&self, line: u16, state: LineState) {
        self.tail.set_word(HEADER_WORDS + usize::from(line), state.to_word());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_all_that_is_known_of_a_line() {
        use Trigger::{Both, Falling, High, Low, Rising};
        let mut words = std::collections::HashSet::new();
        for direction in [Direction::None, Direction::Output, Direction::Input] {
            for trigger in [None, Some(Rising), Some(Falling), Some(Both), Some(High), Some(Low)] {
                for level in [None, Some(false), Some(true)] {
                    for flags in 0..8_u8 {
                        let [value, latched, deaf] = [1, 2, 4].map(|flag| flags & flag != 0);
                        let state = LineState { direction, value, trigger, latched, deaf, level };
                        assert_eq!(LineState::from_word(state.to_word()), Some(state));
                        assert!(words.insert(state.to_word()));
                    }
                }
            }
        }
    }

    #[test]
    fn a_word_that_nobody_wrote_says_nothing() {
        for word in [0, u32::MAX, 0x1234_5678, 0xfffc_0003, 0xf7ff_0800, 0xffd7_0028, 0xfbff_0400] {
            assert_eq!(LineState::from_word(word), None, "{word:#x}");
        }
        let word = LineState { direction: Direction::Output, value: true, ..LineState::default() }.to_word();
        for bit in 0..32 {
            assert_eq!(LineState::from_word(word ^ 1 << bit), None, "bit {bit}");
        }
    }
}
