// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The CPUs, and what they work on: the first one serves the console and runs what the host waits for, the others run
//! what it looks at now and then, or what a command spreads over all of them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
/// How long a CPU that was started may take until it is there.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);

type Work = Box<dyn FnOnce() + Send>;

/// What one CPU works on.
struct Slot {
    /// Whether the CPU is there.
    runs: AtomicBool,
    /// How many pieces of work it has been given, and how many it has done: it is idle if that is the same. Both wrap.
    given: AtomicU32,
    done: AtomicU32,
    work: Mutex<Option<Work>>,
}

static SLOTS: [Slot; MOST] = [const { Slot::new() }; MOST];

impl Slot {
    const fn new() -> Self {
        Self {
            runs: AtomicBool::new(false),
            given: AtomicU32::new(0),
            done: AtomicU32::new(0),
            work: Mutex::new(None),
        }
    }

    /// Keeps the CPU for a piece of work that it is about to be given, if it is idle.
    fn claim(&'static self) -> Option<Piece> {
        let done = self.done.load(Ordering::Acquire);
        let number = done.wrapping_add(1);
        let is_claimed = self.runs.load(Ordering::Acquire)
            && self.given.compare_exchange(done, number, Ordering::AcqRel, Ordering::Acquire).is_ok();
        is_claimed.then_some(Piece { slot: self, number })
    }

    /// Does what the CPU has been given. It is idle again when nothing of the work is left, what it owned included.
    fn serve(&self) {
        let work = self.work.lock().take();
        if let Some(work) = work {
            work();
            self.done.fetch_add(1, Ordering::Release);
        }
    }
}

/// A piece of work that a CPU has been given.
struct Piece {
    slot: &'static Slot,
    number: u32,
}

impl Piece {
    /// Whether the CPU has done it. What it has written can be read then, and it can be given the next piece.
    fn is_done(&self) -> bool {
        let done = self.slot.done.load(Ordering::Acquire);
        done.wrapping_sub(self.number) <= u32::MAX / 2
    }
}

/// Starts all CPUs but the first, and waits until they are there.
pub fn start_other_cpus() {
    // One that does not start is missed by whoever counts on it.
    let is_started = |&cpu: &usize| machine::start_cpu(cpu) == 0;
    let started: Vec<usize> = (1..platform::cpus().min(MOST)).filter(is_started).collect();
    let is_there = |&cpu: &usize| SLOTS.get(cpu).is_some_and(|slot| slot.runs.load(Ordering::Acquire));
    let end = Moment::after(ARRIVAL_LIMIT);
    while !started.iter().all(is_there) && !end.has_come() {
        interrupts::wait(Some(Moment::after(GLANCE)), || started.iter().all(is_there));
    }
}

/// Any CPU but the first comes here, and works on what it is given.
pub fn another_cpu() -> ! {
    interrupts::enable_this_cpu();
    let cpu = machine::cpu();
    arrive(cpu);
    loop {
        interrupts::wait(None, || SLOTS.get(cpu).is_some_and(|slot| slot.work.lock().is_some()));
        serve(cpu);
    }
}

/// A CPU is there, and can be given work.
pub fn arrive(cpu: usize) {
    if let Some(slot) = SLOTS.get(cpu) {
        slot.runs.store(true, Ordering::Release);
    }
}

/// Does on this CPU what it has been given, if it has been given anything.
pub fn serve(cpu: usize) {
    if let Some(slot) = SLOTS.get(cpu) {
        slot.serve();
    }
}

/// Gives work to each CPU that is idle, but not more than `most` of them, and to each of them once.
fn give(most: usize, mut work: impl FnMut(usize) -> Work) -> Vec<Piece> {
    let mut pieces = Vec::new();
    // A CPU may be done before the next one is asked: it is not asked again.
    for (cpu, slot) in SLOTS.iter().enumerate() {
        if pieces.len() == most {
            break;
        }
        if let Some(piece) = slot.claim() {
            *slot.work.lock() = Some(work(pieces.len()));
            pieces.push(piece);
            machine::send_interrupt(cpu);
        }
    }
    pieces
}

/// Does the same on all CPUs that have nothing to do and on this one, with a number for each, and waits for all.
/// Returns how many there were.
pub fn on_all_cpus(work: impl Fn(usize) + Send + Sync + 'static) -> usize {
    let work = Arc::new(work);
    let pieces = give(MOST, |number| {
        let work = Arc::clone(&work);
        Box::new(move || work(number + 1))
    });
    work(0);
    let are_done = || pieces.iter().all(Piece::is_done);
    while !are_done() {
        interrupts::wait(Some(Moment::after(GLANCE)), are_done);
    }
    pieces.len() + 1
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

    /// What it has written so far.
    #[must_use]
    pub fn look(&self) -> Output {
        self.output.lock().clone()
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

/// A command that another CPU was given.
pub struct Running {
    job: Arc<Job>,
    piece: Piece,
}

impl Running {
    /// Has a command run by another CPU.
    ///
    /// # Errors
    /// None is idle.
    pub fn start(command: Vec<String>) -> Result<Self> {
        let job = Arc::new(Job::default());
        let pieces = give(1, |_| {
            let (job, command) = (Arc::clone(&job), command.clone());
            Box::new(move || job.run(&command))
        });
        let piece = pieces.into_iter().next().context("no CPU is idle")?;
        Ok(Self { job, piece })
    }

    /// What it has written so far. It has ended when its CPU is idle again, and not before.
    #[must_use]
    pub fn look(&self) -> Output {
        let is_done = self.piece.is_done();
        let mut output = self.job.look();
        if !is_done {
            output.end = End::Running;
        }
        output
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// It does not.
    pub fn stop(&self, limit: Duration) -> Result<Output> {
        self.job.stop.store(true, Ordering::Release);
        let end = Moment::after(limit);
        while !self.piece.is_done() && !end.has_come() {
            interrupts::wait(Some(Moment::after(GLANCE)), || self.piece.is_done());
        }
        let output = self.look();
        ensure!(output.end != End::Running, "it does not stop");
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_gets_one_piece_of_a_round_however_quick_it_is() {
        assert_eq!([1, 2].map(machine::start_cpu), [0, 0]);
        for _ in 0..3 {
            let numbers = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&numbers);
            let cpus = on_all_cpus(move |number| {
                assert!(number < 3, "piece {number} for three CPUs");
                noted.lock().push(number);
            });
            assert_eq!((cpus, &*numbers.lock()), (3, &alloc::vec![1, 2, 0]));
        }
    }

    /// Otherwise the next round would do without it.
    #[test]
    fn a_piece_is_done_when_its_cpu_can_be_given_the_next() {
        static SLOT: Slot = Slot::new();
        struct Owned;
        impl Drop for Owned {
            fn drop(&mut self) {
                assert!(SLOT.claim().is_none(), "idle, and the work has not been let go of");
            }
        }
        assert!(SLOT.claim().is_none(), "it is not there");
        SLOT.runs.store(true, Ordering::Release);
        for _ in 0..2 {
            let piece = SLOT.claim().expect("it is idle");
            let owned = Owned;
            *SLOT.work.lock() = Some(Box::new(move || drop(owned)));
            assert!(!piece.is_done() && SLOT.claim().is_none());
            SLOT.serve();
            assert!(piece.is_done());
        }
    }

    #[test]
    fn what_has_been_done_stays_done_when_the_count_wraps() {
        static SLOT: Slot = Slot::new();
        SLOT.runs.store(true, Ordering::Release);
        for count in [&SLOT.given, &SLOT.done] {
            count.store(u32::MAX, Ordering::Release);
        }
        let piece = SLOT.claim().expect("it is idle");
        assert!(!piece.is_done());
        SLOT.done.store(0, Ordering::Release);
        assert!(piece.is_done());
        SLOT.done.store(7, Ordering::Release);
        assert!(piece.is_done());
    }
}
