// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A child process of the supervisor: a worker or a backend.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use confinement::User;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A child process, with a descriptor that the event loop watches for its end.
#[derive(Debug)]
pub(super) struct ChildProcess {
    child: Child,
    pidfd: OwnedFd,
    kill_at: Option<Instant>,
    was_killed: bool,
}

/// Makes `command` run as `user`, without supplementary groups. Without a user it runs as root.
pub(super) fn run_as(command: &mut Command, user: Option<User>) {
    if let Some(user) = user {
        command.uid(user.uid()).gid(user.gid());
    }
}

impl ChildProcess {
    /// Starts `command` with `/dev/null` as standard input.
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { child, pidfd, kill_at: None, was_killed: false }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Waits for the process. It has ended if its descriptor is readable.
    pub(super) fn reap(mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Gives the process until `deadline` to end. An earlier deadline stays.
    pub(super) fn expect_end(&mut self, deadline: Instant) {
        self.kill_at = Some(self.kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// Whether it has been killed.
    pub(super) fn was_killed(&self) -> bool {
        self.was_killed
    }

    /// The time at which the process is to be killed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.kill_at
    }

    /// Kills the process if its deadline has passed.
    pub(super) fn kill_if_overdue(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|deadline| deadline <= now) {
            self.kill_at = None;
            self.was_killed = true;
            // This fails only if the process has ended.
            let _ = self.child.kill();
        }
    }
}

impl AsFd for ChildProcess {
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
    fn process_that_does_not_end_in_time_is_killed() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut process = ChildProcess::start(command).unwrap();
        let now = Instant::now();
        let then = now + Duration::from_secs(60);
        process.kill_if_overdue(now);
        process.expect_end(then);
        assert_eq!(process.deadline(), Some(then));
        process.kill_if_overdue(then);
        assert_eq!(process.deadline(), None);
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
        assert!(!process.reap().unwrap().success());
    }
}
