// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the supervisor waits for.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Instant;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::deadline::milliseconds_until;

/// How many events are fetched at once.
const BATCH: usize = 8;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The supervisor is to end.
    Termination,
    /// The configuration is to be read again.
    Reload,
    /// Some domain has ended.
    Obituary,
    /// The worker of a guest says something, or has hung up.
    Control(u16),
    /// The worker of a guest has ended.
    Worker(u16),
    /// The backend of a guest's device has ended.
    Backend(u16, u16),
}

impl Subject {
    /// The place of the guest that it concerns.
    pub(super) fn guest(self) -> Option<u16> {
        match self {
            Self::Termination | Self::Reload | Self::Obituary => None,
            Self::Control(guest) | Self::Worker(guest) | Self::Backend(guest, _) => Some(guest),
        }
    }

    fn token(self) -> u64 {
        let token =
            |kind: u64, guest: u16, device: u16| kind << 32 | u64::from(guest) << 16 | u64::from(device);
        match self {
            Self::Termination => token(0, 0, 0),
            Self::Reload => token(4, 0, 0),
            Self::Obituary => token(5, 0, 0),
            Self::Control(guest) => token(1, guest, 0),
            Self::Worker(guest) => token(2, guest, 0),
            Self::Backend(guest, device) => token(3, guest, device),
        }
    }

    fn of(token: u64) -> Self {
        let [device_low, device_high, guest_low, guest_high, kind, ..] = token.to_le_bytes();
        let guest = u16::from_le_bytes([guest_low, guest_high]);
        match kind {
            1 => Self::Control(guest),
            2 => Self::Worker(guest),
            3 => Self::Backend(guest, u16::from_le_bytes([device_low, device_high])),
            4 => Self::Reload,
            5 => Self::Obituary,
            _ => Self::Termination,
        }
    }
}

/// The set of everything that is waited for.
#[derive(Debug)]
pub(super) struct Watch(Epoll);

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new()?))
    }

    /// Waits for `fd` to be readable as well.
    pub(super) fn add(&self, fd: &impl AsRawFd, subject: Subject) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, subject.token());
        self.0.ctl(ControlOperation::Add, fd.as_raw_fd(), event)
    }

    /// No more. A descriptor of which there are copies elsewhere does not go by being closed.
    pub(super) fn remove(&self, fd: &impl AsRawFd) {
        // It can only fail if the descriptor is not in the set, which is as well.
        let _ = self.0.ctl(ControlOperation::Delete, fd.as_raw_fd(), EpollEvent::default());
    }

    /// Waits for events, or until `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<Subject>> {
        let mut events = [EpollEvent::default(); BATCH];
        match self.0.wait(milliseconds_until(deadline), &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(count) => Ok(events.iter().take(count).map(|event| Subject::of(event.data())).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn every_subject_has_a_token_of_its_own() {
        for subject in [
            Subject::Termination,
            Subject::Reload,
            Subject::Obituary,
            Subject::Control(0),
            Subject::Control(0xffff),
            Subject::Worker(0x102),
            Subject::Backend(0, 0),
            Subject::Backend(0x304, 0xffff),
        ] {
            assert_eq!(Subject::of(subject.token()), subject);
        }
    }

    #[test]
    fn what_was_removed_is_heard_no_more_though_it_has_copies() {
        let watch = Watch::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let _copy = ours.try_clone().unwrap();
        watch.add(&ours, Subject::Worker(7)).unwrap();
        theirs.write_all(b"!").unwrap();
        assert_eq!(watch.wait(None).unwrap(), [Subject::Worker(7)]);
        watch.remove(&ours);
        assert_eq!(watch.wait(Some(Instant::now())).unwrap(), []);
    }
}
