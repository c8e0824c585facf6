// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU with one guest, its console, and the daemons behind its devices.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::host::PATIENCE;
use e2e::host::board::Hardware;
use e2e::host::process::{Process, wait_until};
use e2e::host::qmp::Qmp;
use serde_json::{Value, json};

use crate::{Platform, target};

/// Time for QEMU to end.
const END: Duration = Duration::from_secs(30);

const KINDS: [&str; 2] = ["i2c", "gpio"];

/// Which side listens at the socket, so that the other one can be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    DaemonListens,
    QemuListens,
}

/// The daemons, on one simulated board, and the directory of the run.
pub(crate) struct Board {
    directory: PathBuf,
    connection: Connection,
    /// In the order of [`KINDS`].
    daemons: Vec<Hardware>,
}

impl Board {
    /// Makes a fresh directory, and starts the daemons if they listen.
    pub(crate) fn new(run: &Path, connection: Connection) -> Result<Self> {
        let _ = fs::remove_dir_all(run);
        fs::create_dir_all(run)?;
        let mut board = Self { directory: run.canonicalize()?, connection, daemons: Vec::new() };
        if connection == Connection::DaemonListens {
            board.start_all(None)?;
        }
        Ok(board)
    }

    /// Starts the daemons. If QEMU listens, `qemu` must be running.
    fn start_all(&mut self, mut qemu: Option<&mut Process>) -> Result<()> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (backend, sim) = (target().join("host/bin/backend"), package.join("board.toml"));
        for kind in KINDS {
            let daemon = match self.connection {
                Connection::DaemonListens => Hardware::start(&backend, kind, kind, &sim, &self.directory)?,
                Connection::QemuListens => {
                    let socket = self.socket(kind);
                    let stream = wait_until(&format!("QEMU listens for {kind}"), PATIENCE, || {
                        qemu.as_mut().map_or(Ok(()), |qemu| qemu.alive())?;
                        Ok(UnixStream::connect(&socket).ok())
                    })?;
                    Hardware::start_connected(&backend, kind, kind, &sim, &self.directory, stream)?
                }
            };
            self.daemons.push(daemon);
        }
        Ok(())
    }

    /// Kills the daemons.
    pub(crate) fn kill(&mut self) {
        self.daemons.clear();
    }

    /// Starts daemons in place of those that were killed, and waits until QEMU has taken them or has ended.
    pub(crate) fn replace(&mut self, machine: &mut Machine) -> Result<()> {
        self.start_all(Some(&mut machine.qemu))?;
        machine.execute("query-status", &json!({})).map(drop)
    }

    fn socket(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{kind}.sock"))
    }

    fn daemon(&self, kind: &str) -> Result<&Hardware> {
        let index = KINDS.iter().position(|other| *other == kind);
        index.and_then(|index| self.daemons.get(index)).with_context(|| format!("there is no {kind}"))
    }

    pub(crate) fn i2c(&self) -> Result<&Hardware> {
        self.daemon("i2c")
    }

    pub(crate) fn gpio(&self) -> Result<&Hardware> {
        self.daemon("gpio")
    }

    /// Fails if a daemon has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        self.daemons.iter_mut().try_for_each(Hardware::alive)
    }
}

/// A running QEMU.
pub(crate) struct Machine {
    qemu: Process,
    qmp: Qmp,
    keyboard: ChildStdin,
    lines: Receiver<String>,
    directory: PathBuf,
    is_ready: bool,
}

impl Machine {
    /// Starts QEMU, and the daemons if they do not listen.
    pub(crate) fn start(platform: &Platform, board: &mut Board) -> Result<Self> {
        let directory = board.directory.clone();
        let [program, arguments @ ..] = platform.qemu else { bail!("a platform has a program") };
        let mut qemu = Process::start("qemu", &directory, program, |command| {
            command.args(arguments).args(fixed_arguments(platform)).args(device_arguments(platform, board));
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            Ok(())
        })?;
        let keyboard = qemu.child().stdin.take().context("QEMU's input")?;
        let output = qemu.child().stdout.take().context("QEMU's output")?;
        let (sender, lines) = channel();
        let mut log = fs::File::create(directory.join("console.log"))?;
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                let _ = writeln!(log, "{line}");
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        if board.connection == Connection::QemuListens {
            board.start_all(Some(&mut qemu))?;
        }
        let qmp = Qmp::connect(&directory.join("qmp.sock")).or_else(|error| {
            qemu.alive().with_context(|| format!("see {}/qemu.log", directory.display()))?;
            Err(error)
        })?;
        Ok(Self { qemu, qmp, keyboard, lines, directory, is_ready: false })
    }

    /// Waits until the guest reads commands.
    pub(crate) fn wait_for_guest(&mut self) -> Result<()> {
        if !self.is_ready {
            self.collect_until(|line| line == "@ready").context("the guest does not boot")?;
            self.is_ready = true;
        }
        Ok(())
    }

    /// Executes a command of QEMU.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.qmp.execute_with(command, arguments)
    }

    /// Returns what QEMU has printed besides the console.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join("qemu.log"))?)
    }

    /// Ends QEMU.
    pub(crate) fn quit(mut self) -> Result<()> {
        self.qmp.execute("quit")?;
        wait_until("QEMU ends", END, || Ok(self.qemu.child().try_wait()?))?;
        fs::remove_file(self.directory.join("qmp.sock")).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        Ok(())
    }

    /// Sends a line to the guest.
    pub(crate) fn send(&mut self, line: &str) -> Result<()> {
        writeln!(self.keyboard, "{line}")?;
        Ok(self.keyboard.flush()?)
    }

    /// Executes a command in the guest's shell, and returns what it prints.
    pub(crate) fn run(&mut self, command: &str) -> Result<String> {
        self.send(command)?;
        let mut lines = self.collect_until(|line| line.starts_with("@end "))?;
        let end = lines.pop().unwrap_or_default();
        let text = lines.join("\n");
        ensure!(end == "@end 0", "{command}: {end} {text}");
        Ok(text)
    }

    /// Executes a command in the guest's shell, and fails if it does not print `expected`.
    pub(crate) fn check(&mut self, command: &str, expected: &str) -> Result<()> {
        let text = self.run(command)?;
        ensure!(text == expected, "{command}: {text:?} in place of {expected:?}");
        Ok(())
    }

    /// Waits for a line, before which the guest prints nothing.
    pub(crate) fn expect_line(&mut self, expected: &str) -> Result<()> {
        let lines = self.collect_until(|_| true)?;
        ensure!(lines == [expected], "{lines:?} in place of {expected:?}");
        Ok(())
    }

    /// Waits for the end of a command that prints nothing more.
    pub(crate) fn expect_end(&mut self) -> Result<()> {
        let lines = self.collect_until(|line| line.starts_with("@end "))?;
        ensure!(lines.len() == 1, "{lines:?} in place of the end of a command");
        Ok(())
    }

    /// Returns the name of the chip that is a virtio device: a machine may have another one.
    pub(crate) fn gpio_chip(&mut self) -> Result<String> {
        self.run("cd /sys/bus/virtio/drivers/gpio_virtio/virtio*/ && echo gpiochip[0-9]*")
    }

    /// Collects the lines up to the first one that is `last`.
    fn collect_until(&mut self, last: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        loop {
            let line = match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("the guest is silent after {lines:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("QEMU has ended after {lines:?}"),
            };
            let is_last = last(&line);
            lines.push(line);
            if is_last {
                return Ok(lines);
            }
        }
    }
}

fn fixed_arguments(platform: &Platform) -> Vec<String> {
    let path = |name: &str| target().join(name).display().to_string();
    let append = format!("console={} loglevel=1 panic=-1", platform.console);
    let (kernel, ramdisk) = (path(platform.kernel), path(platform.ramdisk));
    let words = [
        "-m",
        "128M",
        "-object",
        "memory-backend-memfd,id=memory,size=128M,share=on",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
        "-qmp",
        "unix:qmp.sock,server=on,wait=off",
        "-global",
        "virtio-mmio.force-legacy=false",
        "-kernel",
        &kernel,
        "-initrd",
        &ramdisk,
        "-append",
        &append,
    ];
    words.map(str::to_owned).to_vec()
}

fn device_arguments(platform: &Platform, board: &Board) -> Vec<String> {
    let wait = match board.connection {
        Connection::DaemonListens => "",
        Connection::QemuListens => ",server=on,wait=on",
    };
    let words = |kind: &str| {
        let chardev = format!("socket,id={kind},path={}{wait}", board.socket(kind).display());
        let device = format!("vhost-user-{kind}-{},chardev={kind}", platform.transport);
        ["-chardev".to_owned(), chardev, "-device".to_owned(), device]
    };
    KINDS.into_iter().flat_map(words).collect()
}
