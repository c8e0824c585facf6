// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Backends as the supervisor sees them: programs that it starts with a socket, or sockets where somebody else serves.
//!
//! It gives the other end of the connection to the guest's worker and keeps none: the connection lasts as long as worker and
//! backend do. What is said on it is not the supervisor's business.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use command_fds::{CommandFdExt, FdMapping};
use confinement::User;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, socket_with,
};
use thiserror::Error;

use super::back_off::BackOff;
use super::process::{self, Process};
use crate::control::Connection;

/// The number under which a program finds its socket.
const SOCKET_FD: i32 = 3;

/// The number under which it finds a place for descriptors that shall outlive it, and the variable that says so.
const KEEP_FD: i32 = 4;
const KEEP_VARIABLE: &str = "KEEP_FD";

/// Why a backend cannot be had.
#[derive(Debug, Error)]
pub(super) enum StartError {
    /// The configuration names no program.
    #[error("the command is empty: the device's `backend` needs a program")]
    NoProgram,
    /// The program cannot be started.
    #[error("cannot start {0}: {1}")]
    Spawn(String, #[source] io::Error),
    /// Nobody serves at the socket.
    #[error("nobody answers at {0}: {1}")]
    Connect(PathBuf, #[source] io::Error),
}

/// What there is of a backend.
#[derive(Debug, Default)]
enum Life {
    /// Nothing.
    #[default]
    None,
    /// The program, until it has ended.
    Program(Process),
    /// A connection, until the worker says that it has ended.
    Elsewhere,
}

/// The backend of one device.
#[derive(Debug)]
pub(super) struct Backend {
    /// For messages and for `ps`: the guest's and the device's name.
    pub(super) name: String,
    config: shim_config::Backend,
    /// What one life of the program leaves for the next: see [`place`].
    kept: Option<OwnedFd>,
    /// The user to start its program as.
    user: Option<User>,
    life: Life,
    pub(super) back_off: BackOff,
}

impl Backend {
    pub(super) fn new(name: String, config: shim_config::Backend, user: Option<User>) -> Self {
        Self { name, config, kept: None, user, life: Life::None, back_off: BackOff::default() }
    }

    /// Whether there is nothing of it, so that it can be started.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.life, Life::None)
    }

    /// Whether its absence is for the time being, because it is somebody else who starts it.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self.config, shim_config::Backend::Socket(_))
    }

    /// Its process, if there is one.
    pub(super) fn process(&mut self) -> Option<&mut Process> {
        match &mut self.life {
            Life::Program(process) => Some(process),
            _ => None,
        }
    }

    /// When there is something to do about it; `starts` says whether it may be started.
    pub(super) fn deadline(&self, starts: bool) -> Option<Instant> {
        match &self.life {
            Life::None if starts => self.back_off.due(),
            Life::Program(process) => process.deadline(),
            _ => None,
        }
    }

    /// Brings it to life. `gntdev` is for this life alone.
    pub(super) fn start(&mut self, gntdev: OwnedFd) -> Result<Connection, StartError> {
        let (socket, pidfd) = match &self.config {
            shim_config::Backend::Command(command) => {
                let (process, socket) = start(&self.name, command, self.user, &mut self.kept)?;
                let pidfd = process.as_fd().try_clone_to_owned();
                let pidfd = pidfd.map_err(|error| StartError::Spawn(self.name.clone(), error))?;
                self.life = Life::Program(process);
                (socket, Some(pidfd))
            }
            shim_config::Backend::Socket(path) => {
                let socket = reach(path).map_err(|error| StartError::Connect(path.clone(), error))?;
                self.life = Life::Elsewhere;
                (socket, None)
            }
        };
        Ok(Connection { socket, gntdev, pidfd })
    }

    /// Its process has ended, with this status.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        match std::mem::take(&mut self.life) {
            Life::Program(process) => process.reap().map(Some),
            other => {
                self.life = other;
                Ok(None)
            }
        }
    }

    /// The worker has let go of the connection. True if that is all there was.
    pub(super) fn let_go(&mut self) -> bool {
        let was_all = matches!(self.life, Life::Elsewhere);
        if was_all {
            self.life = Life::None;
        }
        was_all
    }
}

/// Starts `command` with one more argument, `--fd=N`: the conventions for backend programs of the vhost-user specification.
/// The program is to exit when the connection ends.
fn start(
    name: &str,
    command: &[String],
    user: Option<User>,
    kept: &mut Option<OwnedFd>,
) -> Result<(Process, UnixStream), StartError> {
    let (program, arguments) = command.split_first().ok_or(StartError::NoProgram)?;
    let failed = |error| StartError::Spawn(program.clone(), error);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let kept = match kept {
        Some(kept) => kept,
        none => none.insert(place().map_err(failed)?),
    };
    let mappings = vec![
        FdMapping { parent_fd: theirs.into(), child_fd: SOCKET_FD },
        FdMapping { parent_fd: kept.try_clone().map_err(failed)?, child_fd: KEEP_FD },
    ];
    let mut command = Command::new(program);
    command.arg0(title(name, program)).args(arguments).arg(format!("--fd={SOCKET_FD}"));
    command.env(KEEP_VARIABLE, KEEP_FD.to_string());
    process::run_as(&mut command, user);
    command.fd_mappings(mappings).map_err(|error| failed(io::Error::other(error)))?;
    Ok((Process::start(command).map_err(failed)?, ours))
}

/// A place for descriptors: a socket that is connected to itself. What a program sends there stays in its queue, whatever
/// becomes of the program, and the next receives it. Nobody else can send: it takes messages of its peer only.
fn place() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new_unnamed())?;
    connect(&socket, &getsockname(&socket)?)?;
    Ok(socket)
}

/// What `ps` shows for `program`. A program may look for its own name behind the last slash of it.
fn title(name: &str, program: &str) -> OsString {
    let slash = if program.starts_with('/') { "" } else { "/" };
    format!("{name}:{slash}{program}").into()
}

/// Connects to `path`, or fails at once.
fn reach(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::geteuid;

    use super::*;

    fn nothing() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn command(words: &[&str]) -> Backend {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        Backend::new("guest-a/i2c".into(), shim_config::Backend::Command(words), None)
    }

    fn wait(fd: &impl AsFd) {
        poll(&mut [PollFd::new(fd, PollFlags::IN)], None).unwrap();
    }

    #[test]
    fn a_program_finds_its_socket_and_its_end_is_seen() {
        // The appended `--fd=3` becomes $0.
        let mut backend = command(&["sh", "-c", "echo $0 >&3; exit 7"]);
        let mut connection = backend.start(nothing()).unwrap();
        assert!(!backend.is_absent() && !backend.let_go());
        let mut text = String::new();
        connection.socket.read_to_string(&mut text).unwrap();
        assert_eq!(text, "--fd=3\n");
        wait(connection.pidfd.as_ref().unwrap());
        assert_eq!(backend.ended().unwrap().and_then(|status| status.code()), Some(7));
        assert!(backend.is_absent());
    }

    #[test]
    fn a_program_shows_whose_it_is_and_keeps_its_own_name() {
        let mut backend = command(&["sh", "-c", "tr '\\0' ' ' </proc/$$/cmdline >&3"]);
        let mut connection = backend.start(nothing()).unwrap();
        let mut text = String::new();
        connection.socket.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("guest-a/i2c:/sh -c "), "{text}");
        assert_eq!(title("guest-a/i2c", "/usr/bin/backend"), "guest-a/i2c:/usr/bin/backend");
        wait(connection.pidfd.as_ref().unwrap());
        assert!(backend.ended().unwrap().is_some_and(|status| status.success()));
    }

    #[test]
    fn what_a_program_sends_to_itself_is_there_for_the_next() {
        let shell = "test $KEEP_FD = 4 && readlink /proc/self/fd/4 >&3";
        let mut backend = command(&["sh", "-c", shell]);
        let mut places = [(); 2].map(|()| {
            let mut connection = backend.start(nothing()).unwrap();
            let mut text = String::new();
            connection.socket.read_to_string(&mut text).unwrap();
            wait(connection.pidfd.as_ref().unwrap());
            assert!(backend.ended().unwrap().is_some_and(|status| status.success()));
            let place = backend.kept.as_ref().unwrap();
            assert_eq!(rustix::io::write(place, text.as_bytes()).unwrap(), text.len());
            text
        });
        assert!(places[0].starts_with("socket:") && places[0] == places[1], "{places:?}");
        let mut bytes = [0; 64];
        for text in &mut places {
            let length = rustix::io::read(backend.kept.as_ref().unwrap(), &mut bytes).unwrap();
            assert_eq!(&bytes[..length], text.as_bytes());
        }
    }

    #[test]
    fn a_program_is_started_as_its_user() {
        // Only root can start somebody else's programs.
        if !geteuid().is_root() {
            return;
        }
        let words = ["sh", "-c", "exec >&3; id -u; id -g; id -G"].map(str::to_owned).to_vec();
        let user = "10002:10003".parse().ok();
        let mut backend = Backend::new("guest-a/other".into(), shim_config::Backend::Command(words), user);
        let mut connection = backend.start(nothing()).unwrap();
        let mut text = String::new();
        connection.socket.read_to_string(&mut text).unwrap();
        assert_eq!(text, "10002\n10003\n10003\n");
        wait(connection.pidfd.as_ref().unwrap());
        assert!(backend.ended().unwrap().is_some_and(|status| status.success()));
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let mut backend = command(&["/no/such/backend"]);
        let error = backend.start(nothing()).unwrap_err().to_string();
        assert!(error.starts_with("cannot start /no/such/backend: No such file"), "{error}");
        assert!(backend.is_absent());
        assert!(matches!(command(&[]).start(nothing()), Err(StartError::NoProgram)));
    }

    #[test]
    fn a_socket_is_reached_when_somebody_serves_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut backend =
            Backend::new("guest-a/i2c".into(), shim_config::Backend::Socket(path.clone()), None);
        let error = backend.start(nothing()).unwrap_err().to_string();
        assert!(error.contains("nobody answers at") && backend.is_elsewhere(), "{error}");
        let _listener = UnixListener::bind(&path).unwrap();
        for _ in 0..2 {
            let connection = backend.start(nothing()).unwrap();
            assert!(connection.pidfd.is_none() && !backend.is_absent());
            assert!(backend.ended().unwrap().is_none() && !backend.is_absent());
            assert!(backend.let_go() && backend.is_absent());
        }
    }
}
