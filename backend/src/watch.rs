// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The descriptors that the daemon waits for, each with a token that says whose it is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

/// How many events one wait takes up. More stay in the kernel for the next.
const EVENTS_PER_WAIT: usize = 16;

/// Whose descriptor became readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The thread that serves the frontend has something for the one that works.
    Wake,
    /// The guest kicked this queue.
    Kick(u32),
    /// One of the device's own descriptors.
    Device(u32),
}

impl Token {
    fn pack(self) -> EventData {
        let (kind, value) = match self {
            Self::Wake => (1, 0),
            Self::Kick(queue) => (2, queue),
            Self::Device(token) => (3, token),
        };
        EventData::new_u64((kind << 32) | u64::from(value))
    }

    fn unpack(data: EventData) -> Option<Self> {
        let value = u32::try_from(data.u64() & u64::from(u32::MAX)).ok()?;
        match data.u64() >> 32 {
            1 => Some(Self::Wake),
            2 => Some(Self::Kick(value)),
            3 => Some(Self::Device(value)),
            _ => None,
        }
    }
}

/// A handle to the daemon's one epoll instance. Clones share it.
#[derive(Clone, Debug)]
pub struct Watcher {
    epoll: Arc<OwnedFd>,
}

impl Watcher {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Arc::new(epoll::create(CreateFlags::CLOEXEC)?) })
    }

    /// Calls the device's `event` with `token` whenever `fd` is readable, until it is [removed](Self::remove).
    ///
    /// # Errors
    /// When `fd` is watched already or cannot be.
    pub fn add(&self, fd: impl AsFd, token: u32) -> io::Result<()> {
        self.insert(fd, Token::Device(token))
    }

    pub(crate) fn insert(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&*self.epoll, fd, token.pack(), EventFlags::IN)?)
    }

    /// Stops watching `fd`. To be called before it is closed: a duplicate elsewhere would keep it in the kernel's set.
    ///
    /// # Errors
    /// When it was not watched.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&*self.epoll, fd)?)
    }

    /// Waits until something is readable, at most as long as `timeout` says, and replaces `ready` by what is.
    pub(crate) fn wait(&self, timeout: Option<Timespec>, ready: &mut Vec<Token>) -> io::Result<()> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS_PER_WAIT];
        ready.clear();
        match epoll::wait(&*self.epoll, &mut events, timeout.as_ref()) {
            Ok(count) => {
                ready.extend(events.iter().take(count).filter_map(|event| Token::unpack(event.data)));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [Token::Wake, Token::Kick(1), Token::Device(u32::MAX)] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(EventData::new_u64(9 << 32)), None);
    }
}
