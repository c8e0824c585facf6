// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a backend says without being asked, over a channel of its own: that its configuration has changed.
//!
//! The messages are read here and not by the vhost crate, whose reader waits for the rest of a message that was begun.
//! A backend must not be able to hold up the guest by half a message.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use thiserror::Error;
use vhost::vhost_user::message::{BackendReq, VhostUserHeaderFlag};

/// A message without a body: three numbers (request, flags, length of the body) in the machine's byte order.
const LENGTH: usize = 12;

/// The bits of the flags that hold the protocol's version, and the version.
const VERSION_BITS: u32 = 3;
const VERSION: u32 = 1;

/// How many messages are read at once, so that a backend that never ends leaves time for others.
const BATCH: usize = 16;

/// Why the channel is of no use any more.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The backend has closed its end, or does not read our answers.
    #[error("its channel for requests has ended: {0}")]
    Ended(#[from] io::Error),
    /// It asks for something that was not agreed.
    #[error("it makes a request that is not a change of its configuration: {0:x?}")]
    Unknown([u8; LENGTH]),
}

/// Our end of the channel.
#[derive(Debug)]
pub struct Requests {
    socket: UnixStream,
    message: [u8; LENGTH],
    /// How much of the message has come in.
    received: usize,
}

impl Requests {
    /// A channel, and the end of it that is for the backend.
    pub fn open() -> io::Result<(Self, UnixStream)> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        Ok((Self { socket, message: [0; LENGTH], received: 0 }, theirs))
    }

    /// Reads what has come in. True if the configuration has changed.
    pub fn take(&mut self) -> Result<bool, RequestError> {
        let mut has_changed = false;
        for _ in 0..BATCH {
            match self.next()? {
                Some(flags) if flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0 => self.acknowledge()?,
                Some(_) => {}
                None => break,
            }
            has_changed = true;
        }
        Ok(has_changed)
    }

    /// The flags of the next message, if it is there as a whole.
    fn next(&mut self) -> Result<Option<u32>, RequestError> {
        while let Some(rest @ [_, ..]) = self.message.get_mut(self.received..) {
            match self.socket.read(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(length) => self.received += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.received = 0;
        let [a, b, c, d, e, f, g, h, body @ ..] = self.message;
        let (request, flags) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        let is_request = flags & (VERSION_BITS | VhostUserHeaderFlag::REPLY.bits()) == VERSION;
        if request == u32::from(BackendReq::CONFIG_CHANGE_MSG) && is_request && body == [0; 4] {
            Ok(Some(flags))
        } else {
            Err(RequestError::Unknown(self.message))
        }
    }

    /// Answers that all is well: a message with a number of 64 bits, which is 0.
    fn acknowledge(&mut self) -> Result<(), RequestError> {
        let flags = VERSION | VhostUserHeaderFlag::REPLY.bits();
        let header = [u32::from(BackendReq::CONFIG_CHANGE_MSG), flags, 8].map(u32::to_ne_bytes);
        Ok(self.socket.write_all(&[header.as_flattened(), &[0; 8]].concat())?)
    }
}

impl AsFd for Requests {
    /// To learn when there is something to [take](Self::take).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(code: BackendReq, flags: u32, size: u32) -> Vec<u8> {
        [u32::from(code), VERSION | flags, size].map(u32::to_ne_bytes).concat()
    }

    fn change() -> Vec<u8> {
        message(BackendReq::CONFIG_CHANGE_MSG, 0, 0)
    }

    #[test]
    fn a_change_is_noticed_once() {
        let (mut requests, mut backend) = Requests::open().unwrap();
        assert!(!requests.take().unwrap());
        backend.write_all(&change().repeat(3)).unwrap();
        assert!(requests.take().unwrap());
        assert!(!requests.take().unwrap());
    }

    #[test]
    fn half_a_message_is_waited_for_by_nobody() {
        let (mut requests, mut backend) = Requests::open().unwrap();
        for byte in change() {
            assert!(!requests.take().unwrap());
            backend.write_all(&[byte]).unwrap();
        }
        assert!(requests.take().unwrap());
    }

    #[test]
    fn an_answer_is_given_to_who_wants_it() {
        let (mut requests, mut backend) = Requests::open().unwrap();
        let flags = VhostUserHeaderFlag::NEED_REPLY.bits();
        backend.write_all(&message(BackendReq::CONFIG_CHANGE_MSG, flags, 0)).unwrap();
        assert!(requests.take().unwrap());
        let mut answer = [0; 20];
        backend.read_exact(&mut answer).unwrap();
        // The request, version 1 and REPLY, 8 bytes, all well.
        assert_eq!(answer, [2, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn other_requests_end_the_channel() {
        for bad in [
            message(BackendReq::SHARED_OBJECT_ADD, 0, 16),
            message(BackendReq::CONFIG_CHANGE_MSG, 0, 1),
            message(BackendReq::CONFIG_CHANGE_MSG, VhostUserHeaderFlag::REPLY.bits(), 0),
            vec![0xff; 12],
        ] {
            let (mut requests, mut backend) = Requests::open().unwrap();
            backend.write_all(&bad).unwrap();
            assert!(matches!(requests.take(), Err(RequestError::Unknown(_))), "{bad:?}");
        }
        let (mut requests, backend) = Requests::open().unwrap();
        drop(backend);
        assert!(matches!(requests.take(), Err(RequestError::Ended(_))));
    }

    #[test]
    fn a_backend_that_never_ends_or_never_reads_holds_nobody_up() {
        let (mut requests, mut backend) = Requests::open().unwrap();
        backend.set_nonblocking(true).unwrap();
        let flags = VhostUserHeaderFlag::NEED_REPLY.bits();
        let request = message(BackendReq::CONFIG_CHANGE_MSG, flags, 0);
        // It asks and asks, and one day our answers find no room.
        let ended = (0..1_000_000).find_map(|_| {
            let _ = backend.write(&request);
            requests.take().err()
        });
        assert!(matches!(ended, Some(RequestError::Ended(_))), "{ended:?}");
    }
}
