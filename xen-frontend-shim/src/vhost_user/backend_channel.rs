// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The channel on which a backend reports that its configuration has changed (vhost-user specification,
//! "Back-end communication").
//!
//! The vhost crate's `FrontendReqHandler` is not used: it waits for the rest of a message that has begun,
//! and so would the guest.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use thiserror::Error;
use vhost::vhost_user::message::BackendReq;

use super::message::{HEADER, NEED_REPLY, REPLY, VERSION, header, read_up_to};

/// The only request that is negotiated. It has no payload.
const CONFIG_CHANGE: u32 = BackendReq::CONFIG_CHANGE_MSG as u32;

/// How many messages are read at once, so that a backend that never stops sending leaves time for other
/// devices.
const BATCH: usize = 16;

/// Why the channel cannot be used any more.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The backend has closed its end, or does not read the replies.
    #[error("the channel has ended: {0}")]
    Ended(#[from] io::Error),
    /// The backend has sent another request than the one that was negotiated.
    #[error("unexpected request from the backend: {0:x?}")]
    Unexpected(Vec<u8>),
}

/// The frontend's end of the channel.
#[derive(Debug)]
pub struct BackendChannel {
    socket: UnixStream,
    /// What has arrived of the next message.
    received: Vec<u8>,
}

impl BackendChannel {
    /// Both ends of a channel. The second is for the backend.
    pub fn open() -> io::Result<(Self, UnixStream)> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        Ok((Self { socket, received: Vec::new() }, theirs))
    }

    /// Reads what has arrived, without waiting. True if the configuration has changed.
    pub fn take_config_change(&mut self) -> Result<bool, ChannelError> {
        let mut has_changed = false;
        for _ in 0..BATCH {
            if !read_up_to(&self.socket, &mut self.received, HEADER)? {
                break;
            }
            let message = std::mem::take(&mut self.received);
            if message == header(CONFIG_CHANGE, VERSION | NEED_REPLY, 0) {
                self.acknowledge()?;
            } else if message != header(CONFIG_CHANGE, VERSION, 0) {
                return Err(ChannelError::Unexpected(message));
            }
            has_changed = true;
        }
        Ok(has_changed)
    }

    /// Replies that the change is noted: a payload of 64 bits, 0 for success.
    fn acknowledge(&mut self) -> io::Result<()> {
        let payload = [0; 8];
        self.socket
            .write_all(&[&header(CONFIG_CHANGE, VERSION | REPLY, payload.len())[..], &payload].concat())
    }
}

impl AsFd for BackendChannel {
    /// The socket. It is readable when there is something to [take](BackendChannel::take_config_change).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn change(flags: u32) -> Vec<u8> {
        header(CONFIG_CHANGE, VERSION | flags, 0)
    }

    #[test]
    fn several_changes_are_reported_once() {
        let (mut channel, mut backend) = BackendChannel::open().unwrap();
        assert!(!channel.take_config_change().unwrap());
        backend.write_all(&change(0).repeat(3)).unwrap();
        assert!(channel.take_config_change().unwrap());
        assert!(!channel.take_config_change().unwrap());
    }

    #[test]
    fn a_partial_message_is_kept_without_waiting_for_the_rest() {
        let (mut channel, mut backend) = BackendChannel::open().unwrap();
        for byte in change(0) {
            assert!(!channel.take_config_change().unwrap());
            backend.write_all(&[byte]).unwrap();
        }
        assert!(channel.take_config_change().unwrap());
    }

    #[test]
    fn a_request_with_need_reply_is_acknowledged() {
        let (mut channel, mut backend) = BackendChannel::open().unwrap();
        backend.write_all(&change(NEED_REPLY)).unwrap();
        assert!(channel.take_config_change().unwrap());
        let mut reply = [0; 20];
        backend.read_exact(&mut reply).unwrap();
        // The request, version 1 and REPLY, 8 bytes, success.
        assert_eq!(reply, [2, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn other_requests_and_a_closed_end_are_errors() {
        for bad in [
            header(BackendReq::SHARED_OBJECT_ADD.into(), VERSION, 16),
            header(CONFIG_CHANGE, VERSION, 1),
            change(REPLY),
            vec![0xff; 12],
        ] {
            let (mut channel, mut backend) = BackendChannel::open().unwrap();
            backend.write_all(&bad).unwrap();
            assert!(matches!(channel.take_config_change(), Err(ChannelError::Unexpected(_))), "{bad:?}");
        }
        let (mut channel, backend) = BackendChannel::open().unwrap();
        drop(backend);
        assert!(matches!(channel.take_config_change(), Err(ChannelError::Ended(_))));
    }

    #[test]
    fn a_backend_that_never_reads_replies_ends_the_channel_without_a_wait() {
        let (mut channel, mut backend) = BackendChannel::open().unwrap();
        backend.set_nonblocking(true).unwrap();
        // At some point there is no room for a reply.
        let ended = (0..1_000_000).find_map(|_| {
            let _ = backend.write(&change(NEED_REPLY));
            channel.take_config_change().err()
        });
        assert!(matches!(ended, Some(ChannelError::Ended(_))), "{ended:?}");
    }
}
