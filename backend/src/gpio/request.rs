// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Parse: bytes of a guest become a [`Request`], or a reason why they do not. No I/O, no state.
//!
//! The line number is still an allegation here ([`UncheckedLine`]); [`super::policy`] turns it into
//! a line.

use thiserror::Error;

use super::spec::{
    Direction, IRQ_REQUEST_SIZE, MSG_GET_DIRECTION, MSG_GET_LINE_NAMES, MSG_GET_VALUE, MSG_SET_DIRECTION,
    MSG_SET_IRQ_TYPE, MSG_SET_VALUE, REQUEST_SIZE, RESPONSE_SIZE, STATUS_ERR, STATUS_OK, Trigger,
};

/// A line number as the guest wrote it: any `u16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UncheckedLine(pub u16);

/// A message of the request queue (virtio 1.3, 5.18.6), about a line of type `L`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<L> {
    /// GET_LINE_NAMES; it is about no line, and `gpio` and `value` are not looked at.
    LineNames,
    /// GET_DIRECTION.
    GetDirection(L),
    /// SET_DIRECTION.
    SetDirection(L, Direction),
    /// GET_VALUE.
    GetValue(L),
    /// SET_VALUE.
    SetValue(L, bool),
    /// SET_IRQ_TYPE; `None` disables the interrupt.
    SetTrigger(L, Option<Trigger>),
}

impl<L: Copy> Request<L> {
    /// The line that the message is about.
    pub fn line(&self) -> Option<L> {
        match *self {
            Self::LineNames => None,
            Self::GetDirection(line)
            | Self::SetDirection(line, _)
            | Self::GetValue(line)
            | Self::SetValue(line, _)
            | Self::SetTrigger(line, _) => Some(line),
        }
    }
}

/// Why bytes are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The readable part has not the size of the structure it should be.
    #[error("{got} readable bytes where the structure has {want}")]
    Length {
        /// Bytes in the chain's readable part.
        got: usize,
        /// Size of the structure.
        want: usize,
    },
    /// The `type` field names no message.
    #[error("message type {0:#x} does not exist")]
    Type(u16),
    /// The `value` field is none of those the message has.
    #[error("value {value:#x} has no meaning for message type {message:#x}")]
    Value {
        /// The `type` field.
        message: u16,
        /// The `value` field.
        value: u32,
    },
}

/// Parses `struct virtio_gpio_request`.
pub fn parse(bytes: &[u8]) -> Result<Request<UncheckedLine>, Malformed> {
    let &[t0, t1, g0, g1, v0, v1, v2, v3] = sized::<REQUEST_SIZE>(bytes)?;
    let message = u16::from_le_bytes([t0, t1]);
    let line = UncheckedLine(u16::from_le_bytes([g0, g1]));
    let value = u32::from_le_bytes([v0, v1, v2, v3]);
    let bad_value = Malformed::Value { message, value };
    match message {
        MSG_GET_LINE_NAMES => Ok(Request::LineNames),
        MSG_GET_DIRECTION => Ok(Request::GetDirection(line)),
        MSG_SET_DIRECTION => Direction::from_wire(value)
            .map(|direction| Request::SetDirection(line, direction))
            .ok_or(bad_value),
        MSG_GET_VALUE => Ok(Request::GetValue(line)),
        MSG_SET_VALUE => match value {
            0 => Ok(Request::SetValue(line, false)),
            1 => Ok(Request::SetValue(line, true)),
            _ => Err(bad_value),
        },
        MSG_SET_IRQ_TYPE => {
            Trigger::from_wire(value).map(|trigger| Request::SetTrigger(line, trigger)).ok_or(bad_value)
        }
        other => Err(Malformed::Type(other)),
    }
}

/// Parses `struct virtio_gpio_irq_request`, what the driver queues to unmask a line (5.18.7).
pub fn parse_unmask(bytes: &[u8]) -> Result<UncheckedLine, Malformed> {
    sized::<IRQ_REQUEST_SIZE>(bytes).map(|gpio| UncheckedLine(u16::from_le_bytes(*gpio)))
}

/// The bytes as an array, if they are exactly `N`.
fn sized<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], Malformed> {
    bytes.try_into().map_err(|_| Malformed::Length { got: bytes.len(), want: N })
}

/// `struct virtio_gpio_response`, of a request that worked or of one that failed. On failure the
/// value means nothing and is zero ("The device MUST set all the fields", 5.18.6.9).
pub fn response(value: Option<u8>) -> [u8; RESPONSE_SIZE] {
    match value {
        Some(value) => [STATUS_OK, value],
        None => [STATUS_ERR, 0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(message: u16, line: u16, value: u32) -> Vec<u8> {
        let mut bytes = message.to_le_bytes().to_vec();
        bytes.extend(line.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes
    }

    #[test]
    fn every_message_of_5_18_6_parses() {
        let line = UncheckedLine(0x1234);
        let cases = [
            (1, 0, Request::LineNames),
            (2, 0, Request::GetDirection(line)),
            (3, 0, Request::SetDirection(line, Direction::None)),
            (3, 1, Request::SetDirection(line, Direction::Output)),
            (3, 2, Request::SetDirection(line, Direction::Input)),
            (4, 0, Request::GetValue(line)),
            (5, 0, Request::SetValue(line, false)),
            (5, 1, Request::SetValue(line, true)),
            (6, 0, Request::SetTrigger(line, None)),
            (6, 3, Request::SetTrigger(line, Some(Trigger::Both))),
            (6, 8, Request::SetTrigger(line, Some(Trigger::Low))),
        ];
        for (message, value, expected) in cases {
            assert_eq!(parse(&request(message, 0x1234, value)), Ok(expected));
        }
    }

    #[test]
    fn what_5_18_6_does_not_know_is_refused() {
        for message in [0, 7, 0x100, u16::MAX] {
            assert_eq!(parse(&request(message, 0, 0)), Err(Malformed::Type(message)));
        }
        // A value that only looks right in its low byte is wrong.
        for (message, value) in [(3, 3), (3, 0x101), (5, 2), (5, 0x1_0001), (6, 5), (6, 0x10)] {
            let refused = parse(&request(message, 0, value));
            assert_eq!(refused, Err(Malformed::Value { message, value }));
        }
    }

    #[test]
    fn a_structure_of_another_size_is_refused() {
        for got in (0..32).filter(|&got| got != REQUEST_SIZE) {
            let want = REQUEST_SIZE;
            assert_eq!(parse(&vec![1; got]), Err(Malformed::Length { got, want }));
        }
        for got in [0, 1, 3, 8] {
            let want = IRQ_REQUEST_SIZE;
            let refused = parse_unmask(&vec![0; got]);
            assert_eq!(refused, Err(Malformed::Length { got, want }));
        }
        assert_eq!(parse_unmask(&[5, 1]), Ok(UncheckedLine(0x105)));
    }
}
