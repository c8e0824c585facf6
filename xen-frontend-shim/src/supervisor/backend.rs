// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The backends as the supervisor starts them: programs, or sockets at which other programs serve.
//!
//! The supervisor passes the connection to the guest's worker and keeps no end of it: the connection ends
//! with the worker or the backend.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use command_fds::{CommandFdExt, FdMapping, FdMappingCollision};
use log::warn;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, socket_with,
};
use shim_config::Program;
use shim_config::backend::FD;
use thiserror::Error;

use super::back_off::BackOff;
use super::process::{self, ChildProcess};
use crate::control::Connection;

/// The number of the vhost-user socket in a program.
const SOCKET_FD: i32 = 3;
/// The number of the keep socket in a program, and the variable that names it: see [`keep_socket`].
const KEEP_FD: i32 = 4;
const KEEP_VARIABLE: &str = "KEEP_FD";

/// Reasons why a backend is not started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration names no program.
    #[error("the command is empty: the device's `backend` needs a program")]
    NoProgram,
    /// The program cannot be started.
    #[error("cannot start {0}: {1}")]
    Spawn(String, #[source] io::Error),
    /// The descriptors of the program cannot be passed.
    #[error("cannot start {0}: {1}")]
    Fds(String, #[source] FdMappingCollision),
    /// No program listens at the socket.
    #[error("cannot connect to {0}: {1}")]
    Connect(PathBuf, #[source] io::Error),
}

/// The state of a backend.
#[derive(Debug, Default)]
enum BackendState {
    /// There is neither a process nor a connection.
    #[default]
    Absent,
    /// The program runs.
    Running(ChildProcess),
    /// The worker is connected to a program that the supervisor did not start.
    Connected,
}

/// The backend of one device.
#[derive(Debug)]
pub(super) struct ManagedBackend {
    /// The names of guest and device, for messages and the process list.
    pub(super) name: String,
    config: shim_config::Backend,
    /// The keep socket, which every process of this backend inherits: see [`keep_socket`].
    kept: Option<OwnedFd>,
    state: BackendState,
    /// Whether the worker has ended the connection to a program that has served it.
    is_disconnected: bool,
    pub(super) back_off: BackOff,
}

/// How a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After its connection: many programs serve one connection only, and others are killed then.
    WithConnection,
    /// By itself, or it could not be used.
    Failed(ExitStatus),
}

impl ManagedBackend {
    pub(super) fn new(name: String, config: shim_config::Backend) -> Self {
        Self {
            name,
            config,
            kept: None,
            state: BackendState::Absent,
            is_disconnected: false,
            back_off: BackOff::default(),
        }
    }

    /// Whether there is neither a process nor a connection, so that the backend can be started.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.state, BackendState::Absent)
    }

    /// Whether another program starts the backend, and may do so later.
    pub(super) fn is_external(&self) -> bool {
        matches!(self.config, shim_config::Backend::Socket(_))
    }

    /// The process, if it runs.
    pub(super) fn process(&mut self) -> Option<&mut ChildProcess> {
        match &mut self.state {
            BackendState::Running(process) => Some(process),
            _ => None,
        }
    }

    /// The time at which the backend is to be killed, or started if `may_start`.
    pub(super) fn deadline(&self, may_start: bool) -> Option<Instant> {
        match &self.state {
            BackendState::Absent if may_start => self.back_off.due(),
            BackendState::Running(process) => process.deadline(),
            _ => None,
        }
    }

    /// Starts the backend, or connects to it. `gntdev` is for this process only.
    pub(super) fn start(&mut self, gntdev: OwnedFd) -> Result<Connection, StartError> {
        self.is_disconnected = false;
        let (socket, pidfd) = match &self.config {
            shim_config::Backend::Program(program) => {
                let (process, socket) = start(&self.name, program, &mut self.kept)?;
                let pidfd = process.as_fd().try_clone_to_owned();
                let pidfd = pidfd.map_err(|error| StartError::Spawn(self.name.clone(), error))?;
                self.state = BackendState::Running(process);
                (socket, Some(pidfd))
            }
            shim_config::Backend::Socket(path) => {
                let socket = connect_to(path).map_err(|error| StartError::Connect(path.clone(), error))?;
                self.state = BackendState::Connected;
                (socket, None)
            }
        };
        Ok(Connection { socket, gntdev, pidfd })
    }

    /// Reaps the process, which has ended. `None` if there is none.
    pub(super) fn reap(&mut self) -> io::Result<Option<End>> {
        match std::mem::take(&mut self.state) {
            BackendState::Running(process) => {
                let was_killed = process.was_killed();
                let status = process.reap()?;
                let is_end = self.is_disconnected && (status.success() || was_killed);
                Ok(Some(if is_end { End::WithConnection } else { End::Failed(status) }))
            }
            other => {
                self.state = other;
                Ok(None)
            }
        }
    }

    /// Records that the worker has closed the connection, and whether it `has_served` the device. Returns
    /// whether the backend is absent by that: a process is still to end.
    pub(super) fn connection_closed(&mut self, has_served: bool) -> bool {
        self.is_disconnected |= has_served;
        let was_connected = matches!(self.state, BackendState::Connected);
        if was_connected {
            self.state = BackendState::Absent;
        }
        was_connected
    }

    /// Records a failure of the backend, and logs it unless it is one of many.
    pub(super) fn failed(&mut self, what: &str, now: Instant) {
        let retry = self.back_off.failed(now);
        if retry.is_logged() {
            warn!("{}: {what}; {retry}", self.name);
        }
    }
}

/// Starts `program` with the number of its socket in the place of [`FD`]. It is to exit when the connection
/// ends.
fn start(
    name: &str,
    program: &Program,
    kept: &mut Option<OwnedFd>,
) -> Result<(ChildProcess, UnixStream), StartError> {
    let Program { command, user, .. } = program;
    let (program, arguments) = command.split_first().ok_or(StartError::NoProgram)?;
    let arguments = arguments.iter().map(|word| word.replace(FD, &SOCKET_FD.to_string()));
    let failed = |error| StartError::Spawn(program.clone(), error);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let kept = match kept {
        Some(kept) => kept,
        none => none.insert(keep_socket().map_err(failed)?),
    };
    let mappings = vec![
        FdMapping { parent_fd: theirs.into(), child_fd: SOCKET_FD },
        FdMapping { parent_fd: kept.try_clone().map_err(failed)?, child_fd: KEEP_FD },
    ];
    let mut command = Command::new(program);
    command.arg0(title(name, program)).args(arguments);
    command.env(KEEP_VARIABLE, KEEP_FD.to_string());
    process::run_as(&mut command, *user);
    command.fd_mappings(mappings).map_err(|error| StartError::Fds(program.clone(), error))?;
    Ok((ChildProcess::start(command).map_err(failed)?, ours))
}

/// Creates a socket in which a program keeps descriptors for the next process of the same backend: a datagram
/// socket that is connected to itself. Messages stay in its queue when the program ends. Other sockets cannot
/// send to it, since it accepts messages of its peer only.
fn keep_socket() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new_unnamed())?;
    connect(&socket, &getsockname(&socket)?)?;
    Ok(socket)
}

/// The name of `program` in the process list. A program may take its own name from behind the last slash.
fn title(name: &str, program: &str) -> OsString {
    let slash = if program.starts_with('/') { "" } else { "/" };
    format!("{name}:{slash}{program}").into()
}

/// Connects to `path` without blocking.
fn connect_to(path: &Path) -> io::Result<UnixStream> {
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

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn command(words: &[&str]) -> ManagedBackend {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        let program = shim_config::Backend::Program(Program::new(words));
        ManagedBackend::new("guest-a/i2c".into(), program)
    }

    fn wait(fd: &impl AsFd) {
        poll(&mut [PollFd::new(fd, PollFlags::IN)], None).unwrap();
    }

    /// The exit status of a program that has ended by itself.
    fn code(backend: &mut ManagedBackend) -> Option<i32> {
        match backend.reap().unwrap() {
            Some(End::Failed(status)) => status.code(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn program_that_ends_with_its_connection_has_not_failed() {
        // It exits at the end of file with status 0, with another status, or not by itself.
        for (then, is_killed, is_failure) in
            [("", false, false), ("; exit 7", false, true), ("; sleep 1000", true, false)]
        {
            let mut backend = command(&["sh", "-c", &format!("exec 4<&-; cat <&3 >&2{then}")]);
            let connection = backend.start(null()).unwrap();
            backend.connection_closed(true);
            let pidfd = connection.pidfd.unwrap();
            drop(connection.socket);
            if is_killed {
                let now = Instant::now();
                let process = backend.process().unwrap();
                process.expect_end(now);
                process.kill_if_overdue(now);
            }
            wait(&pidfd);
            assert_eq!(matches!(backend.reap().unwrap(), Some(End::Failed(_))), is_failure, "{then}");
        }
    }

    #[test]
    fn program_has_its_socket_and_its_end_is_noticed() {
        let mut backend = command(&["sh", "-c", "echo $0 >&3; exit 7", "--fd={fd}"]);
        let mut connection = backend.start(null()).unwrap();
        assert!(!backend.is_absent() && !backend.connection_closed(true));
        let mut text = String::new();
        connection.socket.read_to_string(&mut text).unwrap();
        assert_eq!(text, "--fd=3\n");
        wait(connection.pidfd.as_ref().unwrap());
        assert_eq!(code(&mut backend), Some(7));
        assert!(backend.is_absent());
    }

    #[test]
    fn process_list_shows_guest_and_device_and_program() {
        let mut backend = command(&["sh", "-c", "tr '\\0' ' ' </proc/$$/cmdline >&3"]);
        let mut connection = backend.start(null()).unwrap();
        let mut text = String::new();
        connection.socket.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("guest-a/i2c:/sh -c "), "{text}");
        assert_eq!(title("guest-a/i2c", "/usr/bin/backend"), "guest-a/i2c:/usr/bin/backend");
        wait(connection.pidfd.as_ref().unwrap());
        assert_eq!(code(&mut backend), Some(0));
    }

    #[test]
    fn message_in_the_keep_socket_is_there_for_the_next_process() {
        let shell = "test $KEEP_FD = 4 && readlink /proc/self/fd/4 >&3";
        let mut backend = command(&["sh", "-c", shell]);
        let mut texts = [(); 2].map(|()| {
            let mut connection = backend.start(null()).unwrap();
            let mut text = String::new();
            connection.socket.read_to_string(&mut text).unwrap();
            wait(connection.pidfd.as_ref().unwrap());
            assert_eq!(code(&mut backend), Some(0));
            let kept = backend.kept.as_ref().unwrap();
            assert_eq!(rustix::io::write(kept, text.as_bytes()).unwrap(), text.len());
            text
        });
        assert!(texts[0].starts_with("socket:") && texts[0] == texts[1], "{texts:?}");
        let mut bytes = [0; 64];
        for text in &mut texts {
            let length = rustix::io::read(backend.kept.as_ref().unwrap(), &mut bytes).unwrap();
            assert_eq!(&bytes[..length], text.as_bytes());
        }
    }

    #[test]
    fn program_runs_as_its_user() {
        // Only root can start a program as another user.
        if !geteuid().is_root() {
            return;
        }
        let command = ["sh", "-c", "exec >&3; id -u; id -g; id -G"].map(str::to_owned).to_vec();
        let user = "10002:10003".parse().ok();
        let program = Program { command, user, confine: None };
        let mut backend = ManagedBackend::new("guest-a/other".into(), shim_config::Backend::Program(program));
        let mut connection = backend.start(null()).unwrap();
        let mut text = String::new();
        connection.socket.read_to_string(&mut text).unwrap();
        assert_eq!(text, "10002\n10003\n10003\n");
        wait(connection.pidfd.as_ref().unwrap());
        assert_eq!(code(&mut backend), Some(0));
    }

    #[test]
    fn missing_program_is_named() {
        let mut backend = command(&["/no/such/backend"]);
        let error = backend.start(null()).unwrap_err().to_string();
        assert!(error.starts_with("cannot start /no/such/backend: No such file"), "{error}");
        assert!(backend.is_absent());
        assert!(matches!(command(&[]).start(null()), Err(StartError::NoProgram)));
    }

    #[test]
    fn socket_is_connected_when_a_program_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut backend =
            ManagedBackend::new("guest-a/i2c".into(), shim_config::Backend::Socket(path.clone()));
        let error = backend.start(null()).unwrap_err().to_string();
        assert!(error.contains("cannot connect to") && backend.is_external(), "{error}");
        let _listener = UnixListener::bind(&path).unwrap();
        for _ in 0..2 {
            let connection = backend.start(null()).unwrap();
            assert!(connection.pidfd.is_none() && !backend.is_absent());
            assert!(backend.reap().unwrap().is_none() && !backend.is_absent());
            assert!(backend.connection_closed(true) && backend.is_absent());
        }
    }
}
