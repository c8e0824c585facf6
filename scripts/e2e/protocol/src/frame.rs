// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A frame: one line of the console, which differs from all other lines.
//!
//! ```text
//! '@' base64( kind  sequence  agent  index|LAST  payload…  crc32 ) '\n'
//!              1       1        2        2                   4      bytes, little-endian
//! ```
//!
//! The sizes follow from two limits of Xen's emulated PL011 (xen/arch/arm/vpl011.c):
//!
//! - Towards a domain there is a FIFO of 32 characters, and Xen drops what does not fit. A frame to an agent
//!   is shorter, and the host sends the next one when the agent has acknowledged it.
//! - Of a domain without the input focus Xen prints whole lines, cut at 126 characters. A frame from an agent
//!   is shorter.
//!
//! Other output (of the domain's kernel, of Xen, of another domain) is on lines of its own or damages the
//! checksum. Xen's mark of the domain that printed a line may be lost, so a frame has the number of the agent
//! that it comes from or goes to.

use alloc::{format, string::String, vec, vec::Vec};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};

/// The first character of a frame, which base64 does not use.
const MARK: char = '@';
/// The length of kind, sequence, agent and index.
const HEADER: usize = 6;
/// The length of the CRC-32 at the end.
const CHECKSUM: usize = 4;
/// The bit of the index that marks the last frame of a message.
const LAST: u16 = 0x8000;

/// The payload of a frame towards a domain: with mark and newline 30 of the 32 characters of the FIFO.
pub const PAYLOAD_TO_AGENT: usize = 11;
/// The payload of a frame from a domain: with mark and newline 122 of the 126 characters of a line.
pub const PAYLOAD_TO_HOST: usize = 80;

/// The kind of a frame. The host sends the first two, agents the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of a request.
    Request,
    /// Requests the answer again, from the given index.
    Fetch,
    /// The agent has started and waits for its first request.
    Hello,
    /// The parts of the request before this index have arrived.
    Accepted,
    /// A part of the answer.
    Answer,
    /// The request is still being executed.
    Busy,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Request, Self::Fetch, Self::Hello, Self::Accepted, Self::Answer, Self::Busy];

    fn code(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Fetch => 1,
            Self::Hello => 2,
            Self::Accepted => 3,
            Self::Answer => 4,
            Self::Busy => 5,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: Kind,
    /// The number that the agent gave itself when it started.
    pub agent: u16,
    /// The number of the exchange.
    pub sequence: u8,
    /// The place of the payload in the message.
    pub index: u16,
    /// Whether this is the last frame of the message.
    pub last: bool,
    /// A part of the message.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Creates a frame without payload.
    #[must_use]
    pub fn signal(kind: Kind, agent: u16, sequence: u8, index: u16) -> Self {
        Self { kind, agent, sequence, index, last: false, payload: Vec::new() }
    }

    /// Divides a message into frames with at most `limit` bytes each; at least one.
    #[must_use]
    pub fn split(kind: Kind, agent: u16, sequence: u8, message: &[u8], limit: usize) -> Vec<Self> {
        let count = message.len().div_ceil(limit).max(1);
        (0..count)
            .map(|place| {
                let payload = message.iter().skip(place * limit).take(limit).copied().collect();
                let index = u16::try_from(place).unwrap_or(LAST - 1);
                Self { kind, agent, sequence, index, last: place + 1 == count, payload }
            })
            .collect()
    }

    /// Returns the line, with its newline.
    #[must_use]
    pub fn to_line(&self) -> String {
        let index = (self.index & !LAST) | if self.last { LAST } else { 0 };
        let mut bytes = vec![self.kind.code(), self.sequence];
        bytes.extend(self.agent.to_le_bytes());
        bytes.extend(index.to_le_bytes());
        bytes.extend(&self.payload);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        format!("{MARK}{}\n", BASE64_STANDARD_NO_PAD.encode(bytes))
    }

    /// Parses the frame at the end of a line. Returns `None` if there is none or it is damaged.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let (_, text) = line.rsplit_once(MARK)?;
        let bytes = BASE64_STANDARD_NO_PAD.decode(text.trim_end()).ok()?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (&[code, sequence, agent_low, agent_high, low, high], payload) =
            body.split_first_chunk::<HEADER>()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code)?;
        let agent = u16::from_le_bytes([agent_low, agent_high]);
        let index = u16::from_le_bytes([low, high]);
        let last = index & LAST != 0;
        Some(Self { kind, agent, sequence, index: index & !LAST, last, payload: payload.to_vec() })
    }
}

/// Assembles a message from frames that may arrive twice, late or not at all.
#[derive(Debug, Default)]
pub struct Assembly {
    parts: Vec<Option<Vec<u8>>>,
    count: Option<usize>,
}

impl Assembly {
    /// Adds a frame.
    pub fn add(&mut self, frame: Frame) {
        let place = usize::from(frame.index);
        if self.parts.len() <= place {
            self.parts.resize(place + 1, None);
        }
        if frame.last {
            self.count = Some(place + 1);
        }
        if let Some(part) = self.parts.get_mut(place) {
            *part = Some(frame.payload);
        }
    }

    /// Returns the index of the first missing frame.
    #[must_use]
    pub fn first_missing(&self) -> u16 {
        let missing = self.parts.iter().position(Option::is_none).unwrap_or(self.parts.len());
        u16::try_from(missing).unwrap_or(LAST - 1)
    }

    /// Returns the message, if it is complete.
    #[must_use]
    pub fn message(&self) -> Option<Vec<u8>> {
        let parts = self.parts.get(..self.count?)?;
        let parts: Option<Vec<&[u8]>> = parts.iter().map(Option::as_deref).collect();
        Some(parts?.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_same_after_encoding_and_decoding() {
        let frame = Frame {
            kind: Kind::Answer,
            agent: 99,
            sequence: 7,
            index: 3,
            last: true,
            payload: vec![0, 255, 10, 64],
        };
        assert_eq!(Frame::from_line(&frame.to_line()), Some(frame.clone()));
        assert_eq!(Frame::from_line(&format!("[  1.0] noise @ x {}", frame.to_line())), Some(frame));
    }

    #[test]
    fn frames_fit_into_the_limits_of_xen() {
        let longest = |limit| {
            let frames = Frame::split(Kind::Answer, 65535, 255, &vec![0xa5; limit], limit);
            frames.iter().map(|frame| frame.to_line().len()).max()
        };
        assert!(longest(PAYLOAD_TO_AGENT) <= Some(31));
        assert!(longest(PAYLOAD_TO_HOST) <= Some(124));
    }

    #[test]
    fn any_damaged_character_is_detected() {
        let line = Frame::split(Kind::Answer, 9, 1, b"twenty-one degrees", 64)[0].to_line();
        for place in 0..line.len() - 1 {
            let mut damaged = line.clone().into_bytes();
            damaged[place] = if damaged[place] == b'x' { b'y' } else { b'x' };
            assert_eq!(Frame::from_line(&String::from_utf8(damaged).unwrap()), None, "at {place}");
            let mut shortened = line.clone();
            shortened.remove(place);
            assert_eq!(Frame::from_line(&shortened), None, "without {place}");
            let mut interrupted = line.clone();
            interrupted.insert_str(place.max(1), "\n(XEN) DOM3: hello\n");
            assert!(interrupted.lines().all(|line| Frame::from_line(line).is_none()), "cut at {place}");
        }
    }

    #[test]
    fn frames_in_any_order_are_assembled() {
        let message: Vec<u8> = (0..=255).collect();
        let mut frames = Frame::split(Kind::Answer, 9, 1, &message, PAYLOAD_TO_HOST);
        frames.reverse();
        frames.push(frames[1].clone());
        let mut assembly = Assembly::default();
        let missing = frames.pop().unwrap();
        let first = frames.pop().unwrap();
        frames.into_iter().for_each(|frame| assembly.add(frame));
        assert_eq!((assembly.first_missing(), assembly.message()), (0, None));
        assembly.add(missing);
        assembly.add(first);
        assert_eq!(assembly.message(), Some(message));
    }

    #[test]
    fn an_empty_message_is_one_frame() {
        let mut assembly = Assembly::default();
        Frame::split(Kind::Request, 9, 0, &[], 10).into_iter().for_each(|frame| assembly.add(frame));
        assert_eq!(assembly.message(), Some(Vec::new()));
    }
}
