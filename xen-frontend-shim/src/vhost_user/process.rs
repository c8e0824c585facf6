// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The process of a backend that the supervisor has started, for the worker to have it killed and to see its
//! exit.
//!
//! The kernel unmaps what a process has mapped when it exits. A process that is killed exits at once, unless
//! it is in a system call that does not return: a wait for its exit has a limit.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A backend's process.
pub struct Process {
    pidfd: OwnedFd,
    kill: Rc<dyn Fn()>,
}

impl Process {
    /// The process behind a pidfd. `kill` has it killed: a worker has another user than its backends, and
    /// requests that of the supervisor.
    #[must_use]
    pub fn new(pidfd: OwnedFd, kill: Rc<dyn Fn()>) -> Self {
        Self { pidfd, kill }
    }

    /// Has it killed, unless it has exited.
    pub fn kill(&self) {
        if !self.exits_within(Duration::ZERO) {
            (self.kill)();
        }
    }

    /// Waits until it exits, at most for `limit`. True if it has exited.
    #[must_use]
    pub fn exits_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let mut pidfd = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut pidfd, Some(&limit.unwrap_or_default())), Ok(1..))
    }
}

impl AsFd for Process {
    /// The pidfd. It is readable when the process has exited.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::process::Command;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn process_is_killed_while_it_runs_only() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let kills = Rc::new(Cell::new(0));
        let count = Rc::clone(&kills);
        let process = Process::new(pidfd, Rc::new(move || count.set(count.get() + 1)));
        assert!(!process.exits_within(Duration::from_millis(1)));
        process.kill();
        assert_eq!(kills.get(), 1);
        child.kill().unwrap();
        assert!(process.exits_within(Duration::from_secs(60)));
        process.kill();
        assert_eq!(kills.get(), 1);
        child.wait().unwrap();
    }
}
