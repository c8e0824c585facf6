// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From the bytes of a chain to an I2C message that the guest asks for. Nothing is looked up, nothing is done.

use super::spec::{Header, RequestedAddress};

/// One message of a transaction, as requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) address: RequestedAddress,
    pub(crate) direction: Direction,
    /// Length of the message. Zero is allowed.
    pub(crate) length: usize,
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Write,
    Read,
}

/// What a chain says, even if it does not make a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) request: Result<Request, Bad>,
    /// Whether the next request belongs to the same group. Unknown where there is no header to say so.
    pub(crate) fail_next: Option<bool>,
}

/// Why a chain is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    #[error("it is shorter than its header")]
    Header,
    #[error("it has no room for a status")]
    Status,
    #[error("it sets reserved flags")]
    Flags,
    #[error("its address has neither of the two forms")]
    Address,
    #[error("its buffer is not of the direction that its flags say")]
    Direction,
}

/// Where the data of a write begins in its chain.
pub(crate) const DATA: usize = Header::BYTES;

/// Parses what the driver wrote, and the room it left for the answer (virtio 1.3, 5.16.6).
pub(crate) fn parse(written: &[u8], room: usize) -> Parsed {
    match Header::split(written) {
        None => Parsed { request: Err(Bad::Header), fail_next: None },
        Some((header, data)) => {
            Parsed { request: message(header, data.len(), room), fail_next: Some(header.fail_next()) }
        }
    }
}

fn message(header: Header, written: usize, room: usize) -> Result<Request, Bad> {
    // The status is the last byte of what the device may write; what is before it is the buffer of a read.
    let readable = room.checked_sub(1).ok_or(Bad::Status)?;
    if header.has_reserved_flags() {
        return Err(Bad::Flags);
    }
    let (direction, length) = match (header.reads(), written, readable) {
        (true, 0, length) => (Direction::Read, length),
        (false, length, 0) => (Direction::Write, length),
        _ => return Err(Bad::Direction),
    };
    let address = header.address.decode().ok_or(Bad::Address)?;
    Ok(Request { address, direction, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u32) -> Vec<u8> {
        [&[0x90, 0, 0, 0], &flags.to_le_bytes()[..]].concat()
    }

    fn with(flags: u32, data: &[u8], room: usize) -> Result<Request, Bad> {
        parse(&[&header(flags), data].concat(), room).request
    }

    #[test]
    fn reads_and_writes_of_any_length() {
        let address = RequestedAddress::SevenBit(0x48);
        let write = Request { address, direction: Direction::Write, length: 2 };
        assert_eq!(with(0, &[1, 2], 1), Ok(write));
        assert_eq!(with(0, &[], 1), Ok(Request { length: 0, ..write }));
        let read = Request { address, direction: Direction::Read, length: 2 };
        assert_eq!(with(2, &[], 3), Ok(read));
        assert_eq!(with(2, &[], 1), Ok(Request { length: 0, ..read }));
    }

    #[test]
    fn what_is_not_a_message() {
        assert_eq!(with(0, &[1], 0), Err(Bad::Status));
        assert_eq!(with(4, &[1], 1), Err(Bad::Flags));
        assert_eq!(with(0, &[1], 2), Err(Bad::Direction), "a write has no buffer for the device");
        assert_eq!(with(2, &[1], 2), Err(Bad::Direction), "a read has no buffer of the driver");
        assert_eq!(parse(&[0x91, 0, 0, 0, 0, 0, 0, 0], 1).request, Err(Bad::Address));
        assert_eq!(parse(&[], 0), Parsed { request: Err(Bad::Header), fail_next: None });
    }

    #[test]
    fn a_bad_message_still_says_whether_it_is_the_last_of_its_group() {
        assert_eq!(parse(&header(1), 0).fail_next, Some(true));
        assert_eq!(parse(&header(0), 0).fail_next, Some(false));
    }
}
