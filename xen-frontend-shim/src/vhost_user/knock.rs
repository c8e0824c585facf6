// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Asking a backend for a sign of life without waiting for it.
//!
//! The vhost crate's calls wait for their answers. That is no way to find out whether somebody is there: a program that has
//! just been started may need seconds to open its hardware, and one that hangs never answers. So one message that changes
//! nothing is sent by hand, GET_FEATURES, and its answer is an event like others. (vhost-user specification, "Message
//! Specification": a header of three 32 bit numbers, in the machine's own order, and the payload.)

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// GET_FEATURES.
const REQUEST: u32 = 1;
/// The version of the protocol, in a header's flags.
const VERSION: u32 = 1;
/// In a header's flags: this is an answer.
const IS_REPLY: u32 = 1 << 2;
/// Bytes of the answer's payload.
const PAYLOAD: u32 = 8;
/// Bytes of the answer.
const ANSWER: usize = 12 + 8;

/// What has come of a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The answer, which is taken from the socket.
    Answer,
    /// Nothing so far.
    Nothing,
    /// The other side has hung up.
    HangUp,
    /// Something else, after which nothing on this connection makes sense any more.
    Noise,
}

/// Sends the message. It does not wait; a socket that takes no message of this size is as good as dead.
pub fn knock(socket: impl AsFd) -> io::Result<()> {
    let mut message = [0; 12];
    for (place, word) in message.chunks_exact_mut(4).zip([REQUEST, VERSION, 0]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    match send(socket, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)? {
        12 => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Looks for the answer.
pub fn hear(socket: impl AsFd) -> Heard {
    let mut answer = [0; ANSWER];
    match recv(socket, answer.as_mut_slice(), RecvFlags::DONTWAIT) {
        Ok((ANSWER, _)) if is_answer(&answer) => Heard::Answer,
        Ok((1.., _)) => Heard::Noise,
        Err(Errno::AGAIN | Errno::INTR) => Heard::Nothing,
        Ok((0, _)) | Err(_) => Heard::HangUp,
    }
}

fn is_answer(answer: &[u8; ANSWER]) -> bool {
    let mut words = answer.chunks_exact(4).map(|word| word.try_into().map_or(0, u32::from_ne_bytes));
    [REQUEST, VERSION | IS_REPLY, PAYLOAD].into_iter().all(|word| words.next() == Some(word))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::vhost_user::test_backend;

    #[test]
    fn a_real_backend_answers() {
        let (socket, _) = test_backend::start();
        for _ in 0..3 {
            knock(&socket).unwrap();
            poll(&mut [PollFd::new(&socket, PollFlags::IN)], None).unwrap();
            assert_eq!(hear(&socket), Heard::Answer);
            assert_eq!(hear(&socket), Heard::Nothing);
        }
    }

    #[test]
    fn silence_noise_and_an_end_are_told_apart() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        knock(&ours).unwrap();
        assert_eq!(hear(&ours), Heard::Nothing);
        theirs.write_all(&[0; ANSWER]).unwrap();
        assert_eq!(hear(&ours), Heard::Noise);
        drop(theirs);
        assert_eq!(hear(&ours), Heard::HangUp);
        assert!(knock(&ours).is_err());
    }
}
