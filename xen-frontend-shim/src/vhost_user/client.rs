// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A vhost-user client on which no call outlasts its deadline.
//!
//! The messages' payloads are those of the vhost crate. Its `Frontend` is not used, since its newest release
//! lacks what a vCPU depends on that waits for a call:
//!
//! | needed                                          | vhost 0.18                                       |
//! |-------------------------------------------------|--------------------------------------------------|
//! | a call ends at its deadline                     | blocks; retries in a loop if the socket does not |
//! | a request is sent now and its reply read later  | each method waits for its reply                  |
//! | a reply that has arrived in part is kept        | reads wait for the rest                          |
//! | the parts to build the above from               | `Endpoint`, `VhostUserMsgHeader` are private     |
//!
//! One request at a time is outstanding: a call first collects the reply to a [ping](Client::ping), so that
//! no reply is lost or taken for another one.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use thiserror::Error;
use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost::vhost_user::message::{FrontendReq, VhostUserConfig, VhostUserConfigFlags, VhostUserU64};
use vm_memory::ByteValued;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::message::{HEADER, NEED_REPLY, REPLY, VERSION, header, read_up_to};

/// How long a backend may take to start, and then to negotiate.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long one call may take to a backend that serves a device: a vCPU waits meanwhile.
pub const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Why a call has failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There was no reply before the deadline. The connection is shut down.
    #[error("no reply in time")]
    TimedOut,
    /// The backend has closed the connection.
    #[error("the backend has closed the connection")]
    Disconnected,
    /// The backend has sent something else than the reply that is due.
    #[error("unexpected message from the backend")]
    UnexpectedMessage,
    /// The backend has replied that it cannot do what was requested.
    #[error("the backend has refused the request")]
    Refused,
    /// The socket has failed.
    #[error("socket: {0}")]
    Socket(#[source] io::Error),
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                Self::Disconnected
            }
            _ => Self::Socket(error),
        }
    }
}

/// Why a call has failed, and which.
#[derive(Debug, Error)]
#[error("{request:?}: {cause}")]
pub struct CallError {
    /// The request.
    pub request: FrontendReq,
    /// Why it has failed.
    #[source]
    pub cause: ClientError,
}

/// The frontend's end of a connection to a backend.
pub struct Client {
    socket: UnixStream,
    /// The flags of requests, with NEED_REPLY as soon as REPLY_ACK is negotiated.
    flags: u32,
    /// When the reply to the outstanding ping is due.
    ping_due: Option<Instant>,
    /// What has arrived of the reply that is due.
    received: Vec<u8>,
}

impl Client {
    /// A client of the backend at the other end of `socket`, which becomes non-blocking.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, flags: VERSION, ping_due: None, received: Vec::new() })
    }

    /// Requests a reply that changes nothing, GET_FEATURES, without waiting for it. The reply is due by
    /// `due`, and is taken by [`Self::poll_reply`] or by the next call.
    pub fn ping(&mut self, due: Instant) -> Result<(), ClientError> {
        let message = header(FrontendReq::GET_FEATURES.into(), VERSION, 0);
        // A backend that has left so much unread that a header does not fit does not answer either.
        match self.socket.send_with_fds(&[message.as_slice()], &[]) {
            Ok(HEADER) => self.ping_due = Some(due),
            Ok(_) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        Ok(())
    }

    /// When the reply to a ping is due, while one is outstanding.
    #[must_use]
    pub fn ping_due(&self) -> Option<Instant> {
        self.ping_due
    }

    /// Reads what has arrived, without waiting. True if that completes the reply to a [ping](Self::ping).
    ///
    /// # Errors
    /// When the backend has closed the connection, or has sent something else.
    pub fn poll_reply(&mut self) -> Result<bool, ClientError> {
        if self.ping_due.is_none() {
            return match (&self.socket).read(&mut [0]) {
                Ok(0) => Err(ClientError::Disconnected),
                Ok(_) => Err(ClientError::UnexpectedMessage),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    Ok(false)
                }
                Err(error) => Err(error.into()),
            };
        }
        let is_complete = self.receive(FrontendReq::GET_FEATURES, size_of::<u64>())?.is_some();
        if is_complete {
            self.ping_due = None;
        }
        Ok(is_complete)
    }

    /// Sends SET_OWNER, the first message, to which there is no reply.
    pub fn set_owner(&mut self, deadline: Instant) -> Result<(), CallError> {
        let request = FrontendReq::SET_OWNER;
        self.send(request, &[], &[], deadline).map_err(|cause| CallError { request, cause })
    }

    /// Sends SET_PROTOCOL_FEATURES. With REPLY_ACK among the features there is a reply to all that follows.
    pub fn set_protocol_features(
        &mut self,
        features: VhostUserProtocolFeatures,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let request = FrontendReq::SET_PROTOCOL_FEATURES;
        let sent = self.send(request, VhostUserU64::new(features.bits()).as_slice(), &[], deadline);
        sent.map_err(|cause| CallError { request, cause })?;
        if features.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            self.flags |= NEED_REPLY;
        }
        Ok(())
    }

    /// Has the backend do something, and waits until it has done it. `fds` are passed with the message.
    ///
    /// A backend handles its messages in their order: one without REPLY_ACK has done it when it replies to a
    /// GET_FEATURES that follows. It cannot report an error but by closing the connection.
    pub fn set(
        &mut self,
        request: FrontendReq,
        payload: &[u8],
        fds: &[RawFd],
        deadline: Instant,
    ) -> Result<(), CallError> {
        if self.flags & NEED_REPLY == 0 {
            let sent = self.send(request, payload, fds, deadline);
            let replied = sent.and_then(|()| self.barrier(deadline));
            return replied.map_err(|cause| CallError { request, cause });
        }
        let reply = self.call(request, payload, fds, size_of::<u64>(), deadline)?;
        if reply.iter().all(|&byte| byte == 0) {
            Ok(())
        } else {
            Err(CallError { request, cause: ClientError::Refused })
        }
    }

    /// Waits until the backend has handled all requests.
    fn barrier(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let features = self.get::<VhostUserU64>(FrontendReq::GET_FEATURES, &[], deadline);
        features.map(drop).map_err(|error| error.cause)
    }

    /// Reads something. A descriptor that comes with it is closed.
    pub fn get<T: ByteValued + Default>(
        &mut self,
        request: FrontendReq,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<T, CallError> {
        let reply = self.call(request, payload, &[], size_of::<T>(), deadline)?;
        let mut value = T::default();
        value.as_mut_slice().copy_from_slice(&reply);
        Ok(value)
    }

    /// Reads `size` bytes of configuration; those of a device without any are not asked for.
    pub fn get_config(&mut self, size: u32, deadline: Instant) -> Result<Vec<u8>, CallError> {
        let request = FrontendReq::GET_CONFIG;
        let Some(length) = usize::try_from(size).ok().filter(|&length| length > 0) else {
            return Ok(Vec::new());
        };
        let config = VhostUserConfig::new(0, size, VhostUserConfigFlags::empty());
        let payload = [config.as_slice(), &vec![0; length]].concat();
        let mut reply = self.call(request, &payload, &[], payload.len(), deadline)?;
        // Offset and size, the latter 0 for an error.
        if reply.get(..8) != payload.get(..8) {
            return Err(CallError { request, cause: ClientError::Refused });
        }
        Ok(reply.split_off(size_of::<VhostUserConfig>()))
    }

    fn call(
        &mut self,
        request: FrontendReq,
        payload: &[u8],
        fds: &[RawFd],
        reply: usize,
        deadline: Instant,
    ) -> Result<Vec<u8>, CallError> {
        let called = self.send(request, payload, fds, deadline).and_then(|()| {
            loop {
                match self.receive(request, reply)? {
                    Some(reply) => return Ok(reply),
                    None => self.wait(PollFlags::IN, deadline)?,
                }
            }
        });
        called.map_err(|cause| CallError { request, cause })
    }

    /// Sends a request as soon as no reply is outstanding any more.
    fn send(
        &mut self,
        request: FrontendReq,
        payload: &[u8],
        mut fds: &[RawFd],
        deadline: Instant,
    ) -> Result<(), ClientError> {
        while self.ping_due.is_some() && !self.poll_reply()? {
            self.wait(PollFlags::IN, deadline)?;
        }
        let message = [header(request.into(), self.flags, payload.len()).as_slice(), payload].concat();
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            match self.socket.send_with_fds(&[rest], fds).map_err(io::Error::from) {
                Ok(sent) => (rest, fds) = (rest.get(sent..).unwrap_or_default(), &[]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT, deadline)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what has arrived of the reply to `request`: its payload of `size` bytes, or nothing if it is
    /// not complete.
    fn receive(&mut self, request: FrontendReq, size: usize) -> Result<Option<Vec<u8>>, ClientError> {
        let is_complete = read_up_to(&self.socket, &mut self.received, HEADER + size);
        // Some backends leave NEED_REPLY as it was in the request.
        let is_reply =
            |flags| self.received.starts_with(&header(request.into(), VERSION | REPLY | flags, size));
        if self.received.len() >= HEADER && !is_reply(0) && !is_reply(NEED_REPLY) {
            return Err(ClientError::UnexpectedMessage);
        }
        Ok(is_complete?.then(|| std::mem::take(&mut self.received).split_off(HEADER)))
    }

    /// Waits until the socket is ready, the backend has closed it, or `deadline` has passed.
    fn wait(&self, events: PollFlags, deadline: Instant) -> Result<(), ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // A reply that came now would be taken for the next one. This fails only if the connection is
            // down already.
            let _ = self.socket.shutdown(Shutdown::Both);
            return Err(ClientError::TimedOut);
        }
        let limit = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&self.socket, events)], limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(ClientError::Socket(error.into())),
        }
    }
}

impl AsFd for Client {
    /// The socket. It is readable when there is something for [`Client::poll_reply`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Client {
    /// Ends the connection, upon which a backend that was started for it exits, even if there are other
    /// copies of the descriptor.
    fn drop(&mut self) {
        // It fails only if the connection is down already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::vhost_user::test_backend;

    const GET_FEATURES: FrontendReq = FrontendReq::GET_FEATURES;
    const FEATURES: u64 = 0x1234;

    fn pair() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::new(ours).unwrap(), theirs)
    }

    fn await_message(client: &Client) {
        poll(&mut [PollFd::new(client, PollFlags::IN)], None).unwrap();
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// A reply to GET_FEATURES.
    fn reply(flags: u32) -> Vec<u8> {
        [header(GET_FEATURES.into(), VERSION | flags, 8).as_slice(), &FEATURES.to_ne_bytes()].concat()
    }

    fn features(client: &mut Client, deadline: Instant) -> Result<u64, ClientError> {
        let features = client.get::<VhostUserU64>(GET_FEATURES, &[], deadline);
        features.map(|features| features.value).map_err(|error| error.cause)
    }

    #[test]
    fn a_real_backend_replies_to_pings() {
        let mut client = Client::new(test_backend::start().0).unwrap();
        for _ in 0..3 {
            client.ping(Instant::now()).unwrap();
            await_message(&client);
            assert!(client.poll_reply().unwrap());
            assert!(!client.poll_reply().unwrap());
        }
    }

    #[test]
    fn a_reply_in_parts_is_collected_by_polls_and_completed_by_a_call() {
        let (mut client, mut backend) = pair();
        for is_completed_by_call in [false, true] {
            client.ping(later()).unwrap();
            let reply = reply(REPLY);
            let (last, parts) = reply.split_last().unwrap();
            for part in parts {
                backend.write_all(&[*part]).unwrap();
                assert!(!client.poll_reply().unwrap());
            }
            backend.write_all(&[*last]).unwrap();
            if is_completed_by_call {
                backend.write_all(&reply).unwrap();
                assert_eq!(features(&mut client, later()).unwrap(), FEATURES);
            } else {
                assert!(client.poll_reply().unwrap());
            }
            assert_eq!(client.ping_due(), None);
        }
    }

    #[test]
    fn a_reply_may_keep_the_flag_of_its_request() {
        let (mut client, mut backend) = pair();
        backend.write_all(&reply(REPLY | NEED_REPLY)).unwrap();
        assert_eq!(features(&mut client, later()).unwrap(), FEATURES);
    }

    #[test]
    fn other_messages_are_unexpected_as_soon_as_their_header_is_there() {
        for bad in [
            header(GET_FEATURES.into(), VERSION, 8),
            header(GET_FEATURES.into(), VERSION | REPLY, 9),
            header(GET_FEATURES.into(), 2 | REPLY, 8),
            header(FrontendReq::SET_FEATURES.into(), VERSION | REPLY, 8),
        ] {
            let (mut client, mut backend) = pair();
            backend.write_all(&bad).unwrap();
            let result = features(&mut client, later());
            assert!(matches!(result, Err(ClientError::UnexpectedMessage)), "{bad:?}");
        }
        let (mut client, mut backend) = pair();
        backend.write_all(&reply(REPLY)).unwrap();
        assert!(matches!(client.poll_reply(), Err(ClientError::UnexpectedMessage)), "nothing was requested");
    }

    proptest! {
        /// With a deadline that has passed: what has been sent is read, and nothing is waited for.
        #[test]
        fn nothing_but_the_reply_is_taken_for_it(
            is_valid: [bool; 3],
            noise: [u32; 3],
            payload in vec(any::<u8>(), 0..12),
        ) {
            let valid = [u32::from(GET_FEATURES), VERSION | REPLY, 8];
            let words: Vec<_> = (0..3).map(|n| if is_valid[n] { valid[n] } else { noise[n] }).collect();
            let bytes = [words.iter().flat_map(|word| word.to_ne_bytes()).collect(), payload].concat();
            let (mut client, mut backend) = pair();
            backend.write_all(&bytes).unwrap();
            let is_reply = [valid, [valid[0], valid[1] | NEED_REPLY, 8]].iter().any(|header| words == header);
            match features(&mut client, Instant::now()) {
                Ok(value) => {
                    prop_assert!(is_reply);
                    prop_assert!(bytes[12..].starts_with(&value.to_ne_bytes()));
                }
                Err(ClientError::TimedOut) => prop_assert!(is_reply && bytes.len() < 20),
                Err(error) => prop_assert!(!is_reply && matches!(error, ClientError::UnexpectedMessage)),
            }
        }
    }

    #[test]
    fn a_call_without_a_complete_reply_ends_at_its_deadline_and_shuts_the_connection_down() {
        let half_a_reply = &reply(REPLY)[..15];
        for sent in [&[][..], half_a_reply] {
            let (mut client, mut backend) = pair();
            backend.write_all(sent).unwrap();
            assert!(matches!(features(&mut client, soon()), Err(ClientError::TimedOut)));
            assert!(matches!(features(&mut client, later()), Err(ClientError::Disconnected)));
        }
    }

    #[test]
    fn a_call_ends_at_its_deadline_if_the_backend_reads_nothing() {
        let (mut client, _backend) = pair();
        let payload = [0; 4096];
        let cause = std::iter::repeat_with(|| client.send(FrontendReq::SET_CONFIG, &payload, &[], soon()))
            .find_map(Result::err);
        assert!(matches!(cause, Some(ClientError::TimedOut)), "{cause:?}");
    }

    #[test]
    fn a_closed_connection_fails_pings_polls_and_calls_at_once() {
        let (mut client, backend) = pair();
        client.ping(later()).unwrap();
        drop(backend);
        assert!(matches!(client.poll_reply(), Err(ClientError::Disconnected)));
        assert!(matches!(features(&mut client, later()), Err(ClientError::Disconnected)));
        assert!(matches!(client.ping(later()), Err(ClientError::Disconnected)));
    }

    #[test]
    fn the_connection_ends_with_the_client() {
        let (client, backend) = pair();
        let _copy = client.socket.try_clone().unwrap();
        drop(client);
        let mut hung_up = [PollFd::new(&backend, PollFlags::RDHUP)];
        poll(&mut hung_up, None).unwrap();
        assert!(hung_up[0].revents().contains(PollFlags::RDHUP));
    }
}
