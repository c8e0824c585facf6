// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes that end with the one that started them, whatever way that ends.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a condition is looked at for which there is nothing to wait on.
const INTERVAL: Duration = Duration::from_millis(10);

/// A process that is killed when this value goes.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command` in `directory`, with what it says in `<name>.log` there. `prepare` sets the other
    /// streams.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        name: &str,
        directory: &Path,
        program: impl AsRef<OsStr>,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let log = File::create(directory.join(format!("{name}.log")))?;
        // The kernel kills it when this process dies without having a say.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref()).current_dir(directory);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        prepare(&mut command)?;
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// The streams that `prepare` has asked for.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Fails if the process has ended.
    ///
    /// # Errors
    /// If it has ended, with its status.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended: {status}", self.name),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` gives something.
///
/// # Errors
/// If that takes longer than `limit`: `what` did not happen.
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
