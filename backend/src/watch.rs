// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The descriptors that the daemon waits for, each with a token that identifies it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

/// Maximum number of events of one wait. Others stay in the kernel for the next.
const EVENTS_PER_WAIT: usize = 16;

/// Identifies a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The main thread wakes the worker.
    Wake,
    /// The kick descriptor of this queue.
    Kick(u32),
    /// A descriptor of the device, with the device's token.
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
    /// Creates an epoll instance.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Arc::new(epoll::create(CreateFlags::CLOEXEC)?) })
    }

    /// Reports `token` to the device whenever `fd` is readable, until it is [removed](Self::remove).
    ///
    /// # Errors
    /// When `fd` is watched already or cannot be.
    pub fn add(&self, fd: impl AsFd, token: u32) -> io::Result<()> {
        self.insert(fd, Token::Device(token))
    }

    pub(crate) fn insert(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&*self.epoll, fd, token.pack(), EventFlags::IN)?)
    }

    /// Stops watching `fd`. Must be called before it is closed: a duplicate elsewhere would keep it in the
    /// epoll set.
    ///
    /// # Errors
    /// When it was not watched.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&*self.epoll, fd)?)
    }

    /// Waits for events, at most for `timeout`, and replaces `ready` by the tokens of the readable
    /// descriptors.
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
    fn a_token_is_unpacked_as_it_was_packed() {
        for token in [Token::Wake, Token::Kick(1), Token::Device(u32::MAX)] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(EventData::new_u64(9 << 32)), None);
    }
}
