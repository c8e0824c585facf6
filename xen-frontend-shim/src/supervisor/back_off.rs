// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The delay before a process that has failed is started again: it doubles each time, up to a limit.

use std::fmt;
use std::time::{Duration, Instant};

/// The longest delay. A device waits 5 s for a backend, which needs time to start as well.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// The delay begins with the first one again after the process has run this long.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The delays of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BackOff {
    started_at: Option<Instant>,
    last_delay: Duration,
    due: Option<Instant>,
}

/// The delay after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) delay: Duration,
    /// Whether it has just become the longest one.
    is_longest: bool,
}

impl Retry {
    /// Whether the failure is to be logged: the first one, and the one after which the delay stays the same.
    pub(super) fn is_logged(self) -> bool {
        self.is_longest || self.delay == BackOff::FIRST
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_longest {
            write!(f, "again and again; trying every {:?} from now on", self.delay)
        } else {
            write!(f, "trying again in {:?}", self.delay)
        }
    }
}

impl BackOff {
    /// The first delay.
    pub(super) const FIRST: Duration = Duration::from_millis(100);

    /// Records the start of the process.
    pub(super) fn started(&mut self, now: Instant) {
        self.started_at = Some(now);
        self.due = None;
    }

    /// Records that the process has failed: it has ended, or could not be started or used.
    pub(super) fn failed(&mut self, now: Instant) -> Retry {
        let ran = self.started_at.take().map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        let former = self.last_delay;
        let is_first = ran >= STABLE_AFTER || former.is_zero();
        let delay = if is_first { Self::FIRST } else { former.saturating_mul(2).min(MAX_DELAY) };
        self.last_delay = delay;
        self.due = Some(now + delay);
        Retry { delay, is_longest: delay == MAX_DELAY && former != MAX_DELAY }
    }

    /// Records that the process has ended as it should. It is started again after the first delay.
    pub(super) fn ended(&mut self, now: Instant) {
        self.started_at = None;
        self.due = Some(now + Self::FIRST);
    }

    /// Whether the process may be started.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// The end of the delay, if the process has ended.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_to_the_limit_and_restarts_after_a_stable_run() {
        let mut now = Instant::now();
        let mut back_off = BackOff::default();
        assert!(back_off.is_due(now));
        let (mut delays, mut logged) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            back_off.started(now);
            assert_eq!(back_off.due(), None);
            let retry = back_off.failed(now);
            assert!(!back_off.is_due(now));
            now += retry.delay;
            assert!(back_off.is_due(now));
            delays.push(retry.delay.as_millis());
            logged.push(retry.is_logged());
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        assert_eq!(logged, [true, false, false, false, false, true, false, false]);
        back_off.started(now);
        now += STABLE_AFTER;
        assert_eq!(back_off.failed(now).delay, BackOff::FIRST);
        // It was not started, so it has not run.
        assert_eq!(back_off.failed(now).delay, 2 * BackOff::FIRST);
    }

    #[test]
    fn process_that_ends_as_it_should_has_the_first_delay_each_time() {
        let mut now = Instant::now();
        let mut back_off = BackOff::default();
        for _ in 0..3 {
            back_off.started(now);
            back_off.ended(now);
            assert!(!back_off.is_due(now));
            now += BackOff::FIRST;
            assert!(back_off.is_due(now));
        }
    }
}
