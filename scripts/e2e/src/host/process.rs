// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes that the kernel kills when the process that started them ends.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The interval at which a condition is checked that has no event to wait for.
const INTERVAL: Duration = Duration::from_millis(10);

/// A process that is killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `program` in `directory`, with its output in `<name>.log` there. `prepare` adds arguments and
    /// may set other streams.
    ///
    /// # Errors
    /// Returns an error if it cannot be started.
    pub fn start(
        name: &str,
        directory: &Path,
        program: impl AsRef<OsStr>,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let log = File::create(directory.join(format!("{name}.log")))?;
        // The kernel kills it also if this process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref()).current_dir(directory);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        prepare(&mut command)?;
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Returns the child process, with the streams that `prepare` has set.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Checks that the process runs.
    ///
    /// # Errors
    /// Returns an error with the exit status if it has ended.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended: {status}", self.name),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` returns a value.
///
/// # Errors
/// Returns an error that names `what` if that takes longer than `limit`, and the error of `condition`.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("not within {limit:?}: {what}");
        }
        thread::sleep(INTERVAL);
    }
}
