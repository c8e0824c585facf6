// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Takes ownership of descriptors that the parent process passed by number.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SocketType, sockopt};

/// Returns the stream socket that the parent passed as descriptor `number`.
///
/// # Errors
/// When there is no such descriptor, or it is not a stream socket.
pub(crate) fn stream(number: RawFd) -> io::Result<UnixStream> {
    let stream = socket(number, SocketType::STREAM)?;
    Ok(stream.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a stream socket"))?.into())
}

/// Returns the datagram socket that the parent passed as descriptor `number`.
///
/// # Errors
/// When there is no such descriptor, or it is not a datagram socket.
pub(crate) fn datagram(number: RawFd) -> io::Result<OwnedFd> {
    let datagram = socket(number, SocketType::DGRAM)?;
    datagram.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a datagram socket"))
}

/// Returns the socket that the parent passed as descriptor `number`, if it is of type `wanted`.
fn socket(number: RawFd, wanted: SocketType) -> io::Result<Option<OwnedFd>> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the borrow ends in this function. If `number` is not open, the kernel answers EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if sockopt::socket_type(borrowed)? != wanted {
        return Ok(None);
    }
    // SAFETY: the kernel has just confirmed that it is open. It was open when this process started, and
    // nothing in this process owns it: the parent passes it once, by the command line or the environment.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}
