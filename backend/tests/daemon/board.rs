// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A daemon on a simulated board, its journal and its control socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

/// The descriptor of the vhost-user socket in the daemon.
const SOCKET: i32 = 3;

/// Time after which a wait fails.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running daemon, which is killed when this is dropped.
pub(crate) struct Board {
    directory: TempDir,
    process: Child,
    kind: String,
    arguments: Vec<String>,
}

impl Board {
    /// Starts `backend KIND` on the board that `toml` describes. Returns the other end of the vhost-user
    /// socket, for a [`Guest`](crate::guest::Guest).
    pub(crate) fn start(kind: &str, toml: &str, arguments: &[&str]) -> (Self, UnixStream) {
        let (command, socket) = with_socket();
        (Self::spawn(kind, toml, arguments, command), socket)
    }

    /// Starts `backend KIND` with a socket path: see [`connect`](Self::connect).
    pub(crate) fn listen(kind: &str, toml: &str, arguments: &[&str]) -> Self {
        Self::spawn(kind, toml, arguments, |command, directory| {
            command.arg("--socket-path").arg(directory.join("vhost-user"));
        })
    }

    /// Connects to the socket path, as soon as the daemon listens.
    pub(crate) fn connect(&self) -> UnixStream {
        until("the daemon listens", || UnixStream::connect(self.socket_path()).ok())
    }

    /// Returns the socket path.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.directory.path().join("vhost-user")
    }

    fn spawn(
        kind: &str,
        toml: &str,
        arguments: &[&str],
        connection: impl FnOnce(&mut Command, &Path),
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("board.toml"), toml).expect("a board");
        let arguments: Vec<String> = arguments.iter().copied().map(str::to_owned).collect();
        let process = run(directory.path(), kind, &arguments, connection);
        Self { directory, process, kind: kind.to_owned(), arguments }
    }

    /// Kills the daemon and starts another in its place.
    pub(crate) fn replace(&mut self) -> UnixStream {
        self.process.kill().expect("a process to kill");
        self.process.wait().expect("a process");
        let (command, socket) = with_socket();
        self.process = run(self.directory.path(), &self.kind, &self.arguments, command);
        socket
    }

    /// Returns the daemon's process ID.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Terminates the daemon by SIGTERM, and waits for its end.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.process);
        rustix::process::kill_process(pid, Signal::TERM).expect("a process to terminate");
        self.process.wait().expect("a process")
    }

    /// Connects to the control socket, which exists after the daemon has answered its frontend.
    pub(crate) fn control(&self) -> Control {
        let stream = UnixStream::connect(self.directory.path().join("control")).expect("the control socket");
        Control { reader: BufReader::new(stream) }
    }

    /// Waits until the journal has so many entries.
    pub(crate) fn wait_journal(&self, entries: usize) -> Vec<Value> {
        until("the journal has an entry", || Some(self.journal()).filter(|journal| journal.len() >= entries))
    }

    /// Returns the journal so far.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.directory.path().join("journal")).expect("a journal");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Waits for the end of the daemon, after its frontend has disconnected. Returns whether it succeeded.
    pub(crate) fn ended(mut self) -> bool {
        self.process.wait().expect("a process").success()
    }
}

/// Starts `backend` with one end of a socket pair. Returns it and the other end.
pub(crate) fn start(arguments: &[String]) -> (Child, UnixStream) {
    let (connect, socket) = with_socket();
    let mut command = Command::new(env!("CARGO_BIN_EXE_backend"));
    command.args(arguments);
    connect(&mut command, Path::new("."));
    (command.spawn().expect("the daemon"), socket)
}

/// Returns a function that passes one end of a socket pair to the daemon, and the other end.
fn with_socket() -> (impl FnOnce(&mut Command, &Path), UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let connection = |command: &mut Command, _: &Path| {
        let mapping = FdMapping { parent_fd: theirs.into(), child_fd: SOCKET };
        command.arg(format!("--fd={SOCKET}")).fd_mappings(vec![mapping]).expect("one descriptor");
    };
    (connection, ours)
}

fn run(
    directory: &Path,
    kind: &str,
    arguments: &[String],
    connection: impl FnOnce(&mut Command, &Path),
) -> Child {
    let path = |name: &str| directory.join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_backend"));
    command.arg(kind).arg("--sim").arg(path("board.toml")).arg("--sim-journal").arg(path("journal"));
    command.arg("--sim-control").arg(path("control")).args(arguments);
    connection(&mut command, directory);
    command.spawn().expect("the daemon")
}

/// Calls `check` until it returns something: another process causes that, without a notification.
pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < TIMEOUT, "time-out: {what}");
        std::thread::yield_now();
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection to the control socket.
pub(crate) struct Control {
    reader: BufReader<UnixStream>,
}

impl Control {
    /// Executes a command, and returns the answer.
    pub(crate) fn execute(&mut self, command: &Value) -> Value {
        writeln!(self.reader.get_mut(), "{command}").expect("a control socket");
        let mut answer = String::new();
        self.reader.read_line(&mut answer).expect("an answer");
        serde_json::from_str(&answer).expect("JSON")
    }
}
