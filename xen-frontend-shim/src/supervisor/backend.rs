// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The backends as the supervisor starts them: programs, or sockets at which other programs serve.
//!
//! ```text
//!   absent ── start ──▶ program awaited ── it listens ──▶ running ── it ends ──▶ absent
//!     │  └── start, with a socket made before ───────────▶
//!     └──── another program listens ──▶ connected ── connection closed ──▶ absent
//! ```
//!
//! The supervisor passes the connection to the guest's worker and keeps no end of it: the connection ends
//! with the worker or the backend.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use confinement::Enforcement;
use log::warn;
use shim_config::Backend;
use thiserror::Error;

use super::back_off::BackOff;
use super::process::ChildProcess;
use super::program::{ProgramError, ProgramSocket, Surroundings};
use super::socket::{SocketDirectory, connect_to};
use crate::control::Connection;

/// How long a program may take until it listens at its socket.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);
/// The first delay between two attempts to connect to a program, and the longest one. The kernel reports a
/// new socket, but not when a program begins to listen at it.
const CONNECT_DELAYS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

/// Why a backend is not used, in the log. The worker logs the reason.
pub(super) const UNUSABLE: &str = "the backend cannot be used";

/// Reasons why a backend is not started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The program cannot be started.
    #[error("{0}")]
    Program(#[from] ProgramError),
    /// The process cannot be watched.
    #[error("cannot watch its process: {0}")]
    Watch(#[source] io::Error),
    /// No program listens at the socket.
    #[error("cannot connect to {0}: {1}")]
    Connect(PathBuf, #[source] io::Error),
    /// The program has not made its socket.
    #[error(
        "the program does not listen at {0} after {LISTEN_LIMIT:?}: see its messages, and the option of its \
         command that has {{socket}}"
    )]
    NoSocket(PathBuf),
}

/// The state of a backend.
#[derive(Debug, Default)]
enum BackendState {
    /// There is neither a process nor a connection.
    #[default]
    Absent,
    /// The program runs, and does not listen at its socket yet.
    Awaited(ChildProcess, Awaited),
    /// The program runs.
    Running(ChildProcess),
    /// The worker is connected to a program that the supervisor did not start.
    Connected,
}

/// A program that is to listen at its socket.
#[derive(Debug)]
struct Awaited {
    directory: SocketDirectory,
    memory: OwnedFd,
    try_at: Instant,
    delay: Duration,
    give_up_at: Instant,
}

/// The backend of one device.
#[derive(Debug)]
pub(super) struct ManagedBackend {
    config: Backend,
    surroundings: Surroundings,
    state: BackendState,
    /// Whether the worker has ended the connection to a program that has served it.
    is_disconnected: bool,
    /// Why the process has to end.
    failure: Option<String>,
    back_off: BackOff,
}

/// How a program has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After its connection: many programs serve one connection only, and others are killed then.
    WithConnection,
    /// By itself, or it could not be used.
    Failed(String),
}

impl ManagedBackend {
    /// The backend of the device `name`. Its program makes its socket in `sockets`.
    pub(super) fn new(name: String, config: Backend, sockets: PathBuf, seccomp: Enforcement) -> Self {
        Self {
            config,
            surroundings: Surroundings { name, sockets, seccomp, kept: None },
            state: BackendState::Absent,
            is_disconnected: false,
            failure: None,
            back_off: BackOff::default(),
        }
    }

    /// The names of guest and device.
    pub(super) fn name(&self) -> &str {
        &self.surroundings.name
    }

    /// Whether there is neither a process nor a connection, so that the backend can be started.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.state, BackendState::Absent)
    }

    /// Whether another program starts the backend, and may do so later.
    pub(super) fn is_external(&self) -> bool {
        matches!(self.config, Backend::Socket(_))
    }

    /// The process, if it runs.
    pub(super) fn process(&mut self) -> Option<&mut ChildProcess> {
        match &mut self.state {
            BackendState::Running(process) | BackendState::Awaited(process, _) => Some(process),
            BackendState::Absent | BackendState::Connected => None,
        }
    }

    /// The time at which the backend is to be killed, or started or connected to if `may_start`.
    pub(super) fn deadline(&self, may_start: bool) -> Option<Instant> {
        match &self.state {
            BackendState::Absent if may_start => self.back_off.due(),
            BackendState::Running(process) => process.deadline(),
            BackendState::Awaited(process, awaited) => {
                let try_at = may_start.then_some(awaited.try_at);
                try_at.into_iter().chain(process.deadline()).min()
            }
            BackendState::Absent | BackendState::Connected => None,
        }
    }

    /// Whether it is to be started now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_absent() && self.back_off.is_due(now)
    }

    /// Starts the backend, or connects to it. `None` if its program is to listen first. `memory` is for this
    /// process only.
    pub(super) fn start(&mut self, memory: OwnedFd, now: Instant) -> Result<Option<Connection>, StartError> {
        self.is_disconnected = false;
        self.failure = None;
        self.back_off.started(now);
        let program = match &self.config {
            Backend::Program(program) => program,
            Backend::Socket(path) => {
                let socket = connect_to(path).map_err(|error| StartError::Connect(path.clone(), error))?;
                self.state = BackendState::Connected;
                return Ok(Some(Connection { socket, memory, pidfd: None }));
            }
        };
        let (process, socket) = self.surroundings.start(program)?;
        match socket {
            ProgramSocket::Connected(socket) => self.running(process, socket, memory, now),
            ProgramSocket::Awaited(directory) => {
                let delay = CONNECT_DELAYS[0];
                let (try_at, give_up_at) = (now + delay, now + LISTEN_LIMIT);
                let awaited = Awaited { directory, memory, try_at, delay, give_up_at };
                self.state = BackendState::Awaited(process, awaited);
                Ok(None)
            }
        }
    }

    /// Connects to a program that is awaited. `None` if there is none, or if it does not listen yet. If this
    /// fails the program is killed.
    pub(super) fn connect(&mut self, now: Instant) -> Result<Option<Connection>, StartError> {
        let BackendState::Awaited(process, awaited) = &mut self.state else { return Ok(None) };
        if awaited.try_at > now || process.deadline().is_some() {
            return Ok(None);
        }
        match awaited.directory.connect() {
            Ok(Some(socket)) => self.connected(socket, now),
            Ok(None) if awaited.give_up_at > now => {
                awaited.delay = awaited.delay.saturating_mul(2).min(CONNECT_DELAYS[1]);
                awaited.try_at = now + awaited.delay;
                Ok(None)
            }
            Ok(None) => {
                let error = StartError::NoSocket(awaited.directory.socket());
                Err(self.give_up(error, now))
            }
            Err(error) => {
                let error = StartError::Connect(awaited.directory.socket(), error);
                Err(self.give_up(error, now))
            }
        }
    }

    /// The connection to a program that was awaited.
    fn connected(&mut self, socket: UnixStream, now: Instant) -> Result<Option<Connection>, StartError> {
        match std::mem::take(&mut self.state) {
            BackendState::Awaited(process, Awaited { memory, .. }) => {
                self.running(process, socket, memory, now)
            }
            other => {
                self.state = other;
                Ok(None)
            }
        }
    }

    /// The connection to a program that runs.
    fn running(
        &mut self,
        process: ChildProcess,
        socket: UnixStream,
        memory: OwnedFd,
        now: Instant,
    ) -> Result<Option<Connection>, StartError> {
        let pidfd = process.as_fd().try_clone_to_owned();
        self.state = BackendState::Running(process);
        match pidfd {
            Ok(pidfd) => Ok(Some(Connection { socket, memory, pidfd: Some(pidfd) })),
            Err(error) => Err(self.give_up(StartError::Watch(error), now)),
        }
    }

    /// Has the process killed, which fails by this `error`.
    fn give_up(&mut self, error: StartError, now: Instant) -> StartError {
        self.failure = Some(error.to_string());
        if let Some(process) = self.process() {
            process.expect_end(now);
        }
        error
    }

    /// Reaps the process, which has ended. `None` if there is none.
    pub(super) fn reap(&mut self) -> io::Result<Option<End>> {
        match std::mem::take(&mut self.state) {
            BackendState::Running(process) | BackendState::Awaited(process, _) => {
                let was_killed = process.was_killed();
                let status = process.reap()?;
                if self.is_disconnected && (status.success() || was_killed) {
                    return Ok(Some(End::WithConnection));
                }
                let reason = self.failure.take().unwrap_or_else(|| "backend ended".to_owned());
                Ok(Some(End::Failed(format!("{reason} ({status})"))))
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
        if has_served {
            self.is_disconnected = true;
        } else {
            self.failure.get_or_insert_with(|| UNUSABLE.to_owned());
        }
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
            warn!("{}: {what}; {retry}", self.name());
        }
    }

    /// Records that the backend has ended as it should.
    pub(super) fn ended(&mut self, now: Instant) {
        self.back_off.ended(now);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::geteuid;
    use shim_config::Program;

    use super::*;
    use crate::launch::title;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn managed(backend: Backend) -> ManagedBackend {
        ManagedBackend::new("guest-a/i2c".into(), backend, "/no/such".into(), Enforcement::On)
    }

    fn command(words: &[&str]) -> ManagedBackend {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        managed(Backend::Program(Program::new(words)))
    }

    /// A shell that runs `script` with its socket as descriptor 3.
    fn shell(script: &str) -> ManagedBackend {
        command(&["sh", "-c", script, "--fd={fd}"])
    }

    fn start(backend: &mut ManagedBackend) -> Connection {
        backend.start(null(), Instant::now()).unwrap().unwrap()
    }

    fn wait(fd: &impl AsFd) {
        poll(&mut [PollFd::new(fd, PollFlags::IN)], None).unwrap();
    }

    /// Reads what a program writes to its connection, and waits for its end. Returns that as well.
    fn output(backend: &mut ManagedBackend) -> (String, String) {
        let mut connection = start(backend);
        let mut text = String::new();
        connection.socket.read_to_string(&mut text).unwrap();
        wait(connection.pidfd.as_ref().unwrap());
        match backend.reap().unwrap() {
            Some(End::Failed(reason)) => (text, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn program_that_ends_with_its_connection_has_not_failed() {
        // It exits at the end of file with status 0, with another status, or not by itself.
        for (then, is_killed, is_failure) in
            [("", false, false), ("; exit 7", false, true), ("; sleep 1000", true, false)]
        {
            let mut backend = shell(&format!("exec 4<&-; cat <&3 >&2{then}"));
            let connection = start(&mut backend);
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
    fn program_that_is_refused_has_failed_even_if_it_ends_with_status_0() {
        let mut backend = shell("exec 4<&-; cat <&3 >&2");
        let connection = start(&mut backend);
        assert!(!backend.connection_closed(false));
        drop(connection.socket);
        wait(connection.pidfd.as_ref().unwrap());
        let reason = format!("{UNUSABLE} (exit status: 0)");
        assert_eq!(backend.reap().unwrap(), Some(End::Failed(reason)));
    }

    #[test]
    fn program_has_its_socket_and_its_end_is_noticed() {
        // The last word becomes $0.
        let mut backend = shell("echo $0 >&3; exit 7");
        let (text, reason) = output(&mut backend);
        assert_eq!((text.as_str(), reason.as_str()), ("--fd=3\n", "backend ended (exit status: 7)"));
        assert!(backend.is_absent());
    }

    #[test]
    fn process_list_shows_guest_and_device_and_program() {
        let (text, _) = output(&mut shell("tr '\\0' ' ' </proc/$$/cmdline >&3"));
        assert!(text.starts_with("guest-a/i2c:/") && text.contains("/sh -c "), "{text}");
        assert_eq!(title("guest-a/i2c", Path::new("/usr/bin/backend")), "guest-a/i2c:/usr/bin/backend");
    }

    #[test]
    fn message_in_the_keep_socket_is_there_for_the_next_process() {
        let mut backend = shell("test $KEEP_FD = 4 && readlink /proc/self/fd/4 >&3");
        let mut texts = [(); 2].map(|()| {
            let (text, _) = output(&mut backend);
            let kept = backend.surroundings.kept.as_ref().unwrap();
            assert_eq!(rustix::io::write(kept, text.as_bytes()).unwrap(), text.len());
            text
        });
        assert!(texts[0].starts_with("socket:") && texts[0] == texts[1], "{texts:?}");
        let mut bytes = [0; 64];
        for text in &mut texts {
            let kept = backend.surroundings.kept.as_ref().unwrap();
            let length = rustix::io::read(kept, &mut bytes).unwrap();
            assert_eq!(&bytes[..length], text.as_bytes());
        }
    }

    #[test]
    fn program_runs_as_its_user() {
        // Only root can start a program as another user.
        if !geteuid().is_root() {
            return;
        }
        let words = ["sh", "-c", "exec >&3; id -u; id -g; id -G", "{fd}"].map(str::to_owned).to_vec();
        let program = Program { user: "10002:10003".parse().ok(), ..Program::new(words) };
        assert_eq!(output(&mut managed(Backend::Program(program))).0, "10002\n10003\n10003\n");
    }

    #[test]
    fn program_that_cannot_be_started_is_an_error_with_the_remedy() {
        for (words, expected) in [
            (&["/no/such/backend", "{fd}"][..], "cannot start /no/such/backend: there is no such program"),
            (&[], "the command is empty"),
            (&["sh"], "the command needs one place for its socket: {fd} (a connected"),
            (&["sh", "{listen-fd}"], "cannot make the socket of /"),
        ] {
            let mut backend = command(words);
            let error = backend.start(null(), Instant::now()).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(backend.is_absent());
        }
    }

    /// A backend with a directory for its sockets, whose program is a test of this file.
    fn acting(test: &str, place: &str) -> (tempfile::TempDir, ManagedBackend) {
        let directory = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap().display().to_string();
        let test = format!("supervisor::backend::tests::{test}");
        let place = format!("PLACE={place}");
        let words = ["env", &place, &program, "--ignored", "--exact", &test].map(str::to_owned).to_vec();
        let sockets = directory.path().join("i2c.sockets");
        let program = Backend::Program(Program::new(words));
        (directory, ManagedBackend::new("guest-a/i2c".into(), program, sockets, Enforcement::On))
    }

    /// Connects to a program that is awaited, as the event loop does.
    fn connect(backend: &mut ManagedBackend) -> Result<Connection, StartError> {
        loop {
            let connected = backend.connect(Instant::now())?;
            if let Some(connection) = connected {
                return Ok(connection);
            }
            let left = backend.deadline(true).unwrap().saturating_duration_since(Instant::now());
            std::thread::sleep(left);
        }
    }

    fn echo(mut connection: UnixStream) {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        connection.write_all(&byte).unwrap();
    }

    /// Sends a byte to a program that [echoes](echo) it and ends.
    fn converse(backend: &mut ManagedBackend, mut connection: Connection) {
        connection.socket.write_all(b"!").unwrap();
        let mut byte = [0];
        connection.socket.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"!");
        wait(connection.pidfd.as_ref().unwrap());
        assert_eq!(backend.reap().unwrap(), Some(End::Failed("backend ended (exit status: 0)".into())));
    }

    #[test]
    #[ignore = "the program of other tests"]
    fn listen_at_the_place() {
        if let Some(place) = std::env::var_os("PLACE") {
            // Another file of the program, and a name with an index.
            let mut path = place.clone();
            path.push("0");
            std::fs::write(Path::new(&place).with_extension("log"), "").unwrap();
            echo(UnixListener::bind(path).unwrap().accept().unwrap().0);
        }
    }

    #[test]
    fn program_that_makes_its_socket_is_connected_each_time() {
        let (_directory, mut backend) = acting("listen_at_the_place", "{socket}");
        for _ in 0..2 {
            assert!(backend.start(null(), Instant::now()).unwrap().is_none() && !backend.is_absent());
            let connection = connect(&mut backend).unwrap();
            assert!(backend.connect(Instant::now()).unwrap().is_none());
            converse(&mut backend, connection);
            assert!(backend.is_absent());
        }
    }

    #[test]
    fn program_gets_a_listening_socket_with_a_connection() {
        let directory = tempfile::tempdir().unwrap();
        let script = "test $0 = --fd=3 && test -S /proc/self/fd/3";
        let words = ["sh", "-c", script, "--fd={listen-fd}"].map(str::to_owned).to_vec();
        let sockets = directory.path().join("i2c.sockets");
        let program = Backend::Program(Program::new(words));
        let mut backend = ManagedBackend::new("guest-a/i2c".into(), program, sockets, Enforcement::On);
        for _ in 0..2 {
            let mut connection = start(&mut backend);
            wait(connection.pidfd.as_ref().unwrap());
            // It has not accepted the connection, which ends with the socket.
            let read = connection.socket.read(&mut [0]);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(backend.reap().unwrap(), Some(End::Failed("backend ended (exit status: 0)".into())));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn program_that_makes_no_socket_is_killed_and_the_reason_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let words = ["sh", "-c", "exec sleep 1000", "{socket}"].map(str::to_owned).to_vec();
        let sockets = directory.path().join("i2c.sockets");
        let program = Backend::Program(Program::new(words));
        let mut backend = ManagedBackend::new("guest-a/i2c".into(), program, sockets, Enforcement::On);
        let now = Instant::now();
        assert!(backend.start(null(), now).unwrap().is_none());
        assert!(backend.connect(now + LISTEN_LIMIT - Duration::from_millis(1)).unwrap().is_none());
        let then = now + 2 * LISTEN_LIMIT;
        let error = backend.connect(then).unwrap_err().to_string();
        assert!(error.contains("does not listen at /") && error.contains("after 5s"), "{error}");
        let process = backend.process().unwrap();
        process.kill_if_overdue(then);
        wait(process);
        assert_eq!(backend.reap().unwrap(), Some(End::Failed(format!("{error} (signal: 9 (SIGKILL))"))));
    }

    #[test]
    fn socket_is_connected_when_a_program_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut backend = managed(Backend::Socket(path.clone()));
        let error = backend.start(null(), Instant::now()).unwrap_err().to_string();
        assert!(error.contains("cannot connect to") && backend.is_external(), "{error}");
        let _listener = UnixListener::bind(&path).unwrap();
        for _ in 0..2 {
            let connection = start(&mut backend);
            assert!(connection.pidfd.is_none() && !backend.is_absent());
            assert!(backend.reap().unwrap().is_none() && !backend.is_absent());
            assert!(backend.connection_closed(true) && backend.is_absent());
        }
    }
}
