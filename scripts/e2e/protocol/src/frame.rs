// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One line of the console channel: a frame that cannot be mistaken for anything else on the console.
//!
//! ```text
//! '@' base64( kind  sequence  agent  index|LAST  payload…  crc32 ) '\n'
//!              1       1        2        2                   4      bytes, little-endian
//! ```
//!
//! Two limits of Xen's emulated PL011 (xen/arch/arm/vpl011.c) rule the sizes. Towards a domain there is a
//! FIFO of 32 characters, and what does not fit is dropped: a frame to an agent is shorter than that, and the
//! next one is sent when the agent has acknowledged it. From a domain that has not the input focus Xen prints
//! whole lines, cut at 126 characters: a frame from an agent is shorter than that. Whatever else is printed
//! in between (the domain's kernel, Xen, another domain) either stands on a line of its own or damages the
//! checksum. Xen may lose its mark of who printed a line, so a frame names the agent that it comes from or
//! goes to.

use alloc::{format, string::String, vec, vec::Vec};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};

/// What opens a frame: a character that base64 does not know.
const MARK: char = '@';
/// kind, sequence, agent, index.
const HEADER: usize = 6;
/// The CRC-32 at the end.
const CHECKSUM: usize = 4;
/// Marks the last frame of a message, in the index.
const LAST: u16 = 0x8000;

/// Payload of one frame towards a domain: with mark and newline 30 of the 32 characters of the FIFO.
pub const PAYLOAD_TO_AGENT: usize = 11;
/// Payload of one frame from a domain: with mark and newline 122 of the 126 characters of a line.
pub const PAYLOAD_TO_HOST: usize = 80;

/// What a frame is for. The first two go to an agent, the others come from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of a request.
    Request,
    /// Asks for the answer again, from the given index.
    Fetch,
    /// An agent has started and waits for its first request.
    Hello,
    /// The request's parts before this index have arrived.
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
    /// What it is for.
    pub kind: Kind,
    /// The number that an agent gives itself when it starts.
    pub agent: u16,
    /// Which exchange it belongs to.
    pub sequence: u8,
    /// Its place in the message.
    pub index: u16,
    /// Whether the message ends with it.
    pub last: bool,
    /// A part of the message.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame without payload.
    #[must_use]
    pub fn signal(kind: Kind, agent: u16, sequence: u8, index: u16) -> Self {
        Self { kind, agent, sequence, index, last: false, payload: Vec::new() }
    }

    /// The frames that carry `message`, each with at most `limit` bytes of it; at least one.
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

    /// The line, with its newline.
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

    /// The frame at the end of `line`, if it is there undamaged.
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

/// Puts a message together from frames that may arrive twice, late or not at all.
#[derive(Debug, Default)]
pub struct Assembly {
    parts: Vec<Option<Vec<u8>>>,
    count: Option<usize>,
}

impl Assembly {
    /// Takes one frame in.
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

    /// The first place at which nothing has arrived.
    #[must_use]
    pub fn first_missing(&self) -> u16 {
        let missing = self.parts.iter().position(Option::is_none).unwrap_or(self.parts.len());
        u16::try_from(missing).unwrap_or(LAST - 1)
    }

    /// The message, if all of it is there.
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
    fn a_frame_survives_the_line() {
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
    fn lines_fit_into_what_xen_takes_and_prints() {
        let longest = |limit| {
            let frames = Frame::split(Kind::Answer, 65535, 255, &vec![0xa5; limit], limit);
            frames.iter().map(|frame| frame.to_line().len()).max()
        };
        assert!(longest(PAYLOAD_TO_AGENT) <= Some(31));
        assert!(longest(PAYLOAD_TO_HOST) <= Some(124));
    }

    #[test]
    fn any_damaged_character_is_noticed() {
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
    fn a_message_is_put_together_in_any_order() {
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
