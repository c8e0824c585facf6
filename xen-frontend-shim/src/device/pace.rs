// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a backend still does its work, judged by the rings that it serves.
//!
//! ```text
//!   Quiet ── buffers available ──▶ Waiting ── 2 s without a used one ──▶ Excused, and the backend is asked
//!     ▲                              │ ▲                                     │    ── 5 s without an answer ──▶ hangs
//!     └──────── all used ────────────┘ └──────── more available ─────────────┘
//! ```
//!
//! Rings are looked at when the worker is awake anyway, which it is for each kick. That takes loads from memory, and no
//! clock unless a wait begins. A queue may well hold buffers for ever, as GPIO's event queue does (virtio 1.3, 5.18.7): so a
//! backend that answers is excused for what it had been given by then, and there is no timer until it is given more.

use std::time::{Duration, Instant};

/// How long a queue may stand still before its backend is asked.
const STANDSTILL: Duration = Duration::from_secs(2);
/// How long the backend may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How far a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The available index, which the driver moves.
    pub(super) available: u16,
    /// The used index, which the backend moves.
    pub(super) used: u16,
}

/// The state of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Queue {
    /// Nothing is to be done.
    #[default]
    Quiet,
    /// Buffers are available since the used index was this.
    Waiting { used: u16, until: Instant },
    /// Up to this available index, the backend may take its time.
    Excused { available: u16 },
}

/// What to do about the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// Ask it for a sign of life.
    Ask,
    /// It hangs.
    Hangs,
}

/// The watch over one backend.
#[derive(Debug)]
pub(super) struct Pace {
    queues: Vec<Queue>,
    answer_by: Option<Instant>,
}

impl Pace {
    pub(super) fn new(queues: usize) -> Self {
        Self { queues: vec![Queue::Quiet; queues], answer_by: None }
    }

    /// Takes note of how far a queue is. This is on the path of each kick.
    pub(super) fn observe(&mut self, queue: usize, progress: Progress) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        let is_done = progress.available == progress.used;
        match *queue {
            Queue::Waiting { .. } if !is_done => {}
            Queue::Excused { available } if available == progress.available => {}
            _ if is_done => *queue = Queue::Quiet,
            _ => *queue = Queue::waiting(progress, Instant::now()),
        }
    }

    /// When [`Self::check`] may have something to say.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let until = |queue: &Queue| match queue {
            Queue::Waiting { until, .. } => Some(*until),
            _ => None,
        };
        let asks = if self.answer_by.is_none() { self.queues.iter().filter_map(until).min() } else { None };
        self.answer_by.or(asks)
    }

    /// Judges. A backend that has to be asked is expected to answer from now on.
    pub(super) fn check(&mut self, now: Instant, progress: impl Fn(usize) -> Option<Progress>) -> Verdict {
        if let Some(answer_by) = self.answer_by {
            return if answer_by <= now { Verdict::Hangs } else { Verdict::Fine };
        }
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let Queue::Waiting { used, until } = *queue else { continue };
            if until > now {
                continue;
            }
            match progress(index) {
                None => *queue = Queue::Quiet,
                Some(progress) if progress.used != used => *queue = Queue::waiting(progress, now),
                Some(progress) => {
                    *queue = Queue::Excused { available: progress.available };
                    self.answer_by = Some(now + ANSWER);
                }
            }
        }
        if self.answer_by.is_some() { Verdict::Ask } else { Verdict::Fine }
    }

    /// The backend has answered.
    pub(super) fn answered(&mut self) {
        self.answer_by = None;
    }

    /// There is no backend to judge, or a new one.
    pub(super) fn forget(&mut self) {
        self.queues.fill(Queue::Quiet);
        self.answer_by = None;
    }
}

impl Queue {
    fn waiting(progress: Progress, now: Instant) -> Self {
        Self::Waiting { used: progress.used, until: now + STANDSTILL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Progress = Progress { available: 7, used: 7 };
    const GIVEN: Progress = Progress { available: 8, used: 7 };

    #[test]
    fn an_idle_backend_needs_no_timer() {
        let mut pace = Pace::new(2);
        pace.observe(0, DONE);
        pace.observe(1, DONE);
        assert_eq!(pace.deadline(), None);
        pace.observe(1, GIVEN);
        assert!(pace.deadline().is_some());
        pace.observe(1, Progress { available: 8, used: 8 });
        assert_eq!(pace.deadline(), None);
        // A queue that does not exist is nobody's concern.
        pace.observe(2, GIVEN);
        assert_eq!(pace.deadline(), None);
    }

    #[test]
    fn a_backend_that_stands_still_is_asked_and_one_that_does_not_answer_hangs() {
        let mut pace = Pace::new(1);
        pace.observe(0, GIVEN);
        let due = pace.deadline().unwrap();
        assert_eq!(pace.check(due - STANDSTILL, |_| Some(GIVEN)), Verdict::Fine);
        assert_eq!(pace.check(due, |_| Some(GIVEN)), Verdict::Ask);
        assert_eq!(pace.deadline(), Some(due + ANSWER));
        pace.observe(0, GIVEN);
        assert_eq!(pace.check(due, |_| Some(GIVEN)), Verdict::Fine);
        assert_eq!(pace.check(due + ANSWER, |_| Some(GIVEN)), Verdict::Hangs);
        pace.forget();
        assert_eq!(pace.deadline(), None);
    }

    #[test]
    fn a_backend_that_answers_is_excused_until_it_is_given_more() {
        let mut pace = Pace::new(1);
        pace.observe(0, GIVEN);
        let due = pace.deadline().unwrap();
        assert_eq!(pace.check(due, |_| Some(GIVEN)), Verdict::Ask);
        pace.answered();
        for _ in 0..3 {
            pace.observe(0, GIVEN);
            assert_eq!(pace.deadline(), None);
        }
        pace.observe(0, Progress { available: 9, used: 7 });
        assert!(pace.deadline().is_some());
    }

    #[test]
    fn a_backend_that_makes_progress_is_not_asked() {
        let mut pace = Pace::new(1);
        pace.observe(0, GIVEN);
        let due = pace.deadline().unwrap();
        let later = Progress { available: 20, used: 8 };
        pace.observe(0, later);
        assert_eq!(pace.deadline(), Some(due));
        assert_eq!(pace.check(due, |_| Some(later)), Verdict::Fine);
        assert_eq!(pace.deadline(), Some(due + STANDSTILL));
        assert_eq!(pace.check(due + STANDSTILL, |_| Some(later)), Verdict::Ask);
    }

    #[test]
    fn indices_that_wrap_are_as_good_as_others() {
        let mut pace = Pace::new(1);
        pace.observe(0, Progress { available: 0, used: u16::MAX });
        let due = pace.deadline().unwrap();
        assert_eq!(pace.check(due, |_| Some(Progress { available: 0, used: 0 })), Verdict::Fine);
        pace.observe(0, Progress { available: 0, used: 0 });
        assert_eq!(pace.deadline(), None);
    }
}
