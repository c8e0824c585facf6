// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that an agent runs for the host, each in a process group of its own: a program is killed together
//! with the processes that it has started.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::request::{Answer, End, OUTPUT_LIMIT, Output};

/// The programs that were started and not yet stopped, by number.
#[derive(Debug, Default)]
pub struct Jobs {
    last: u32,
    running: BTreeMap<u32, Job>,
}

impl Jobs {
    /// Starts a program that is killed after `milliseconds`.
    ///
    /// # Errors
    /// Returns the reason if it cannot be started.
    pub fn run(&mut self, command: &[String], milliseconds: u32) -> Result<Job, String> {
        Job::start(command, Some(Duration::from_millis(milliseconds.into())))
    }

    /// Starts a program and returns its number.
    ///
    /// # Errors
    /// Returns the reason if it cannot be started.
    pub fn start(&mut self, command: &[String]) -> Result<u32, String> {
        let job = Job::start(command, None)?;
        self.last += 1;
        self.running.insert(self.last, job);
        Ok(self.last)
    }

    /// Returns what a program has written so far.
    #[must_use]
    pub fn look(&self, number: u32) -> Answer {
        match self.running.get(&number) {
            Some(job) => Answer::Output(job.look()),
            None => unknown(number),
        }
    }

    /// Kills a program, unless it has ended, and removes it from the list.
    pub fn stop(&mut self, number: u32) -> Answer {
        match self.running.remove(&number) {
            Some(job) => {
                job.kill();
                Answer::Output(job.wait())
            }
            None => unknown(number),
        }
    }
}

fn unknown(number: u32) -> Answer {
    Answer::Failed(format!("no program has the number {number}"))
}

/// A program that was started.
#[derive(Clone, Debug)]
pub struct Job {
    group: Option<Pid>,
    limit: Option<Duration>,
    state: Arc<(Mutex<Output>, Condvar)>,
}

impl Job {
    fn start(command: &[String], limit: Option<Duration>) -> Result<Self, String> {
        let (program, arguments) = command.split_first().ok_or("an empty command")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot run {program}: {error}"))?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let state = Arc::new((Mutex::new(Output::default()), Condvar::new()));
        let job = Self { group, limit, state };
        let readers = [
            child.stdout.take().map(|pipe| job.collect(pipe, |output| &mut output.stdout)),
            child.stderr.take().map(|pipe| job.collect(pipe, |output| &mut output.stderr)),
        ];
        job.watch(child, readers.into_iter().flatten().collect());
        Ok(job)
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect<R: Read + Send + 'static>(
        &self,
        mut pipe: R,
        place: fn(&mut Output) -> &mut Vec<u8>,
    ) -> thread::JoinHandle<()> {
        let job = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let mut output = job.lock();
                let kept = place(&mut output);
                let room = OUTPUT_LIMIT - kept.len();
                kept.extend(buffer.iter().take(count.min(room)));
            }
        })
    }

    fn watch(&self, mut child: Child, readers: Vec<thread::JoinHandle<()>>) {
        let job = self.clone();
        thread::spawn(move || {
            let status = child.wait();
            for reader in readers {
                // An error means that the reader panicked. It copies within bounds and does not.
                let _ = reader.join();
            }
            let mut output = job.lock();
            if output.end == End::Running {
                output.end = status.map_or(End::Exited(-1), end_of);
            }
            drop(output);
            job.state.1.notify_all();
        });
    }

    /// Returns what the program has written so far.
    #[must_use]
    pub fn look(&self) -> Output {
        self.lock().clone()
    }

    /// Kills the program and the processes that it has started.
    pub fn kill(&self) {
        if let (Some(group), End::Running) = (self.group, self.lock().end) {
            // Fails only if the group has ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Waits until the program ends. Kills it after its limit.
    #[must_use]
    pub fn wait(&self) -> Output {
        let running = |output: &mut Output| output.end == End::Running;
        let Some(limit) = self.limit else {
            let ended = self.state.1.wait_while(self.lock(), running);
            return ended.unwrap_or_else(PoisonError::into_inner).clone();
        };
        let ended = self.state.1.wait_timeout_while(self.lock(), limit, running);
        let (mut output, waited) = ended.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && output.end == End::Running {
            drop(output);
            self.kill();
            output = self.lock();
            output.end = End::TimedOut;
        }
        output.clone()
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Killed(signal),
        (None, None) => End::Exited(-1),
    }
}

/// Runs a program with the console as its standard streams, and waits for its end.
#[must_use]
pub fn interactive(command: &[String]) -> Answer {
    let Some((program, arguments)) = command.split_first() else {
        return Answer::Failed("an empty command".to_owned());
    };
    match Command::new(program).args(arguments).status() {
        Ok(status) => Answer::Output(Output { end: end_of(status), ..Output::default() }),
        Err(error) => Answer::Failed(format!("cannot run {program}: {error}")),
    }
}
