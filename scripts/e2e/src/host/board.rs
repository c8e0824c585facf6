// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The board: what is connected to the hardware of the driver domain. Each piece of hardware is a simulation
//! of ours (`backend … --sim`) behind a vhost-user device of QEMU, so that a test sees every transaction on
//! the bus and can do what a person does to a board: warm a sensor, press a button, pull a wire.

use std::fs::read_to_string;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::process::{Process, wait_until};

/// How long a simulation has to start and to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// One simulated piece of hardware.
#[derive(Debug)]
pub struct Hardware {
    process: Process,
    journal: PathBuf,
    control: PathBuf,
}

impl Hardware {
    /// Starts the simulation that QEMU reaches at `<name>.sock`; `kind` is the subcommand of `backend`.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(backend: &Path, kind: &str, name: &str, sim: &Path, directory: &Path) -> Result<Self> {
        let place = |suffix: &str| directory.join(format!("{name}.{suffix}"));
        let (socket, journal, control) = (place("sock"), place("journal"), place("control"));
        let mut process = Process::start(name, directory, backend, |command| {
            command.arg(kind).arg("--socket-path").arg(&socket).arg("--sim").arg(sim);
            command.arg("--sim-journal").arg(&journal).arg("--sim-control").arg(&control);
            if kind == "i2c" {
                // All of the bus belongs to the driver domain; what a guest may reach is decided there.
                command.args(["--allow", "any"]);
            }
            command.env("RUST_LOG", "info");
            Ok(())
        })?;
        wait_until(&format!("{name} opens its sockets"), LIMIT, || {
            process.alive()?;
            Ok((socket.exists() && control.exists()).then_some(()))
        })?;
        Ok(Self { process, journal, control })
    }

    /// Fails if the simulation has ended.
    ///
    /// # Errors
    /// If it has, with its status.
    pub fn alive(&mut self) -> Result<()> {
        self.process.alive()
    }

    /// What has happened on the hardware so far, in order.
    ///
    /// # Errors
    /// If the journal is damaged.
    pub fn journal(&self) -> Result<Vec<Value>> {
        let Ok(text) = read_to_string(&self.journal) else {
            return Ok(Vec::new());
        };
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// How many entries the journal has.
    ///
    /// # Errors
    /// If the journal is damaged.
    pub fn mark(&self) -> Result<usize> {
        Ok(self.journal()?.len())
    }

    /// The journal's entries from `mark` on.
    ///
    /// # Errors
    /// If the journal is damaged.
    pub fn since(&self, mark: usize) -> Result<Vec<Value>> {
        Ok(self.journal()?.into_iter().skip(mark).collect())
    }

    /// Tells the simulation to do something.
    ///
    /// # Errors
    /// If it refuses.
    pub fn control(&self, request: &Value) -> Result<Value> {
        let mut stream = UnixStream::connect(&self.control).context("the simulation's control socket")?;
        stream.set_read_timeout(Some(LIMIT))?;
        writeln!(stream, "{request}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line).with_context(|| format!("answer {line:?}"))?;
        if let Some(error) = answer.get("error") {
            bail!("{request}: {error}");
        }
        Ok(answer.get_mut("ok").map(Value::take).unwrap_or_default())
    }

    /// Sets the temperature around the sensor at `address`.
    ///
    /// # Errors
    /// If there is no such sensor.
    pub fn set_temperature(&self, address: u16, celsius: f64) -> Result<()> {
        self.control(&json!({ "set-temperature": { "address": address, "celsius": celsius } })).map(drop)
    }

    /// Drives a line from outside.
    ///
    /// # Errors
    /// If there is no such line, or the other side drives it.
    pub fn drive(&self, line: u32, value: u8) -> Result<()> {
        self.control(&json!({ "drive": { "line": line, "value": value } })).map(drop)
    }

    /// Lets go of a line.
    ///
    /// # Errors
    /// If there is no such line.
    pub fn release(&self, line: u32) -> Result<()> {
        self.control(&json!({ "release": { "line": line } })).map(drop)
    }

    /// Direction and value of a line, as the board sees them.
    ///
    /// # Errors
    /// If there is no such line.
    pub fn line(&self, line: u32) -> Result<(String, u64)> {
        let answer = self.control(&json!({ "read": { "line": line } }))?;
        let direction = answer.get("direction").and_then(Value::as_str).context("no direction")?;
        let value = answer.get("value").and_then(Value::as_u64).unwrap_or(0);
        Ok((direction.to_owned(), value))
    }
}
