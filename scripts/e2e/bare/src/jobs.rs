// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The CPUs, and what they work on: the first one serves the console and runs what the host waits for, the others run
//! what it looks at now and then, or what a command spreads over all of them.

use alloc::boxed::Box;
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
use crate::{commands, interrupts, machine, platform};

/// The most CPUs that are used.
const MOST: usize = 8;
/// So often is looked after what no interrupt tells of.
const GLANCE: Duration = Duration::from_millis(10);

type Work = Box<dyn FnOnce() + Send>;

struct Slot {
    runs: AtomicBool,
    busy: AtomicBool,
    work: Mutex<Option<Work>>,
}

static SLOTS: [Slot; MOST] =
    [const { Slot { runs: AtomicBool::new(false), busy: AtomicBool::new(false), work: Mutex::new(None) } };
        MOST];

/// Starts all CPUs but the first.
pub fn start_other_cpus() {
    for cpu in 1..platform::cpus().min(MOST) {
        // One that does not start is missed by whoever counts on it.
        let _ = machine::start_cpu(cpu);
    }
}

/// Any CPU but the first comes here, and works on what it is given.
pub fn another_cpu() -> ! {
    interrupts::enable_this_cpu();
    let slot = SLOTS.get(machine::cpu());
    if let Some(slot) = slot {
        slot.runs.store(true, Ordering::Release);
    }
    loop {
        let mut work = None;
        interrupts::wait(None, || {
            work = slot.and_then(|slot| slot.work.lock().take());
            work.is_some()
        });
        if let (Some(work), Some(slot)) = (work, slot) {
            work();
            slot.busy.store(false, Ordering::Release);
        }
    }
}

/// Gives work to a CPU that has none.
///
/// # Errors
/// All of them have.
pub fn give(work: Work) -> Result<()> {
    let idle = |slot: &Slot| {
        slot.runs.load(Ordering::Acquire)
            && slot.busy.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok()
    };
    let found = SLOTS.iter().enumerate().find(|(_, slot)| idle(slot));
    let (cpu, slot) = found.context("no CPU is idle")?;
    *slot.work.lock() = Some(work);
    machine::send_interrupt(cpu);
    Ok(())
}

/// Does the same on all CPUs that have nothing to do and on this one, with a number for each, and waits for all.
/// Returns how many there were.
pub fn on_all_cpus(work: impl Fn(usize) + Send + Sync + 'static) -> usize {
    let work = Arc::new(work);
    let mut others = 0;
    loop {
        let (work, number) = (Arc::clone(&work), others + 1);
        if give(Box::new(move || work(number))).is_err() {
            break;
        }
        others += 1;
    }
    work(0);
    while Arc::strong_count(&work) > 1 {
        interrupts::wait(Some(Moment::after(GLANCE)), || Arc::strong_count(&work) == 1);
    }
    others + 1
}

/// A command that runs, has run or is to run.
#[derive(Debug, Default)]
pub struct Job {
    output: Mutex<Output>,
    stop: AtomicBool,
}

impl Job {
    /// Runs a command to its end on this CPU.
    pub fn run(&self, command: &[String]) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let done = commands::run(self, &words);
        if let Err(error) = &done {
            self.add(format_args!("{error:#}\n"), |output| &mut output.stderr);
        }
        self.output.lock().end = End::Exited(i32::from(done.is_err()));
    }

    /// Has a command run by another CPU.
    ///
    /// # Errors
    /// None is idle.
    pub fn start(command: Vec<String>) -> Result<Arc<Self>> {
        let job = Arc::new(Self::default());
        let running = Arc::clone(&job);
        give(Box::new(move || running.run(&command)))?;
        Ok(job)
    }

    /// What it has written so far.
    #[must_use]
    pub fn look(&self) -> Output {
        self.output.lock().clone()
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// It does not.
    pub fn stop(&self, limit: Duration) -> Result<Output> {
        self.stop.store(true, Ordering::Release);
        let end = Moment::after(limit);
        while self.look().end == End::Running && !end.has_come() {
            interrupts::wait(Some(Moment::after(GLANCE)), || self.look().end != End::Running);
        }
        let output = self.look();
        ensure!(output.end != End::Running, "it does not stop");
        Ok(output)
    }

    /// Whether it shall stop. Commands that take long ask.
    #[must_use]
    pub fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Writes a line to standard output.
    pub fn say(&self, text: fmt::Arguments<'_>) {
        self.add(format_args!("{text}\n"), |output| &mut output.stdout);
    }

    fn add(&self, text: fmt::Arguments<'_>, place: fn(&mut Output) -> &mut Vec<u8>) {
        let text = alloc::fmt::format(text);
        let mut output = self.output.lock();
        let kept = place(&mut output);
        let room = OUTPUT_LIMIT.saturating_sub(kept.len());
        kept.extend(text.bytes().take(room));
    }
}
