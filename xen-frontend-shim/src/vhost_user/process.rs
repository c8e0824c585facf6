// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The process of a backend that the supervisor has started, for the worker to kill it and to see its exit.
//!
//! The kernel unmaps what a process has mapped when it exits. A process that is killed exits at once, unless
//! it is in a system call that does not return: a wait for its exit has a limit.

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

    /// Sends SIGKILL.
    pub fn kill(&self) {
        if let Err(error) = pidfd_send_signal(&self.0, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            warn!("cannot kill a backend: {error}");
        }
    }

    /// Waits until it exits, at most for `limit`. True if it has exited.
    #[must_use]
    pub fn exits_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let mut pidfd = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut pidfd, Some(&limit.unwrap_or_default())), Ok(1..))
    }
}

impl AsFd for Process {
    /// The pidfd. It is readable when the process has exited.
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
    fn a_process_runs_until_it_is_killed_and_may_be_killed_again() {
        let (mut child, process) = start("sleep", "1000");
        assert!(!process.exits_within(Duration::from_millis(1)));
        process.kill();
        assert!(process.exits_within(Duration::from_secs(60)));
        child.wait().unwrap();
        process.kill();
        assert!(process.exits_within(Duration::ZERO));
    }
}
