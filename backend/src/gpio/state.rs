// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state of the lines, and its copy in the in-flight record.
//!
//! The [`DeviceRecord`] has a word for each line, after a header of two. A word is written by one store, and
//! its upper half is the complement of the lower. So a daemon that is killed at any time leaves valid words,
//! and a word that was never written, or is forged, is recognised. A word is written after the hardware was
//! set up for it. A request during which the daemon died is answered with an error, and undone if its word
//! was not yet written.
//! ```text
//!  bit  31      16 15    11 10     9    8     7     6 5 4 3 2     1 0
//!      ┌──────────┬────────┬─────┬─────┬─────┬─────┬───────┬─────┬─────────┐
//!      │ not(low) │   0    │level│known│keep │latch│trigger│value│direction│
//!      └──────────┴────────┴─────┴─────┴─────┴─────┴───────┴─────┴─────────┘
//! ```

use crate::inflight::DeviceRecord;

use super::spec::{Direction, Trigger};

/// "GP", and the version of this layout.
const MAGIC: u32 = 0x4750_0001;

/// Words of the header.
const HEADER_WORDS: usize = 2;

/// The state of a line. All of it is cleared when the driver sets the direction to NONE ("The device MUST
/// discard all state information", 5.18.6.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineState {
    /// As the driver configured it.
    pub(super) direction: Direction,
    /// The value that the driver set last; it drives the line when it is an output.
    pub(super) value: bool,
    /// What raises the interrupt, while it is enabled.
    pub(super) trigger: Option<Trigger>,
    /// An edge came while the interrupt was masked.
    pub(super) latched: bool,
    /// The next buffer is kept, though the interrupt is disabled: the driver queued one for a disabled
    /// interrupt and got it back, or enabling failed. Linux's driver would queue a returned buffer again at
    /// once, for ever. (5.18.7.1: "The driver can do this before enabling".) Ends when the driver enables or
    /// disables the interrupt.
    pub(super) keep_buffer: bool,
    /// The level that was seen last while the interrupt is enabled. A daemon that takes over compares it with
    /// the present level to find an edge that came in between.
    pub(super) level: Option<bool>,
}

impl LineState {
    fn to_word(self) -> u32 {
        let Self { direction, value, trigger, latched, keep_buffer, level } = self;
        let low = u32::from(direction.to_wire())
            | u32::from(value) << 2
            | trigger.map_or(0, Trigger::to_wire) << 3
            | u32::from(latched) << 7
            | u32::from(keep_buffer) << 8
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
            keep_buffer: bit(8),
            level: bit(9).then_some(bit(10)),
        };
        // The comparison also finds reserved bits that are set.
        (state.to_word() == word).then_some(state)
    }
}

/// The states of all lines in the in-flight record.
#[derive(Debug)]
pub(super) struct LineRecord {
    record: DeviceRecord,
    lines: u16,
}

impl LineRecord {
    /// Returns the size of a record of so many lines in bytes.
    pub(super) fn bytes(lines: u16) -> usize {
        (HEADER_WORDS + usize::from(lines)) * DeviceRecord::WORD
    }

    pub(super) fn new(record: DeviceRecord, lines: u16) -> Self {
        Self { record, lines }
    }

    /// Whether the record has states. A new record has none, and neither has one after the driver has reset
    /// the device.
    pub(super) fn is_valid(&self) -> bool {
        (self.record.word(0), self.record.word(1)) == (MAGIC, u32::from(self.lines))
    }

    /// Writes the header and the default state of all lines.
    pub(super) fn clear(&self) {
        self.record.set_word(0, 0);
        (0..self.lines).for_each(|line| self.set(line, LineState::default()));
        self.record.set_word(1, self.lines.into());
        self.record.set_word(0, MAGIC);
    }

    /// Reads the state of a line, unless its word is invalid.
    pub(super) fn get(&self, line: u16) -> Option<LineState> {
        LineState::from_word(self.record.word(HEADER_WORDS + usize::from(line)))
    }

    pub(super) fn set(&self, line: u16, state: LineState) {
        self.record.set_word(HEADER_WORDS + usize::from(line), state.to_word());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_of_its_own() {
        use Trigger::{Both, Falling, High, Low, Rising};
        let mut words = std::collections::HashSet::new();
        for direction in [Direction::None, Direction::Output, Direction::Input] {
            for trigger in [None, Some(Rising), Some(Falling), Some(Both), Some(High), Some(Low)] {
                for level in [None, Some(false), Some(true)] {
                    for flags in 0..8_u8 {
                        let [value, latched, keep_buffer] = [1, 2, 4].map(|flag| flags & flag != 0);
                        let state = LineState { direction, value, trigger, latched, keep_buffer, level };
                        assert_eq!(LineState::from_word(state.to_word()), Some(state));
                        assert!(words.insert(state.to_word()));
                    }
                }
            }
        }
    }

    #[test]
    fn an_invalid_word_has_no_state() {
        for word in [0, u32::MAX, 0x1234_5678, 0xfffc_0003, 0xf7ff_0800, 0xffd7_0028, 0xfbff_0400] {
            assert_eq!(LineState::from_word(word), None, "{word:#x}");
        }
        let word = LineState { direction: Direction::Output, value: true, ..LineState::default() }.to_word();
        for bit in 0..32 {
            assert_eq!(LineState::from_word(word ^ 1 << bit), None, "bit {bit}");
        }
    }
}
