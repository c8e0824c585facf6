// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The framing of vhost-user messages (vhost-user specification, "Header"), shared by both channels of a
//! connection.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::VhostUserHeaderFlag;

/// Bytes of a header.
pub(super) const HEADER: usize = 12;
/// The protocol version, in bits 0 and 1 of a header's flags.
pub(super) const VERSION: u32 = 1;
/// The flag of a reply.
pub(super) const REPLY: u32 = VhostUserHeaderFlag::REPLY.bits();
/// The flag of a request to which the sender expects a reply.
pub(super) const NEED_REPLY: u32 = VhostUserHeaderFlag::NEED_REPLY.bits();

/// The header of a message: request, flags and length of the payload, in the byte order of the machine.
pub(super) fn header(request: u32, flags: u32, payload: usize) -> Vec<u8> {
    // No payload of this program is longer than a page.
    let length = u32::try_from(payload).unwrap_or(u32::MAX);
    [request, flags, length].map(u32::to_ne_bytes).concat()
}

/// Reads from a non-blocking socket until `buffer` holds `length` bytes, and never beyond. False if the
/// socket has no more for now; what has been read stays in `buffer`.
///
/// # Errors
/// `UnexpectedEof` if the peer has closed the connection, and what the socket reports.
pub(super) fn read_up_to(mut socket: &UnixStream, buffer: &mut Vec<u8>, length: usize) -> io::Result<bool> {
    let missing = u64::try_from(length.saturating_sub(buffer.len())).unwrap_or(u64::MAX);
    match socket.by_ref().take(missing).read_to_end(buffer) {
        Ok(_) if buffer.len() < length => Err(ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
