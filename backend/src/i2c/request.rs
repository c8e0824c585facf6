// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Parses the bytes of a chain to an I2C message. No I/O, no state.

use super::spec::{Header, RequestedAddress};

/// A message of a transaction, as requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct I2cRequest {
    pub(crate) address: RequestedAddress,
    pub(crate) direction: Direction,
    /// Length of the message in bytes, which may be 0.
    pub(crate) length: usize,
}

/// The direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Write,
    Read,
}

/// The content of a chain, even if it is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) request: Result<I2cRequest, MalformedRequest>,
    /// Whether the next request belongs to the same group. `None` if there is no header.
    pub(crate) fail_next: Option<bool>,
}

/// Why a chain is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedRequest {
    #[error("shorter than its header")]
    Header,
    #[error("no room for a status")]
    Status,
    #[error("reserved flags are set")]
    Flags,
    #[error("neither a 7-bit nor a 10-bit address")]
    Address,
    #[error("the direction of its buffer does not match its flags")]
    Direction,
}

/// Offset of the data of a write in its chain.
pub(crate) const DATA: usize = Header::BYTES;

/// Parses what the driver wrote, and the room for the answer (virtio 1.3, 5.16.6).
pub(crate) fn parse(written: &[u8], room: usize) -> Parsed {
    match Header::split(written) {
        None => Parsed { request: Err(MalformedRequest::Header), fail_next: None },
        Some((header, data)) => {
            Parsed { request: message(header, data.len(), room), fail_next: Some(header.fail_next()) }
        }
    }
}

fn message(header: Header, written: usize, room: usize) -> Result<I2cRequest, MalformedRequest> {
    // The status is the last byte that the device may write; the bytes before it are the buffer of a read.
    let readable = room.checked_sub(1).ok_or(MalformedRequest::Status)?;
    if header.has_reserved_flags() {
        return Err(MalformedRequest::Flags);
    }
    let (direction, length) = match (header.reads(), written, readable) {
        (true, 0, length) => (Direction::Read, length),
        (false, length, 0) => (Direction::Write, length),
        _ => return Err(MalformedRequest::Direction),
    };
    let address = header.address.decode().ok_or(MalformedRequest::Address)?;
    Ok(I2cRequest { address, direction, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u32) -> Vec<u8> {
        [&[0x90, 0, 0, 0], &flags.to_le_bytes()[..]].concat()
    }

    fn with(flags: u32, data: &[u8], room: usize) -> Result<I2cRequest, MalformedRequest> {
        parse(&[&header(flags), data].concat(), room).request
    }

    #[test]
    fn reads_and_writes_of_any_length_are_parsed() {
        let address = RequestedAddress::SevenBit(0x48);
        let write = I2cRequest { address, direction: Direction::Write, length: 2 };
        assert_eq!(with(0, &[1, 2], 1), Ok(write));
        assert_eq!(with(0, &[], 1), Ok(I2cRequest { length: 0, ..write }));
        let read = I2cRequest { address, direction: Direction::Read, length: 2 };
        assert_eq!(with(2, &[], 3), Ok(read));
        assert_eq!(with(2, &[], 1), Ok(I2cRequest { length: 0, ..read }));
    }

    #[test]
    fn malformed_requests_are_errors() {
        assert_eq!(with(0, &[1], 0), Err(MalformedRequest::Status));
        assert_eq!(with(4, &[1], 1), Err(MalformedRequest::Flags));
        assert_eq!(
            with(0, &[1], 2),
            Err(MalformedRequest::Direction),
            "a write with a buffer for the device"
        );
        assert_eq!(with(2, &[1], 2), Err(MalformedRequest::Direction), "a read with a buffer of the driver");
        assert_eq!(parse(&[0x91, 0, 0, 0, 0, 0, 0, 0], 1).request, Err(MalformedRequest::Address));
        assert_eq!(parse(&[], 0), Parsed { request: Err(MalformedRequest::Header), fail_next: None });
    }

    #[test]
    fn a_malformed_request_with_a_header_tells_whether_it_ends_its_group() {
        assert_eq!(parse(&header(1), 0).fail_next, Some(true));
        assert_eq!(parse(&header(0), 0).fail_next, Some(false));
    }
}
