// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! epoll with typed events: each descriptor is watched under a value that identifies it.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::deadline::milliseconds_until;

/// The number of events that one wait returns at most. The others stay in the kernel for the next wait.
const EVENTS_PER_WAIT: usize = 16;

/// A set of watched descriptors, each with a value of type `T`.
///
/// The kernel keeps 64 bits for each descriptor: the value, serialised. So `T` has at most 8 bytes in that
/// form: an enumeration with up to two fields of 16 bits fits.
#[derive(Debug)]
pub(crate) struct EpollSet<T> {
    epoll: Epoll,
    values: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> EpollSet<T> {
    /// Creates an empty set.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()?, values: PhantomData })
    }

    /// Watches `fd` for `events` under `value`.
    pub(crate) fn add(&self, fd: &impl AsRawFd, events: EventSet, value: &T) -> io::Result<()> {
        self.control(ControlOperation::Add, fd, events, value)
    }

    /// Watches `fd`, which is in the set, for `events` under `value` from now on.
    pub(crate) fn modify(&self, fd: &impl AsRawFd, events: EventSet, value: &T) -> io::Result<()> {
        self.control(ControlOperation::Modify, fd, events, value)
    }

    /// Removes `fd` from the set; an `fd` that is not in the set is ignored.
    ///
    /// A descriptor of which duplicates are open elsewhere stays in the set when it is closed: it has to be
    /// removed.
    pub(crate) fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        match self.epoll.ctl(ControlOperation::Delete, fd.as_raw_fd(), EpollEvent::default()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Waits for events, at most until `deadline`, and appends their values to `ready`.
    pub(crate) fn wait(&self, deadline: Option<Instant>, ready: &mut Vec<T>) -> io::Result<()> {
        let mut events = [EpollEvent::default(); EVENTS_PER_WAIT];
        let count = match self.epoll.wait(milliseconds_until(deadline), &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        for event in events.iter().take(count) {
            ready.push(decode(event.data())?);
        }
        Ok(())
    }

    fn control(
        &self,
        operation: ControlOperation,
        fd: &impl AsRawFd,
        events: EventSet,
        value: &T,
    ) -> io::Result<()> {
        self.epoll.ctl(operation, fd.as_raw_fd(), EpollEvent::new(events, encode(value)?))
    }
}

fn encode<T: Serialize>(value: &T) -> io::Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    postcard::to_slice(value, &mut bytes).map_err(invalid)?;
    Ok(u64::from_le_bytes(bytes))
}

fn decode<T: DeserializeOwned>(data: u64) -> io::Result<T> {
    postcard::from_bytes(&data.to_le_bytes()).map_err(invalid)
}

fn invalid(error: postcard::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn ready(set: &EpollSet<(u16, u16)>, deadline: Option<Instant>) -> Vec<(u16, u16)> {
        let mut ready = Vec::new();
        set.wait(deadline, &mut ready).unwrap();
        ready
    }

    #[test]
    fn event_has_the_value_of_its_descriptor() {
        let set = EpollSet::new().unwrap();
        let pairs = [(0, 0), (7, u16::MAX)].map(|value| (value, UnixStream::pair().unwrap()));
        for (value, (ours, _)) in &pairs {
            set.add(ours, EventSet::IN, value).unwrap();
        }
        for (value, (_, theirs)) in &pairs {
            (&*theirs).write_all(b"!").unwrap();
            assert!(ready(&set, None).contains(value));
        }
    }

    #[test]
    fn removed_descriptor_with_an_open_duplicate_causes_no_event() {
        let set = EpollSet::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let _duplicate = ours.try_clone().unwrap();
        set.add(&ours, EventSet::IN, &(7, 0)).unwrap();
        theirs.write_all(b"!").unwrap();
        assert_eq!(ready(&set, None), [(7, 0)]);
        set.remove(&ours).unwrap();
        set.remove(&ours).unwrap();
        assert_eq!(ready(&set, Some(Instant::now())), []);
    }

    #[test]
    fn value_of_more_than_64_bits_is_refused() {
        assert_eq!(encode(&[u16::MAX; 3]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
