// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Commands. The first CPU runs the ones that the host waits for, other CPUs run those that it starts.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::request::{End, OUTPUT_LIMIT, Output};
use spin::Mutex;

use crate::clock::Moment;
use crate::cpus::{self, Piece};
use crate::uart;

/// A function that runs a command, given as its words.
pub type Run = fn(&Job, &[&str]) -> Result<()>;

/// Prints on the console that the measured part of a command begins. The host reads the output of a command
/// only when it has ended.
pub fn announce_begin() {
    uart::print(format_args!("bare: begins\n"));
}

/// A command and its output.
#[derive(Debug, Default)]
pub struct Job {
    output: Mutex<Output>,
    stop: AtomicBool,
}

impl Job {
    /// Runs a command to its end on this CPU.
    pub fn run(&self, run: Run, command: &[String]) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let done = run(self, &words);
        if let Err(error) = &done {
            self.add(format_args!("{error:#}\n"), |output| &mut output.stderr);
        }
        self.output.lock().end = End::Exited(i32::from(done.is_err()));
    }

    /// The output so far.
    #[must_use]
    pub fn output(&self) -> Output {
        self.output.lock().clone()
    }

    /// Returns whether the command has to stop. Long commands poll this.
    #[must_use]
    pub fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Writes a line to standard output.
    pub fn print(&self, text: fmt::Arguments<'_>) {
        self.add(format_args!("{text}\n"), |output| &mut output.stdout);
    }

    /// Appends to a part of the output, up to its limit.
    fn add(&self, text: fmt::Arguments<'_>, part: fn(&mut Output) -> &mut Vec<u8>) {
        let text = alloc::fmt::format(text);
        let mut output = self.output.lock();
        let bytes = part(&mut output);
        let room = OUTPUT_LIMIT.saturating_sub(bytes.len());
        bytes.extend(text.bytes().take(room));
    }
}

/// A command on another CPU.
pub struct Running {
    job: Arc<Job>,
    piece: Piece,
}

impl Running {
    /// Starts a command on another CPU.
    ///
    /// # Errors
    /// Returns an error if no CPU is idle.
    pub fn start(run: Run, command: Vec<String>) -> Result<Self> {
        let job = Arc::new(Job::default());
        let shared = Arc::clone(&job);
        let piece = cpus::on_another(move || shared.run(run, &command)).context("no CPU is idle")?;
        Ok(Self { job, piece })
    }

    /// The output so far. The command counts as ended only after its CPU is idle.
    #[must_use]
    pub fn output(&self) -> Output {
        let is_done = self.piece.is_done();
        let mut output = self.job.output();
        if !is_done {
            output.end = End::Running;
        }
        output
    }

    /// Makes the command stop and waits until it has.
    ///
    /// # Errors
    /// Returns an error if it does not stop within `limit`.
    pub fn stop(&self, limit: Duration) -> Result<Output> {
        self.job.stop.store(true, Ordering::Release);
        self.piece.wait(Some(Moment::after(limit)));
        let output = self.output();
        ensure!(output.end != End::Running, "the command did not stop within {limit:?}");
        Ok(output)
    }
}
