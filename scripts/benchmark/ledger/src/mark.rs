// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a program says to the plugin, by an instruction that does nothing else: `HINT #119` with a number in
//! register 0. Processors have no meaning for that hint, and execute it as NOP (Arm ARM, C6.2, HINT).

/// Which hint it is.
pub const HINT: u32 = 119;

/// What the number in register 0 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A workload begins: a record is written.
    Begin,
    /// A request starts.
    Start,
    /// The request that this domain has started is answered.
    End,
    /// The workload is over: a record is written, with the cost of each request.
    Finish,
    /// The domain's agent is there: a record is written.
    Ready,
    /// An edge is made.
    Edge,
    /// The domain has been told of the edge.
    Event,
}

impl Mark {
    /// The mark with this number.
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

    /// Its number.
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
    fn each_number_is_its_marks() {
        let marks: Vec<Mark> = (0..10).filter_map(Mark::from_number).collect();
        assert_eq!(marks.len(), 7);
        for mark in marks {
            assert_eq!(Mark::from_number(mark.number()), Some(mark));
        }
    }
}
