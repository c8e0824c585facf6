// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Asking a backend for a sign of life without waiting for it.
//!
//! The vhost crate's calls wait for their answers. That is no way to find out whether somebody is there: a program that has
//! just been started may need seconds to open its hardware, and one that hangs never answers. So one message that changes
//! nothing is sent by hand, GET_FEATURES, and its answer is an event like others. (vhost-user specification, "Message
//! Specification": a header of three 32 bit numbers, in the machine's own order, and the payload.)

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

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

/// What has come from the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The answer, which is taken from the socket.
    Answer,
    /// Nothing so far, or a part of the answer.
    Nothing,
    /// The other side has hung up.
    HangUp,
    /// Something else, after which nothing on this connection makes sense any more.
    Noise,
}

/// A question that has been asked and not been answered yet.
#[derive(Debug)]
pub struct Question {
    answer_by: Instant,
    answer: [u8; ANSWER],
    /// How much of the answer has come in. A backend may send header and payload apart.
    received: usize,
}

impl Question {
    /// Asks, and expects an answer by `answer_by`. It does not wait; a socket that takes no message of this size is as
    /// good as dead.
    pub fn ask(socket: impl AsFd, answer_by: Instant) -> io::Result<Self> {
        let mut message = [0; 12];
        for (place, word) in message.chunks_exact_mut(4).zip([REQUEST, VERSION, 0]) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        match send(socket, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)? {
            12 => Ok(Self { answer_by, answer: [0; ANSWER], received: 0 }),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// When the other side has had its time.
    #[must_use]
    pub fn answer_by(&self) -> Instant {
        self.answer_by
    }

    /// Looks for the answer.
    pub fn hear(&mut self, socket: impl AsFd) -> Heard {
        let rest = self.answer.get_mut(self.received..).unwrap_or_default();
        match recv(socket, rest, RecvFlags::DONTWAIT) {
            Ok((length @ 1.., _)) => self.received += length,
            Err(Errno::AGAIN | Errno::INTR) => return Heard::Nothing,
            Ok((0, _)) | Err(_) => return Heard::HangUp,
        }
        match self.received {
            ANSWER if is_answer(&self.answer) => Heard::Answer,
            ANSWER => Heard::Noise,
            _ => Heard::Nothing,
        }
    }
}

/// Looks whether there is something on a connection on which nothing has been asked.
pub fn hear_unasked(socket: impl AsFd) -> Heard {
    match recv(socket, &mut [0; 1], RecvFlags::DONTWAIT) {
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

    fn ask(socket: impl AsFd) -> io::Result<Question> {
        Question::ask(socket, Instant::now())
    }

    #[test]
    fn a_real_backend_answers() {
        let (socket, _) = test_backend::start();
        for _ in 0..3 {
            let mut question = ask(&socket).unwrap();
            poll(&mut [PollFd::new(&socket, PollFlags::IN)], None).unwrap();
            assert_eq!(question.hear(&socket), Heard::Answer);
            assert_eq!(hear_unasked(&socket), Heard::Nothing);
        }
    }

    #[test]
    fn an_answer_may_come_in_parts() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut question = ask(&ours).unwrap();
        let answer = [1_u32, 5, 8, 0x1234, 0].map(u32::to_ne_bytes);
        let (last, parts) = answer.as_flattened().split_last().unwrap();
        for part in parts {
            theirs.write_all(&[*part]).unwrap();
            assert_eq!(question.hear(&ours), Heard::Nothing);
        }
        theirs.write_all(&[*last]).unwrap();
        assert_eq!(question.hear(&ours), Heard::Answer);
    }

    #[test]
    fn silence_noise_and_an_end_are_told_apart() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut question = ask(&ours).unwrap();
        assert_eq!(question.hear(&ours), Heard::Nothing);
        theirs.write_all(&[0; ANSWER + 1]).unwrap();
        assert_eq!(question.hear(&ours), Heard::Noise);
        assert_eq!(hear_unasked(&ours), Heard::Noise);
        let mut question = ask(&ours).unwrap();
        drop(theirs);
        assert_eq!((question.hear(&ours), hear_unasked(&ours)), (Heard::HangUp, Heard::HangUp));
        assert!(ask(&ours).is_err());
    }
}
