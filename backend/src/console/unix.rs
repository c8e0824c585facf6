// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A socket that answers requests.
//!
//! It is connected before the daemon gives up the right to connect, so the connection lasts as long as the
//! daemon: when the other end closes it, the daemon ends. It is of type SOCK_SEQPACKET, which keeps the
//! bounds of requests and answers. The guest chooses a word of the operator's list and when it is sent, and
//! causes no more work at the other end than one request for each [`PACE`].

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::lines::LINE_MAX;
use super::source::{PIECE, Source};
use crate::watch::Watcher;

/// The token of the socket.
const SOCKET: u32 = 0;
/// The token of the timer.
const TIMER: u32 = 1;

/// Minimum time between two requests.
const PACE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Maximum number of requests that wait for their turn. Others are ignored.
const WAITING_MAX: usize = 8;

/// A word that a guest may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(String);

/// The error for a text that is no [`Word`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request is a word of 1 to {LINE_MAX} printable characters of ASCII without a space")]
pub struct NoWord;

impl FromStr for Word {
    type Err = NoWord;

    fn from_str(text: &str) -> Result<Self, NoWord> {
        let is_word =
            (1..=LINE_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_word { Ok(Self(text.to_owned())) } else { Err(NoWord) }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What the other end is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// It has a request, whose answer is for the guest.
    Asked,
    /// It has a request of a driver that has reset the device since.
    AskedBeforeReset,
}

/// A connected socket, the requests that wait, and an answer.
pub struct Responder<S = OwnedFd> {
    socket: S,
    words: Vec<Word>,
    waiting: VecDeque<usize>,
    state: State,
    /// Expires when another request may be sent.
    timer: OwnedFd,
    is_paused: bool,
    answer: Vec<u8>,
    /// Space for an answer, and one byte to recognise one that is too long.
    buffer: Vec<u8>,
}

impl Responder {
    /// Connects to the socket at `path`, to send any of `words`.
    ///
    /// # Errors
    /// When no process listens there.
    pub fn connect(path: &Path, words: &[Word]) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Self::new(socket, words)
    }
}

impl<S: AsFd> Responder<S> {
    fn new(socket: S, words: &[Word]) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self {
            socket,
            words: words.to_vec(),
            waiting: VecDeque::with_capacity(WAITING_MAX),
            state: State::Idle,
            timer,
            is_paused: false,
            answer: Vec::new(),
            buffer: vec![0; PIECE],
        })
    }

    /// Sends the next request, if the guest has the answer to the last one and time has passed since.
    fn send_next(&mut self) -> io::Result<()> {
        if self.state != State::Idle || self.is_paused || !self.answer.is_empty() {
            return Ok(());
        }
        let Some(word) = self.waiting.front().and_then(|index| self.words.get(*index)) else { return Ok(()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: PACE };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.is_paused = true;
        match write(&self.socket, word.0.as_bytes()) {
            Ok(_) => {
                self.waiting.pop_front();
                self.state = State::Asked;
                Ok(())
            }
            // Tried again when the timer expires.
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a packet from the socket.
    fn receive(&mut self) -> io::Result<()> {
        let count = match read(&self.socket, &mut *self.buffer) {
            Ok(0) => return Err(io::Error::other("the source has closed its connection")),
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Asked => self.take_answer(count),
            State::AskedBeforeReset => {}
            State::Idle => log::debug!("the source has sent {count} bytes that were not asked for"),
        }
        Ok(())
    }

    fn take_answer(&mut self, count: usize) {
        if count == self.buffer.len() {
            log::warn!("an answer of the source has more than {} bytes: it was dropped", PIECE - 1);
            self.answer.extend_from_slice(b"[the answer is too long]\n");
            return;
        }
        self.answer.extend_from_slice(self.buffer.get(..count).unwrap_or_default());
        if self.answer.last() != Some(&b'\n') {
            self.answer.push(b'\n');
        }
    }
}

impl<S: AsFd + Send> Source for Responder<S> {
    fn read(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        text.append(&mut self.answer);
        self.send_next()
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        watcher.add(&self.socket, SOCKET)?;
        watcher.add(&self.timer, TIMER)
    }

    fn handle_event(&mut self, token: u32) -> io::Result<()> {
        if token == SOCKET {
            self.receive()?;
        } else if read(&self.timer, &mut [0; 8]).is_ok() {
            self.is_paused = false;
        }
        self.send_next()
    }

    /// A line that is no request has no answer: a terminal that echoes would send the answer back.
    fn request(&mut self, line: &[u8]) -> io::Result<()> {
        match self.words.iter().position(|word| word.0.as_bytes() == line) {
            Some(index) if self.waiting.len() < WAITING_MAX => self.waiting.push_back(index),
            Some(_) => log::debug!("request ignored: {WAITING_MAX} others wait"),
            None => log::debug!("a line of the guest is no request"),
        }
        self.send_next()
    }

    fn reset(&mut self) {
        self.waiting.clear();
        self.answer.clear();
        if self.state == State::Asked {
            self.state = State::AskedBeforeReset;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::net::socketpair;

    use super::*;

    /// A responder and the other end of its socket.
    struct Bench {
        responder: Responder,
        other: OwnedFd,
    }

    impl Bench {
        fn new() -> Self {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (ours, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
            let words = ["json", "openmetrics"].map(|word| word.parse().unwrap());
            Self { responder: Responder::new(ours, &words).unwrap(), other }
        }

        fn asked(&self) -> Option<String> {
            let mut packet = [0; 128];
            let count = read(&self.other, &mut packet).ok()?;
            Some(String::from_utf8_lossy(&packet[..count]).into_owned())
        }

        fn answer(&mut self, text: &[u8]) {
            write(&self.other, text).unwrap();
            self.responder.handle_event(SOCKET).unwrap();
        }

        fn wait_for_timer(&mut self) {
            poll(&mut [PollFd::new(&self.responder.timer, PollFlags::IN)], None).unwrap();
            self.responder.handle_event(TIMER).unwrap();
        }

        fn text(&mut self) -> String {
            let mut text = Vec::new();
            self.responder.read(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        }
    }

    #[test]
    fn only_listed_words_are_sent() {
        let mut bench = Bench::new();
        for line in ["reboot", "json ", "jso", "json\0", "{\"a\":1}"] {
            bench.responder.request(line.as_bytes()).unwrap();
            assert_eq!(bench.asked(), None, "{line}");
        }
        bench.responder.request(b"json").unwrap();
        assert_eq!(bench.asked().as_deref(), Some("json"));
        bench.answer(b"{}");
        assert_eq!(bench.text(), "{}\n");
    }

    #[test]
    fn one_request_is_sent_at_a_time_and_not_before_its_time() {
        let mut bench = Bench::new();
        bench.responder.request(b"json").unwrap();
        bench.responder.request(b"openmetrics").unwrap();
        assert_eq!((bench.asked().as_deref(), bench.asked()), (Some("json"), None));
        bench.wait_for_timer();
        assert_eq!(bench.asked(), None, "there is no answer yet");
        bench.answer(b"{}\n");
        assert_eq!(bench.asked(), None, "the guest has not read the answer");
        assert_eq!(bench.text(), "{}\n");
        assert_eq!(bench.asked().as_deref(), Some("openmetrics"));
        bench.answer(b"# EOF\n");
        assert_eq!(bench.text(), "# EOF\n");
        bench.responder.request(b"json").unwrap();
        assert_eq!(bench.asked(), None, "the time has not passed");
        bench.wait_for_timer();
        assert_eq!(bench.asked().as_deref(), Some("json"));
    }

    #[test]
    fn a_flood_of_requests_does_not_wait() {
        let mut bench = Bench::new();
        (0..1000).for_each(|_| bench.responder.request(b"json").unwrap());
        assert_eq!(bench.responder.waiting.len(), WAITING_MAX);
        assert_eq!((bench.asked().as_deref(), bench.asked()), (Some("json"), None));
    }

    #[test]
    fn an_answer_to_the_former_driver_is_dropped() {
        let mut bench = Bench::new();
        bench.responder.request(b"json").unwrap();
        bench.responder.request(b"openmetrics").unwrap();
        assert_eq!(bench.asked().as_deref(), Some("json"));
        bench.responder.reset();
        bench.responder.request(b"json").unwrap();
        bench.wait_for_timer();
        bench.answer(b"old");
        assert_eq!(bench.text(), "");
        assert_eq!(bench.asked().as_deref(), Some("json"));
        bench.answer(b"new");
        assert_eq!(bench.text(), "new\n");
    }

    #[test]
    fn an_answer_that_is_too_long_or_was_not_asked_for_is_dropped() {
        let mut bench = Bench::new();
        bench.answer(b"unwanted");
        assert_eq!(bench.text(), "");
        bench.responder.request(b"json").unwrap();
        bench.answer(&[b'a'; PIECE - 1]);
        assert_eq!(bench.text().len(), PIECE);
        bench.wait_for_timer();
        bench.responder.request(b"json").unwrap();
        bench.answer(&[b'a'; PIECE]);
        assert_eq!(bench.text(), "[the answer is too long]\n");
    }

    #[test]
    fn the_end_of_the_connection_is_an_error() {
        let Bench { mut responder, other } = Bench::new();
        drop(other);
        let error = responder.handle_event(SOCKET).unwrap_err();
        assert!(error.to_string().contains("has closed its connection"), "{error}");
    }

    #[test]
    fn a_word_is_printable_and_short() {
        for text in ["", "two words", "line\n", "ä", &"a".repeat(LINE_MAX + 1)] {
            assert_eq!(text.parse::<Word>(), Err(NoWord), "{text}");
        }
        assert_eq!("a".repeat(LINE_MAX).parse::<Word>().unwrap().to_string().len(), LINE_MAX);
    }
}
