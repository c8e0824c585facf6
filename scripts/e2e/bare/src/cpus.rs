// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other CPUs: each waits for work that the first one gives it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;

use spin::Mutex;

use crate::clock::Moment;
use crate::{interrupts, machine, platform};

/// The maximum number of CPUs.
const MAX_CPUS: usize = 8;
/// The interval at which a condition is checked that no interrupt signals.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The time within which a CPU has to start.
const START_LIMIT: Duration = Duration::from_secs(5);

type Work = Box<dyn FnOnce() + Send>;

/// The state of one CPU.
struct Slot {
    is_running: AtomicBool,
    /// The number of pieces of work that the CPU was given, and of those that it has done. The CPU is idle if
    /// they are equal. Both wrap.
    given: AtomicU32,
    done: AtomicU32,
    work: Mutex<Option<Work>>,
}

static SLOTS: [Slot; MAX_CPUS] = [const { Slot::new() }; MAX_CPUS];

impl Slot {
    const fn new() -> Self {
        Self {
            is_running: AtomicBool::new(false),
            given: AtomicU32::new(0),
            done: AtomicU32::new(0),
            work: Mutex::new(None),
        }
    }

    /// Reserves the CPU of this slot for one piece of work. Returns `None` if it is not idle.
    fn claim(&'static self, cpu: usize) -> Option<Piece> {
        let done = self.done.load(Ordering::Acquire);
        let number = done.wrapping_add(1);
        let is_claimed = self.is_running.load(Ordering::Acquire)
            && self.given.compare_exchange(done, number, Ordering::AcqRel, Ordering::Acquire).is_ok();
        is_claimed.then_some(Piece { cpu, slot: self, number })
    }

    /// Does the work that the CPU was given. The CPU is idle after the work and all that it owns are dropped.
    fn serve(&self) {
        let work = self.work.lock().take();
        if let Some(work) = work {
            work();
            self.done.fetch_add(1, Ordering::Release);
        }
    }
}

/// A piece of work for a reserved CPU.
pub struct Piece {
    cpu: usize,
    slot: &'static Slot,
    number: u32,
}

impl Piece {
    /// Gives the CPU the work. A reserved CPU becomes idle only after this.
    fn start(&self, work: Work) {
        *self.slot.work.lock() = Some(work);
        machine::send_interrupt(self.cpu);
    }

    /// Returns whether the CPU has done the work. Its results can be read then.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let done = self.slot.done.load(Ordering::Acquire);
        done.wrapping_sub(self.number) <= u32::MAX / 2
    }

    /// Waits until the work is done, until `end` at most.
    pub fn wait(&self, end: Option<Moment>) {
        while !self.is_done() && !end.is_some_and(Moment::has_come) {
            interrupts::wait(Some(Moment::after(POLL_INTERVAL)), || self.is_done());
        }
    }
}

/// Starts the other CPUs and waits until they run. [`on_all`] does without a CPU that does not start.
pub fn start_others() {
    let is_started = |&cpu: &usize| machine::start_cpu(cpu) == 0;
    let started: Vec<usize> = (1..platform::cpus().min(MAX_CPUS)).filter(is_started).collect();
    let is_running =
        |&cpu: &usize| SLOTS.get(cpu).is_some_and(|slot| slot.is_running.load(Ordering::Acquire));
    let end = Moment::after(START_LIMIT);
    while !started.iter().all(is_running) && !end.has_come() {
        interrupts::wait(Some(Moment::after(POLL_INTERVAL)), || started.iter().all(is_running));
    }
}

/// The main loop of a CPU other than the first.
pub fn serve_for_ever() -> ! {
    interrupts::enable_this_cpu();
    let cpu = machine::cpu();
    set_running(cpu);
    loop {
        interrupts::wait(None, || SLOTS.get(cpu).is_some_and(|slot| slot.work.lock().is_some()));
        serve(cpu);
    }
}

/// Marks a CPU as available for work.
fn set_running(cpu: usize) {
    if let Some(slot) = SLOTS.get(cpu) {
        slot.is_running.store(true, Ordering::Release);
    }
}

/// Does the work of a CPU, if there is any.
fn serve(cpu: usize) {
    if let Some(slot) = SLOTS.get(cpu) {
        slot.serve();
    }
}

/// Reserves the idle CPUs, each when the iterator reaches it: a CPU that is done early is not reserved twice.
fn claim_idle() -> impl Iterator<Item = Piece> {
    SLOTS.iter().enumerate().filter_map(|(cpu, slot)| slot.claim(cpu))
}

/// Starts `work` on an idle CPU. Returns `None` if there is none.
pub fn on_another(work: impl FnOnce() + Send + 'static) -> Option<Piece> {
    let piece = claim_idle().next()?;
    piece.start(Box::new(work));
    Some(piece)
}

/// Runs `work` on this CPU and all idle ones and waits for them. Each gets a number, from 0 on. Returns the
/// number of CPUs.
pub fn on_all(work: impl Fn(usize) + Send + Sync + 'static) -> usize {
    let work = Arc::new(work);
    let mut pieces = Vec::new();
    for (piece, number) in claim_idle().zip(1..) {
        let work = Arc::clone(&work);
        piece.start(Box::new(move || work(number)));
        pieces.push(piece);
    }
    work(0);
    for piece in &pieces {
        piece.wait(None);
    }
    pieces.len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_done_early_gets_one_piece_per_round() {
        machine::on_interrupt(serve);
        (1..3).for_each(set_running);
        for _ in 0..3 {
            let numbers = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&numbers);
            let cpus = on_all(move |number| {
                assert!(number < 3, "piece {number} for three CPUs");
                noted.lock().push(number);
            });
            assert_eq!((cpus, &*numbers.lock()), (3, &alloc::vec![1, 2, 0]));
        }
    }

    /// Otherwise the next round would leave this CPU out.
    #[test]
    fn a_cpu_is_idle_after_its_work_is_dropped() {
        static SLOT: Slot = Slot::new();
        struct Owned;
        impl Drop for Owned {
            fn drop(&mut self) {
                assert!(SLOT.claim(0).is_none(), "the CPU is idle before the work is dropped");
            }
        }
        assert!(SLOT.claim(0).is_none(), "the CPU does not run");
        SLOT.is_running.store(true, Ordering::Release);
        for _ in 0..2 {
            let piece = SLOT.claim(0).expect("the CPU is idle");
            let owned = Owned;
            *SLOT.work.lock() = Some(Box::new(move || drop(owned)));
            assert!(!piece.is_done() && SLOT.claim(0).is_none());
            SLOT.serve();
            assert!(piece.is_done());
        }
    }

    #[test]
    fn a_piece_stays_done_when_the_count_wraps() {
        static SLOT: Slot = Slot::new();
        SLOT.is_running.store(true, Ordering::Release);
        for count in [&SLOT.given, &SLOT.done] {
            count.store(u32::MAX, Ordering::Release);
        }
        let piece = SLOT.claim(0).expect("the CPU is idle");
        assert!(!piece.is_done());
        SLOT.done.store(0, Ordering::Release);
        assert!(piece.is_done());
        SLOT.done.store(7, Ordering::Release);
        assert!(piece.is_done());
    }
}
