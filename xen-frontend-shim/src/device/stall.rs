// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Detects that a backend makes no progress, from the indices of the rings that it serves.
//!
//! ```text
//!   idle ── a kick, or 5 s ──▶ look every second ── nothing new, and nothing outstanding ──▶ idle
//!
//!   each queue:
//!   Empty ── buffers available ──▶ Waiting ── 2 s without a used one ──▶ Excused, and a ping is sent
//!     ▲                              │ ▲                                     │
//!     └──────── all used ────────────┘ └──────── more available ─────────────┘
//! ```
//!
//! None of this is on the path of a request. The first kick after an idle time wakes the worker, unless the
//! backend has read it first; so an idle backend is looked at as well, every 5 s.
//!
//! A queue may hold buffers for any time, as GPIO's event queue does (virtio 1.3, 5.18.7). A backend that
//! replies is excused for the buffers that it has, and is not pinged again before the driver adds more.

use std::time::{Duration, Instant};

/// The time between two looks at rings in use.
const LOOK: Duration = Duration::from_secs(1);
/// The time between two looks at idle rings.
const IDLE_LOOK: Duration = Duration::from_secs(5);
/// How long a queue with buffers may make no progress before its backend is pinged.
const STALL: Duration = Duration::from_secs(2);

/// The indices of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The available index, which the driver moves.
    pub(super) available: u16,
    /// The used index, which the backend moves.
    pub(super) used: u16,
}

/// One queue.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    state: State,
    /// The available index at the last look.
    available: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// No buffer is outstanding.
    #[default]
    Empty,
    /// Buffers are outstanding, and the used index has to move before `until`.
    Waiting { used: u16, until: Instant },
    /// The backend may keep the buffers that it has.
    Excused,
}

/// What a look at a queue shows, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Activity {
    /// Nothing changes before the driver kicks.
    Idle,
    /// It is in use.
    Busy,
    /// It has made no progress for too long.
    Stalled,
}

/// The state of the detection for one backend.
#[derive(Debug)]
pub(super) struct StallDetector {
    queues: Vec<Queue>,
    /// When the rings are looked at next, if there is a backend.
    look_at: Option<Instant>,
    /// Whether all queues were idle at the last look.
    is_idle: bool,
}

impl StallDetector {
    pub(super) fn new(queues: usize) -> Self {
        Self { queues: vec![Queue::default(); queues], look_at: None, is_idle: true }
    }

    /// Starts to look at the rings: a backend serves them.
    pub(super) fn start(&mut self, now: Instant) {
        (self.look_at, self.is_idle) = (Some(now + LOOK), false);
    }

    /// Whether [`Self::kicked`] has to be called at the next kick.
    pub(super) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// The driver has kicked.
    pub(super) fn kicked(&mut self, now: Instant, progress: impl Fn(usize) -> Option<Progress>) {
        if self.is_idle {
            self.look(now, progress);
            self.start(now);
        }
    }

    /// The next kick will be noticed. One just before may not have been, and the backend may have read it.
    pub(super) fn armed(&mut self, now: Instant, progress: impl Fn(usize) -> Option<Progress>) {
        if self.is_idle && self.look(now, progress) != Activity::Idle {
            self.start(now);
        }
    }

    /// When [`Self::check`] has to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// Looks at the rings if it is time to. True if the backend has to be pinged.
    pub(super) fn check(&mut self, now: Instant, progress: impl Fn(usize) -> Option<Progress>) -> bool {
        if self.look_at.is_none_or(|look_at| look_at > now) {
            return false;
        }
        let activity = self.look(now, progress);
        self.is_idle = activity == Activity::Idle;
        self.look_at = Some(now + if self.is_idle { IDLE_LOOK } else { LOOK });
        activity == Activity::Stalled
    }

    /// Looks at all queues. Returns the worst that it finds.
    fn look(&mut self, now: Instant, progress: impl Fn(usize) -> Option<Progress>) -> Activity {
        let mut worst = Activity::Idle;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            match progress(index) {
                Some(progress) => worst = worst.max(queue.look(progress, now)),
                None => *queue = Queue::default(),
            }
        }
        worst
    }

    /// Drops what is known of a backend that has been disconnected.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.queues.len());
    }
}

impl Queue {
    fn look(&mut self, progress: Progress, now: Instant) -> Activity {
        let Progress { available, used } = progress;
        let has_moved = self.available.replace(available) != Some(available);
        match self.state {
            _ if available == used => {
                self.state = State::Empty;
                if has_moved { Activity::Busy } else { Activity::Idle }
            }
            State::Excused if !has_moved => Activity::Idle,
            State::Waiting { used: before, until } if used == before => {
                if until > now {
                    return Activity::Busy;
                }
                self.state = State::Excused;
                Activity::Stalled
            }
            _ => {
                self.state = State::Waiting { used, until: now + STALL };
                Activity::Busy
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_USED: Progress = Progress { available: 7, used: 7 };
    const OUTSTANDING: Progress = Progress { available: 8, used: 7 };

    /// A backend of one queue that has just started.
    struct Watched {
        detector: StallDetector,
        now: Instant,
    }

    impl Watched {
        fn start() -> Self {
            let (mut detector, now) = (StallDetector::new(1), Instant::now());
            detector.start(now);
            Self { detector, now }
        }

        /// Waits for the next look, at a ring with these indices.
        fn look(&mut self, progress: Progress) -> bool {
            self.now = self.detector.deadline().unwrap();
            self.detector.check(self.now, |_| Some(progress))
        }

        /// Looks at a ring that does not move until it is stalled or idle. Returns how long that takes.
        fn wait(&mut self, progress: Progress) -> (bool, Duration) {
            let start = self.now;
            loop {
                let is_stalled = self.look(progress);
                if is_stalled || self.detector.is_idle() {
                    return (is_stalled, self.now - start);
                }
            }
        }
    }

    #[test]
    fn a_backend_without_buffers_is_idle_until_a_kick() {
        let mut watched = Watched::start();
        assert_eq!(watched.wait(ALL_USED), (false, 2 * LOOK));
        assert_eq!(watched.detector.deadline(), Some(watched.now + IDLE_LOOK));
        watched.detector.kicked(watched.now, |_| Some(OUTSTANDING));
        assert_eq!(watched.detector.deadline(), Some(watched.now + LOOK));
        assert!(!watched.look(Progress { available: 8, used: 8 }));
        assert!(watched.detector.is_idle(), "all is used, and no more has come");
    }

    #[test]
    fn buffers_added_before_kicks_are_noticed_end_the_idle_state() {
        let mut watched = Watched::start();
        watched.wait(ALL_USED);
        watched.detector.armed(watched.now, |_| Some(ALL_USED));
        assert!(watched.detector.is_idle());
        watched.detector.armed(watched.now, |_| Some(OUTSTANDING));
        assert_eq!(watched.wait(OUTSTANDING), (true, STALL));
    }

    /// The backend has read the kick, and has hung since.
    #[test]
    fn buffers_added_without_a_noticed_kick_end_the_idle_state() {
        let mut watched = Watched::start();
        watched.wait(ALL_USED);
        for _ in 0..3 {
            assert!(!watched.look(ALL_USED));
            assert!(watched.detector.is_idle());
        }
        assert!(!watched.look(OUTSTANDING));
        assert!(!watched.detector.is_idle());
        assert_eq!(watched.wait(OUTSTANDING), (true, STALL));
    }

    #[test]
    fn a_backend_that_makes_progress_is_not_pinged() {
        let mut watched = Watched::start();
        for index in 0..20 {
            assert!(!watched.look(Progress { available: index + 1, used: index }));
            assert!(!watched.detector.is_idle());
        }
        // Many are outstanding, and one after the other is used.
        for index in 0..20 {
            assert!(!watched.look(Progress { available: 100, used: 20 + index }));
        }
    }

    #[test]
    fn a_backend_without_progress_is_pinged_after_two_seconds() {
        let mut watched = Watched::start();
        watched.wait(ALL_USED);
        watched.detector.kicked(watched.now, |_| Some(OUTSTANDING));
        assert_eq!(watched.wait(OUTSTANDING), (true, STALL));
        watched.detector.reset();
        assert_eq!(watched.detector.deadline(), None);
    }

    #[test]
    fn a_backend_that_was_pinged_is_excused_until_there_are_more_buffers() {
        let mut watched = Watched::start();
        let (is_stalled, after) = watched.wait(OUTSTANDING);
        assert!(is_stalled);
        assert!(after <= STALL + LOOK, "{after:?}");
        assert_eq!(watched.wait(OUTSTANDING), (false, LOOK));
        let more = Progress { available: 9, used: 7 };
        watched.detector.kicked(watched.now, |_| Some(more));
        assert_eq!(watched.wait(more), (true, STALL));
    }

    #[test]
    fn indices_may_wrap() {
        let mut watched = Watched::start();
        assert!(!watched.look(Progress { available: 0, used: u16::MAX }));
        assert_eq!(watched.wait(Progress { available: 0, used: 0 }), (false, LOOK));
    }

    #[test]
    fn a_queue_that_is_not_in_use_is_idle() {
        let mut watched = Watched::start();
        watched.look(OUTSTANDING);
        let due = watched.detector.deadline().unwrap();
        assert!(!watched.detector.check(due, |_| None));
        assert!(watched.detector.is_idle());
    }
}
