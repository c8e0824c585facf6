// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process that the supervisor has started: a worker, or a backend.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use confinement::User;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process to be waited for. Whatever it does, waiting for its end is the event loop's business.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pidfd: OwnedFd,
    kill_at: Option<Instant>,
}

/// Has `command` run as `user`, without other groups, if there is one.
pub(super) fn run_as(command: &mut Command, user: Option<User>) {
    if let Some(user) = user {
        command.uid(user.uid()).gid(user.gid());
    }
}

impl Process {
    /// Starts `command`.
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { child, pidfd, kill_at: None }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// The status of the process, which has ended: its descriptor is readable.
    pub(super) fn reap(mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// It is to end by itself now, and has until `then` for it.
    pub(super) fn expect_end(&mut self, then: Instant) {
        self.kill_at.get_or_insert(then);
    }

    /// When its patience ends, if it has been given any.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.kill_at
    }

    /// Kills it if its time is up.
    pub(super) fn enforce(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|deadline| deadline <= now) {
            self.kill_at = None;
            // It can only fail if the process has ended.
            let _ = self.child.kill();
        }
    }
}

impl AsFd for Process {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn a_process_that_does_not_end_in_time_is_killed() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut process = Process::start(command).unwrap();
        let now = Instant::now();
        let then = now + Duration::from_secs(60);
        process.enforce(now);
        process.expect_end(then);
        assert_eq!(process.deadline(), Some(then));
        process.enforce(then);
        assert_eq!(process.deadline(), None);
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
        assert!(!process.reap().unwrap().success());
    }
}
