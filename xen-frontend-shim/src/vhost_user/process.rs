// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The process of a backend that the supervisor started: here it can be killed, and its end be seen.
//!
//! What a process has mapped is unmapped when it is gone, and not before. A process that is killed goes at
//! once, unless it is inside of a driver that does not return: so whoever waits, waits for a limited time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use log::warn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

/// A backend's process.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// The process behind a pidfd.
    #[must_use]
    pub fn new(pidfd: OwnedFd) -> Self {
        Self(pidfd)
    }

    /// Kills it.
    pub fn kill(&self) {
        if let Err(error) = pidfd_send_signal(&self.0, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            warn!("a backend cannot be killed: {error}");
        }
    }

    /// Waits for its end, at most for `limit`. Says whether it has ended.
    #[must_use]
    pub fn ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let mut pidfd = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut pidfd, Some(&limit.unwrap_or_default())), Ok(1..))
    }
}

impl AsFd for Process {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    fn start(program: &str, argument: &str) -> (Child, Process) {
        let child = Command::new(program).arg(argument).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        (child, Process::new(pidfd))
    }

    #[test]
    fn a_process_is_there_until_it_is_killed() {
        let (mut child, process) = start("sleep", "1000");
        assert!(!process.ends_within(Duration::from_millis(1)));
        process.kill();
        assert!(process.ends_within(Duration::from_secs(60)));
        child.wait().unwrap();
        // Nobody is hit once it is gone.
        process.kill();
        assert!(process.ends_within(Duration::ZERO));
    }
}
