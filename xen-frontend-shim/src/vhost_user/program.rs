// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reaching a backend: by starting its program with a socket, or at a socket where somebody else serves.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use thiserror::Error;

/// The number under which a program finds its socket.
const SOCKET_FD: i32 = 3;

/// How long to wait for a socket that somebody else serves.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How often to look for it.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// How long a program may take to exit when its connection has ended.
const EXIT_LIMIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Why a backend cannot be reached.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration names no program.
    #[error("the command is empty: the device's `backend` needs a program")]
    NoProgram,
    /// The program cannot be started.
    #[error("cannot start {0}: {1}")]
    Spawn(String, #[source] io::Error),
    /// Nobody serves at the socket.
    #[error("nobody answers at {0} for {limit} s: {1}", limit = CONNECT_LIMIT.as_secs())]
    Connect(PathBuf, #[source] io::Error),
}

/// A backend program that this process started; killed and waited for when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    pidfd: OwnedFd,
}

impl Program {
    /// Starts `command` with one more argument, `--fd=N`: the conventions for backend programs of the vhost-user
    /// specification. The program is to exit when the connection ends.
    pub fn start(command: &[String]) -> Result<(Self, UnixStream), StartError> {
        let (program, arguments) = command.split_first().ok_or(StartError::NoProgram)?;
        let failed = |error| StartError::Spawn(program.clone(), error);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mapping = FdMapping { parent_fd: theirs.into(), child_fd: SOCKET_FD };
        let mut command = Command::new(program);
        command.args(arguments).arg(format!("--fd={SOCKET_FD}")).stdin(Stdio::null());
        command.fd_mappings(vec![mapping]).map_err(|error| failed(io::Error::other(error)))?;
        let child = command.spawn().map_err(failed)?;
        let pidfd = pidfd(&child).map_err(failed)?;
        Ok((Self { child, pidfd }, ours))
    }

    /// Ends the program, whose connection must have ended: upon that it should exit by itself and leave its hardware in
    /// order. Says how it did, and nothing if it had to be killed.
    ///
    /// What the program had mapped is unmapped when it is gone, and not before: so this waits.
    pub fn end(mut self) -> Option<ExitStatus> {
        self.finish()
    }

    fn finish(&mut self) -> Option<ExitStatus> {
        let mut pidfd = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let has_exited = matches!(poll(&mut pidfd, Some(&EXIT_LIMIT)), Ok(1..));
        if !has_exited {
            let _ = self.child.kill();
        }
        self.child.wait().ok().filter(|_| has_exited)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A descriptor that becomes readable when `child` ends.
pub fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    Ok(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?)
}

/// Connects to `path`. Whoever serves there may come up later than we do, and there is nothing to wait on.
pub fn connect(path: &Path) -> Result<UnixStream, StartError> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => return Err(StartError::Connect(path.into(), error)),
            Err(_) => thread::sleep(CONNECT_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn shell(script: &str) -> Vec<String> {
        // The appended `--fd=3` becomes $0.
        ["sh", "-c", script].map(String::from).to_vec()
    }

    #[test]
    fn a_program_finds_its_socket_and_its_end_is_seen() {
        let (program, mut socket) = Program::start(&shell("echo $0 >&3; exit 7")).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        assert_eq!(text, "--fd=3\n");
        assert_eq!(program.end().and_then(|status| status.code()), Some(7));
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = Program::start(&["/no/such/backend".into()]).unwrap_err().to_string();
        assert!(error.starts_with("cannot start /no/such/backend: No such file"), "{error}");
        assert!(matches!(Program::start(&[]), Err(StartError::NoProgram)));
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let (program, mut socket) = Program::start(&shell("exec sleep 1000")).unwrap();
        assert_eq!(program.end(), None);
        assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    }
}
