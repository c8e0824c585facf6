// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Parses the bytes of a guest to a [`GpioRequest`]. No I/O, no state.
//!
//! The line number is not checked here ([`UncheckedLine`]); [`super::policy`] does that.

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
pub enum GpioRequest<L> {
    /// GET_LINE_NAMES; it is about no line, and `gpio` and `value` are ignored.
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

impl<L: Copy> GpioRequest<L> {
    /// Returns the line that the message is about.
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
pub enum MalformedRequest {
    /// The readable part does not have the size of the structure.
    #[error("{got} readable bytes where the structure has {want}")]
    Length {
        /// Bytes in the chain's readable part.
        got: usize,
        /// Size of the structure.
        want: usize,
    },
    /// The `type` field is not a message type.
    #[error("message type {0:#x} does not exist")]
    Type(u16),
    /// The `value` field is not valid for the message.
    #[error("value {value:#x} has no meaning for message type {message:#x}")]
    Value {
        /// The `type` field.
        message: u16,
        /// The `value` field.
        value: u32,
    },
}

/// Parses `struct virtio_gpio_request`.
pub fn parse(bytes: &[u8]) -> Result<GpioRequest<UncheckedLine>, MalformedRequest> {
    let &[t0, t1, g0, g1, v0, v1, v2, v3] = sized::<REQUEST_SIZE>(bytes)?;
    let message = u16::from_le_bytes([t0, t1]);
    let line = UncheckedLine(u16::from_le_bytes([g0, g1]));
    let value = u32::from_le_bytes([v0, v1, v2, v3]);
    let bad_value = MalformedRequest::Value { message, value };
    match message {
        MSG_GET_LINE_NAMES => Ok(GpioRequest::LineNames),
        MSG_GET_DIRECTION => Ok(GpioRequest::GetDirection(line)),
        MSG_SET_DIRECTION => Direction::from_wire(value)
            .map(|direction| GpioRequest::SetDirection(line, direction))
            .ok_or(bad_value),
        MSG_GET_VALUE => Ok(GpioRequest::GetValue(line)),
        MSG_SET_VALUE => match value {
            0 => Ok(GpioRequest::SetValue(line, false)),
            1 => Ok(GpioRequest::SetValue(line, true)),
            _ => Err(bad_value),
        },
        MSG_SET_IRQ_TYPE => {
            Trigger::from_wire(value).map(|trigger| GpioRequest::SetTrigger(line, trigger)).ok_or(bad_value)
        }
        other => Err(MalformedRequest::Type(other)),
    }
}

/// Parses `struct virtio_gpio_irq_request`, which the driver queues to unmask a line (5.18.7).
pub fn parse_unmask(bytes: &[u8]) -> Result<UncheckedLine, MalformedRequest> {
    sized::<IRQ_REQUEST_SIZE>(bytes).map(|gpio| UncheckedLine(u16::from_le_bytes(*gpio)))
}

/// Returns the bytes as an array, if there are exactly `N`.
fn sized<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], MalformedRequest> {
    bytes.try_into().map_err(|_| MalformedRequest::Length { got: bytes.len(), want: N })
}

/// Returns `struct virtio_gpio_response` of a request that succeeded with `value`, or failed. The value of a
/// failed request is zero ("The device MUST set all the fields", 5.18.6.9).
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
            (1, 0, GpioRequest::LineNames),
            (2, 0, GpioRequest::GetDirection(line)),
            (3, 0, GpioRequest::SetDirection(line, Direction::None)),
            (3, 1, GpioRequest::SetDirection(line, Direction::Output)),
            (3, 2, GpioRequest::SetDirection(line, Direction::Input)),
            (4, 0, GpioRequest::GetValue(line)),
            (5, 0, GpioRequest::SetValue(line, false)),
            (5, 1, GpioRequest::SetValue(line, true)),
            (6, 0, GpioRequest::SetTrigger(line, None)),
            (6, 3, GpioRequest::SetTrigger(line, Some(Trigger::Both))),
            (6, 8, GpioRequest::SetTrigger(line, Some(Trigger::Low))),
        ];
        for (message, value, expected) in cases {
            assert_eq!(parse(&request(message, 0x1234, value)), Ok(expected));
        }
    }

    #[test]
    fn messages_and_values_that_5_18_6_does_not_define_are_refused() {
        for message in [0, 7, 0x100, u16::MAX] {
            assert_eq!(parse(&request(message, 0, 0)), Err(MalformedRequest::Type(message)));
        }
        // Also where the low byte alone would be valid.
        for (message, value) in [(3, 3), (3, 0x101), (5, 2), (5, 0x1_0001), (6, 5), (6, 0x10)] {
            let refused = parse(&request(message, 0, value));
            assert_eq!(refused, Err(MalformedRequest::Value { message, value }));
        }
    }

    #[test]
    fn a_structure_of_another_size_is_refused() {
        for got in (0..32).filter(|&got| got != REQUEST_SIZE) {
            let want = REQUEST_SIZE;
            assert_eq!(parse(&vec![1; got]), Err(MalformedRequest::Length { got, want }));
        }
        for got in [0, 1, 3, 8] {
            let want = IRQ_REQUEST_SIZE;
            let refused = parse_unmask(&vec![0; got]);
            assert_eq!(refused, Err(MalformedRequest::Length { got, want }));
        }
        assert_eq!(parse_unmask(&[5, 1]), Ok(UncheckedLine(0x105)));
    }
}
