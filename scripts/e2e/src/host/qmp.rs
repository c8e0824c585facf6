// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's machine protocol (QMP): lines of JSON on a socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::process::wait_until;

/// The limit for QEMU to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection to QEMU, ready for commands.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket at `path` as soon as QEMU listens there.
    ///
    /// # Errors
    /// Returns an error if that takes too long, or the peer does not use QMP.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = wait_until("QEMU opens its QMP socket", LIMIT, || Ok(UnixStream::connect(path).ok()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        let greeting = qmp.read()?;
        greeting.get("QMP").context("no QMP greeting")?;
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line).context("QEMU does not answer")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Executes a command without arguments.
    ///
    /// # Errors
    /// Returns an error if QEMU refuses it or does not answer.
    pub fn execute(&mut self, command: &str) -> Result<Value> {
        self.execute_with(command, &json!({}))
    }

    /// Executes a command with arguments.
    ///
    /// # Errors
    /// If QEMU refuses it or does not answer.
    pub fn execute_with(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        // In one write: QEMU executes the command, which may end it, before it has read the end of the line.
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.stream.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QMP command {command}: {error}");
            }
            // A message with neither key is an event.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }
}
