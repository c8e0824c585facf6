// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The events that the supervisor waits for.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use vmm_sys_util::epoll::EventSet;

use crate::epoll::EpollSet;

/// What became readable. Guests are named by their indices, devices by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Subject {
    /// SIGTERM or SIGINT has come.
    Termination,
    /// SIGHUP has come.
    Reload,
    /// A domain has ended.
    DomainExit,
    /// The worker of a guest has sent a report or closed its control socket.
    Control(u16),
    /// The worker of a guest has ended.
    Worker(u16),
    /// The backend of a guest's device has ended.
    Backend(u16, u16),
}

/// The descriptors that the supervisor watches.
#[derive(Debug)]
pub(super) struct Watch(EpollSet<Subject>);

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(EpollSet::new()?))
    }

    /// Watches `fd` for being readable.
    pub(super) fn add(&self, fd: &impl AsRawFd, subject: Subject) -> io::Result<()> {
        self.0.add(fd, EventSet::IN, &subject)
    }

    /// Stops watching `fd`. Children may hold duplicates, so closing it is not enough.
    pub(super) fn remove(&self, fd: &impl AsRawFd) {
        // This fails only for a descriptor that is closed already.
        let _ = self.0.remove(fd);
    }

    /// Waits for events, at most until `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<Subject>> {
        let mut ready = Vec::new();
        self.0.wait(deadline, &mut ready)?;
        Ok(ready)
    }
}
