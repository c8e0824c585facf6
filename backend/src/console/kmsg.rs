// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The log of this kernel, from `/dev/kmsg` (Linux, Documentation/ABI/testing/dev-kmsg).
//!
//! A read returns one message. The kernel keeps the messages in a ring of fixed size, and numbers them: a gap
//! in the numbers is the number of messages that were overwritten before they were read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::source::Source;
use crate::watch::Watcher;

/// The token of the log.
const LOG: u32 = 0;

/// Maximum size in bytes of a message with its header and its fields (Linux, PRINTK_MESSAGE_MAX is 2048).
const MESSAGE_MAX: usize = 8192;

/// `/dev/kmsg`, or what stands for it in a test: a read returns one message, or EAGAIN.
pub struct KernelLog<F = File> {
    log: F,
    watcher: Option<Watcher>,
    is_watched: bool,
    /// The number of the next message. 0 until one was read.
    next: u64,
    buffer: Vec<u8>,
}

impl KernelLog {
    /// Opens the log at its oldest message.
    ///
    /// # Errors
    /// When the kernel does not permit it.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log: OwnedFd = open("/dev/kmsg", flags, Mode::empty())?;
        Ok(Self::new(log.into()))
    }
}

impl<F: Read> KernelLog<F> {
    fn new(log: F) -> Self {
        Self { log, watcher: None, is_watched: false, next: 0, buffer: vec![0; MESSAGE_MAX] }
    }

    /// Reads the next message to the buffer. Returns its length, or nothing if there is none.
    fn read_message(&mut self) -> io::Result<Option<usize>> {
        loop {
            match self.log.read(&mut self.buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return Ok(None),
                    // The next message was overwritten; the one after it has a number that tells.
                    Some(Errno::PIPE | Errno::INTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Appends the next message that was not read before as a line, and the number of lost ones before it.
    fn read_line(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        while let Some(length) = self.read_message()? {
            let Some(message) = self.buffer.get(..length).and_then(Message::parse) else { continue };
            if message.number < self.next {
                continue;
            }
            let lost = message.number - self.next;
            if self.next > 0 && lost > 0 {
                writeln!(text, "[{lost} messages were lost]")?;
            }
            message.write_line(text)?;
            self.next = message.number + 1;
            break;
        }
        Ok(())
    }
}

impl Source for KernelLog {
    fn read(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        self.read_line(text)
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.watcher = Some(watcher.clone());
        Ok(())
    }

    /// The log stays readable while messages are unread, so it is watched only when they are wanted.
    fn set_awaited(&mut self, awaited: bool) -> io::Result<()> {
        if let Some(watcher) = &self.watcher
            && awaited != self.is_watched
        {
            if awaited {
                watcher.add(&self.log, LOG)?
            } else {
                watcher.remove(&self.log)?
            }
            self.is_watched = awaited;
        }
        Ok(())
    }

    fn position(&self) -> Option<u64> {
        (self.next > 0).then_some(self.next)
    }

    fn set_position(&mut self, position: u64) {
        self.next = self.next.max(position);
    }
}

/// A message of the log.
struct Message<'a> {
    number: u64,
    microseconds: u64,
    text: &'a [u8],
}

impl<'a> Message<'a> {
    /// Parses `PRIORITY,NUMBER,MICROSECONDS,FLAGS[,...];TEXT`. The lines after the first are fields, which
    /// are left out.
    fn parse(message: &'a [u8]) -> Option<Self> {
        let end = message.iter().position(|byte| *byte == b'\n').unwrap_or(message.len());
        let first = message.get(..end)?;
        let at = first.iter().position(|byte| *byte == b';')?;
        let mut fields = std::str::from_utf8(first.get(..at)?).ok()?.split(',').skip(1);
        let (number, microseconds) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { number, microseconds, text: first.get(at + 1..)? })
    }

    /// Writes the message as `dmesg` does.
    fn write_line(&self, text: &mut Vec<u8>) -> io::Result<()> {
        let (seconds, fraction) = (self.microseconds / 1_000_000, self.microseconds % 1_000_000);
        write!(text, "[{seconds:5}.{fraction:06}] ")?;
        text.extend_from_slice(self.text);
        text.push(b'\n');
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Messages and errors, one for each read.
    struct Script(VecDeque<Result<String, Errno>>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let message = self.0.pop_front().unwrap_or(Err(Errno::AGAIN))?;
            buffer[..message.len()].copy_from_slice(message.as_bytes());
            Ok(message.len())
        }
    }

    fn message(number: u64) -> Result<String, Errno> {
        Ok(format!("6,{number},{},-;message {number}\n SUBSYSTEM=a\n", 1_000_000 + number))
    }

    fn log(messages: impl IntoIterator<Item = Result<String, Errno>>) -> KernelLog<Script> {
        KernelLog::new(Script(messages.into_iter().collect()))
    }

    fn all(log: &mut KernelLog<Script>) -> String {
        let mut text = Vec::new();
        loop {
            let before = text.len();
            log.read_line(&mut text).unwrap();
            if text.len() == before {
                return String::from_utf8(text).unwrap();
            }
        }
    }

    #[test]
    fn a_message_is_a_line_without_its_fields() {
        let mut log = log([message(7), Ok("4,8,65000000,c,caller=T1;a;b\\x1b\n".into())]);
        assert_eq!(all(&mut log), "[    1.000007] message 7\n[   65.000000] a;b\\x1b\n");
    }

    #[test]
    fn overwritten_messages_are_counted() {
        let mut log = log([message(1), Err(Errno::PIPE), message(5), message(6)]);
        let expected = "[    1.000001] message 1\n[3 messages were lost]\n\
            [    1.000005] message 5\n[    1.000006] message 6\n";
        assert_eq!(all(&mut log), expected);
    }

    #[test]
    fn the_next_daemon_continues_after_the_last_message() {
        let mut first = log([message(1), message(2)]);
        all(&mut first);
        let mut second = log([message(1), message(2), message(3)]);
        second.next = second.next.max(first.next);
        assert_eq!(all(&mut second), "[    1.000003] message 3\n");
        let mut late = log([message(9)]);
        late.next = first.next;
        assert_eq!(all(&mut late), "[6 messages were lost]\n[    1.000009] message 9\n");
    }

    #[test]
    fn a_message_of_another_form_is_left_out() {
        let mut log = log([Ok("no header".into()), Ok("6,x,1,-;a\n".into()), Ok(String::new()), message(1)]);
        assert_eq!(all(&mut log), "[    1.000001] message 1\n");
    }
}
