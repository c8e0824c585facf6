// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Takes over the descriptor that `--fd` names.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SocketType, sockopt};

/// The connected stream socket that the parent left open as descriptor `number`.
///
/// # Errors
/// When there is no such descriptor, or it is not a stream socket.
pub(crate) fn stream(number: RawFd) -> io::Result<UnixStream> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the borrow ends in this function. Should `number` not be open, the kernel answers EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if sockopt::socket_type(borrowed)? != SocketType::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a stream socket"));
    }
    // SAFETY: the kernel just confirmed that it is open. It was open when this process started, and no part of this
    // process has opened it or owns it: by the command line, the parent hands it over.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(owned.into())
}
