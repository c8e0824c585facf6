// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The board: what is connected to the hardware of the driver domain. Each piece of hardware is simulated by
//! `backend … --sim` behind a vhost-user device of QEMU. A test reads each transaction of the bus in its
//! journal, and acts on the board by its control socket: it warms a sensor or drives a line.

use std::fs::{read_to_string, remove_file};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};

use super::process::{Process, wait_until};

/// The limit for a simulation to start and to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// The descriptor of a connected vhost-user socket in the simulation.
const SOCKET: i32 = 3;

/// One simulated piece of hardware.
#[derive(Debug)]
pub struct Hardware {
    process: Process,
    journal: PathBuf,
    control: PathBuf,
}

impl Hardware {
    /// Starts the simulation to which QEMU connects at `<name>.sock`. `kind` is the subcommand of `backend`.
    ///
    /// # Errors
    /// Returns an error if the simulation does not open its sockets.
    pub fn start(backend: &Path, kind: &str, name: &str, sim: &Path, directory: &Path) -> Result<Self> {
        let socket = directory.join(format!("{name}.sock"));
        let hardware = Self::spawn(backend, kind, name, sim, directory, |command| {
            command.arg("--socket-path").arg(&socket);
            Ok(())
        })?;
        wait_until(&format!("{name} listens"), LIMIT, || Ok(socket.exists().then_some(())))?;
        Ok(hardware)
    }

    /// Starts the simulation at the other end of `stream`.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_connected(
        backend: &Path,
        kind: &str,
        name: &str,
        sim: &Path,
        directory: &Path,
        stream: UnixStream,
    ) -> Result<Self> {
        Self::spawn(backend, kind, name, sim, directory, |command| {
            let mapping = FdMapping { parent_fd: stream.into(), child_fd: SOCKET };
            command.arg(format!("--fd={SOCKET}")).fd_mappings(vec![mapping])?;
            Ok(())
        })
    }

    fn spawn(
        backend: &Path,
        kind: &str,
        name: &str,
        sim: &Path,
        directory: &Path,
        connect: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let place = |suffix: &str| directory.join(format!("{name}.{suffix}"));
        let (journal, control) = (place("journal"), place("control"));
        // Of a former simulation.
        let _ = remove_file(&control);
        let mut process = Process::start(name, directory, backend, |command| {
            command.arg(kind).arg("--sim").arg(sim);
            command.arg("--sim-journal").arg(&journal).arg("--sim-control").arg(&control);
            if kind == "i2c" {
                // The driver domain owns the whole bus and decides what a guest reaches.
                command.args(["--allow", "any"]);
            }
            command.env("RUST_LOG", "info");
            connect(command)
        })?;
        wait_until(&format!("{name} opens its control socket"), LIMIT, || {
            process.alive()?;
            Ok(control.exists().then_some(()))
        })?;
        Ok(Self { process, journal, control })
    }

    /// Checks that the simulation runs.
    ///
    /// # Errors
    /// Returns an error with the exit status if it has ended.
    pub fn alive(&mut self) -> Result<()> {
        self.process.alive()
    }

    /// Returns the journal: what has happened on the hardware so far, in order.
    ///
    /// # Errors
    /// Returns an error if the journal is damaged.
    pub fn journal(&self) -> Result<Vec<Value>> {
        let Ok(text) = read_to_string(&self.journal) else {
            return Ok(Vec::new());
        };
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Returns the number of entries in the journal.
    ///
    /// # Errors
    /// Returns an error if the journal is damaged.
    pub fn mark(&self) -> Result<usize> {
        Ok(self.journal()?.len())
    }

    /// Returns the journal's entries from `mark` on.
    ///
    /// # Errors
    /// Returns an error if the journal is damaged.
    pub fn since(&self, mark: usize) -> Result<Vec<Value>> {
        Ok(self.journal()?.into_iter().skip(mark).collect())
    }

    /// Sends a request to the simulation's control socket and returns the answer.
    ///
    /// # Errors
    /// Returns an error if the simulation refuses the request or does not answer.
    pub fn control(&self, request: &Value) -> Result<Value> {
        let mut stream = UnixStream::connect(&self.control)
            .context("cannot connect to the simulation's control socket")?;
        stream.set_read_timeout(Some(LIMIT))?;
        writeln!(stream, "{request}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("invalid answer of the simulation: {line:?}"))?;
        if let Some(error) = answer.get("error") {
            bail!("{request}: {error}");
        }
        Ok(answer.get_mut("ok").map(Value::take).unwrap_or_default())
    }

    /// Sets the temperature around the sensor at `address`.
    ///
    /// # Errors
    /// Returns an error if there is no such sensor.
    pub fn set_temperature(&self, address: u16, celsius: f64) -> Result<()> {
        self.control(&json!({ "set-temperature": { "address": address, "celsius": celsius } })).map(drop)
    }

    /// Drives a line from the board's side.
    ///
    /// # Errors
    /// Returns an error if there is no such line, or the driver domain drives it.
    pub fn drive(&self, line: u32, value: u8) -> Result<()> {
        self.control(&json!({ "drive": { "line": line, "value": value } })).map(drop)
    }

    /// Stops driving a line.
    ///
    /// # Errors
    /// Returns an error if there is no such line.
    pub fn release(&self, line: u32) -> Result<()> {
        self.control(&json!({ "release": { "line": line } })).map(drop)
    }

    /// Returns direction and value of a line, as seen from the board.
    ///
    /// # Errors
    /// Returns an error if there is no such line.
    pub fn line(&self, line: u32) -> Result<(String, u64)> {
        let answer = self.control(&json!({ "read": { "line": line } }))?;
        let direction = answer
            .get("direction")
            .and_then(Value::as_str)
            .context("the simulation's answer has no direction")?;
        let value = answer.get("value").and_then(Value::as_u64).unwrap_or(0);
        Ok((direction.to_owned(), value))
    }
}
