// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a backend still does its work, judged by the rings that it serves.
//!
//! ```text
//!   at rest ── a kick ──▶ looked at every second ── nothing came, and nothing is left to do ──▶ at rest
//!           (or 5 s)
//!
//!   of each queue:
//!   Quiet ── buffers available ──▶ Waiting ── 2 s without a used one ──▶ Excused, and the backend is asked
//!     ▲                              │ ▲                                     │    ── 5 s without an answer ──▶ hangs
//!     └──────── all used ────────────┘ └──────── more available ─────────────┘
//! ```
//!
//! None of this is on the path of a request. The first kick after a rest wakes the worker; after that it looks at the
//! rings when the time has come, and not at all when no driver uses the device. The kick is the backend's to read: if that comes
//! first, the kernel keeps it from the worker, and who sends one request and waits sends no other. So a backend at rest is looked at as
//! well, if seldom. A queue may well hold buffers for ever, as
//! GPIO's event queue does (virtio 1.3, 5.18.7): so a backend that answers is excused for what it had been given by
//! then, and rests until it is given more.
//!
//! Which question is open is the session's to know: whichever call takes the answer, the question goes with it.

use std::time::{Duration, Instant};

/// How often rings are looked at that are in use.
const LOOK: Duration = Duration::from_secs(1);
/// How often rings are looked at of which nobody has said that they are in use.
const REST: Duration = Duration::from_secs(5);
/// How long a queue may stand still before its backend is asked.
const STANDSTILL: Duration = Duration::from_secs(2);
/// How long the backend may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// How far a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The available index, which the driver moves.
    pub(super) available: u16,
    /// The used index, which the backend moves.
    pub(super) used: u16,
}

/// What is known of one queue.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    state: State,
    /// The available index at the last look.
    available: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Nothing is to be done.
    #[default]
    Quiet,
    /// Buffers are available since the used index was this.
    Waiting { used: u16, until: Instant },
    /// The backend may take its time for what it has.
    Excused,
}

/// What a look at a queue has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// There is no more to see before the driver kicks.
    Rest,
    /// It is in use.
    Work,
    /// It has stood still for too long.
    Standstill,
}

/// What to do about the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// Ask it for a sign of life, which is due within [`ANSWER`]. Nothing is judged until it has given that.
    Ask,
}

/// The watch over one backend.
#[derive(Debug)]
pub(super) struct Pace {
    queues: Vec<Queue>,
    /// When the rings are looked at next, if there is somebody to judge.
    look_at: Option<Instant>,
    /// Whether nothing was left to do at the last look.
    rests: bool,
}

impl Pace {
    pub(super) fn new(queues: usize) -> Self {
        Self { queues: vec![Queue::default(); queues], look_at: None, rests: true }
    }

    /// A backend begins to serve.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.look_at, self.rests) = (Some(now + LOOK), false);
    }

    /// Whether the next kick has to be told, by [`Self::kicked`].
    pub(super) fn is_at_rest(&self) -> bool {
        self.rests
    }

    /// The driver has kicked.
    pub(super) fn kicked(&mut self, now: Instant, progress: impl Fn(usize) -> Option<Progress>) {
        if self.is_at_rest() {
            self.look(now, progress);
            self.begin(now);
        }
    }

    /// From now on the next kick will be told. One that came just before was not, and may have been taken up already.
    pub(super) fn armed(&mut self, now: Instant, progress: impl Fn(usize) -> Option<Progress>) {
        if self.is_at_rest() && self.look(now, progress) != Seen::Rest {
            self.begin(now);
        }
    }

    /// When [`Self::check`] may have something to say.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// Judges.
    pub(super) fn check(&mut self, now: Instant, progress: impl Fn(usize) -> Option<Progress>) -> Verdict {
        if self.look_at.is_none_or(|look_at| look_at > now) {
            return Verdict::Fine;
        }
        let seen = self.look(now, progress);
        self.rests = seen == Seen::Rest;
        self.look_at = Some(now + if self.rests { REST } else { LOOK });
        if seen == Seen::Standstill { Verdict::Ask } else { Verdict::Fine }
    }

    /// Looks at all queues: what is seen of the one that is worst off.
    fn look(&mut self, now: Instant, progress: impl Fn(usize) -> Option<Progress>) -> Seen {
        let mut worst = Seen::Rest;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            match (progress(index).map(|progress| queue.look(progress, now)), worst) {
                (None, _) => *queue = Queue::default(),
                (Some(Seen::Standstill), _) => worst = Seen::Standstill,
                (Some(Seen::Work), Seen::Rest) => worst = Seen::Work,
                (Some(_), _) => {}
            }
        }
        worst
    }

    /// There is no backend to judge, or a new one.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.queues.len());
    }
}

impl Queue {
    fn look(&mut self, progress: Progress, now: Instant) -> Seen {
        let Progress { available, used } = progress;
        let has_moved = self.available.replace(available) != Some(available);
        match self.state {
            _ if available == used => {
                self.state = State::Quiet;
                if has_moved { Seen::Work } else { Seen::Rest }
            }
            State::Excused if !has_moved => Seen::Rest,
            State::Waiting { used: before, until } if used == before => {
                if until > now {
                    return Seen::Work;
                }
                self.state = State::Excused;
                Seen::Standstill
            }
            _ => {
                self.state = State::Waiting { used, until: now + STANDSTILL };
                Seen::Work
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Progress = Progress { available: 7, used: 7 };
    const GIVEN: Progress = Progress { available: 8, used: 7 };

    /// A backend of one queue that is watched from now on.
    struct Watched {
        pace: Pace,
        now: Instant,
    }

    impl Watched {
        fn begin() -> Self {
            let (mut pace, now) = (Pace::new(1), Instant::now());
            pace.begin(now);
            Self { pace, now }
        }

        /// Waits for the next look, at a ring that is so far then.
        fn look(&mut self, progress: Progress) -> Verdict {
            self.now = self.pace.deadline().unwrap();
            self.pace.check(self.now, |_| Some(progress))
        }

        /// Looks at a ring that does not move until there is something to do about it, or nothing more to look at: how
        /// long that took.
        fn wait(&mut self, progress: Progress) -> (Verdict, Duration) {
            let begin = self.now;
            loop {
                let verdict = self.look(progress);
                if verdict != Verdict::Fine || self.pace.is_at_rest() {
                    return (verdict, self.now - begin);
                }
            }
        }
    }

    #[test]
    fn an_idle_backend_comes_to_rest_until_it_is_kicked() {
        let mut watched = Watched::begin();
        assert_eq!(watched.wait(DONE), (Verdict::Fine, 2 * LOOK));
        assert_eq!(watched.pace.deadline(), Some(watched.now + REST));
        watched.pace.kicked(watched.now, |_| Some(GIVEN));
        assert_eq!(watched.pace.deadline(), Some(watched.now + LOOK));
        assert_eq!(watched.look(Progress { available: 8, used: 8 }), Verdict::Fine);
        assert!(watched.pace.is_at_rest(), "all that was given is used, and no more has come");
    }

    #[test]
    fn a_kick_that_came_before_anybody_waited_for_it_is_not_missed() {
        let mut watched = Watched::begin();
        watched.wait(DONE);
        watched.pace.armed(watched.now, |_| Some(DONE));
        assert!(watched.pace.is_at_rest());
        watched.pace.armed(watched.now, |_| Some(GIVEN));
        assert_eq!(watched.wait(GIVEN), (Verdict::Ask, STANDSTILL));
    }

    /// The backend has read the kick, and has hung since.
    #[test]
    fn a_kick_that_nobody_was_told_of_is_not_missed() {
        let mut watched = Watched::begin();
        watched.wait(DONE);
        for _ in 0..3 {
            assert_eq!(watched.look(DONE), Verdict::Fine);
            assert!(watched.pace.is_at_rest());
        }
        assert_eq!(watched.look(GIVEN), Verdict::Fine);
        assert!(!watched.pace.is_at_rest());
        assert_eq!(watched.wait(GIVEN), (Verdict::Ask, STANDSTILL));
    }

    #[test]
    fn a_backend_in_use_is_looked_at_and_not_asked() {
        let mut watched = Watched::begin();
        for index in 0..20 {
            assert_eq!(watched.look(Progress { available: index + 1, used: index }), Verdict::Fine);
            assert!(!watched.pace.is_at_rest());
        }
        // Much is left to do, and one after the other gets done.
        for index in 0..20 {
            assert_eq!(watched.look(Progress { available: 100, used: 20 + index }), Verdict::Fine);
        }
    }

    #[test]
    fn a_backend_that_stands_still_is_asked() {
        let mut watched = Watched::begin();
        watched.wait(DONE);
        watched.pace.kicked(watched.now, |_| Some(GIVEN));
        assert_eq!(watched.wait(GIVEN), (Verdict::Ask, STANDSTILL));
        watched.pace.forget();
        assert_eq!(watched.pace.deadline(), None);
    }

    #[test]
    fn a_backend_that_answers_is_excused_until_it_is_given_more() {
        let mut watched = Watched::begin();
        let (verdict, after) = watched.wait(GIVEN);
        assert_eq!(verdict, Verdict::Ask);
        assert!(after <= STANDSTILL + LOOK, "{after:?}");
        assert_eq!(watched.wait(GIVEN), (Verdict::Fine, LOOK));
        let more = Progress { available: 9, used: 7 };
        watched.pace.kicked(watched.now, |_| Some(more));
        assert_eq!(watched.wait(more), (Verdict::Ask, STANDSTILL));
    }

    #[test]
    fn indices_that_wrap_are_as_good_as_others() {
        let mut watched = Watched::begin();
        assert_eq!(watched.look(Progress { available: 0, used: u16::MAX }), Verdict::Fine);
        assert_eq!(watched.wait(Progress { available: 0, used: 0 }), (Verdict::Fine, LOOK));
    }

    #[test]
    fn a_queue_that_is_not_in_use_needs_no_look() {
        let mut watched = Watched::begin();
        watched.look(GIVEN);
        let due = watched.pace.deadline().unwrap();
        assert_eq!(watched.pace.check(due, |_| None), Verdict::Fine);
        assert!(watched.pace.is_at_rest());
    }
}
