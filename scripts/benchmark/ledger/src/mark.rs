// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Marks: a program signals the plugin by `HINT #119` with a number in register 0. Processors execute this
//! hint as NOP (Arm ARM, C6.2, HINT).

/// The number of the hint.
pub const HINT: u32 = 119;

/// The meaning of the number in register 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A workload begins. Causes a record.
    Begin,
    /// A request starts.
    Start,
    /// The request that this domain has started has ended.
    End,
    /// The workload has ended. Causes a record with the cost of each request.
    Finish,
    /// The domain's agent has started. Causes a record.
    Ready,
    /// An edge is made.
    Edge,
    /// The domain has received the event of the edge.
    Event,
}

impl Mark {
    /// Returns the mark with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Begin,
            2 => Self::Start,
            3 => Self::End,
            4 => Self::Finish,
            5 => Self::Ready,
            6 => Self::Edge,
            7 => Self::Event,
            _ => return None,
        })
    }

    /// Returns the number of the mark.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Self::Begin => 1,
            Self::Start => 2,
            Self::End => 3,
            Self::Finish => 4,
            Self::Ready => 5,
            Self::Edge => 6,
            Self::Event => 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_that_of_its_mark() {
        let marks: Vec<Mark> = (0..10).filter_map(Mark::from_number).collect();
        assert_eq!(marks.len(), 7);
        for mark in marks {
            assert_eq!(Mark::from_number(mark.number()), Some(mark));
        }
    }
}
