// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The delay before a process that has ended is started again: it doubles each time, up to a limit.

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

impl BackOff {
    /// The first delay.
    pub(super) const FIRST: Duration = Duration::from_millis(100);

    /// Records the start of the process.
    pub(super) fn started(&mut self, now: Instant) {
        self.started_at = Some(now);
        self.due = None;
    }

    /// Records that the process has ended or could not be started. Returns the delay before the next start.
    pub(super) fn ended(&mut self, now: Instant) -> Duration {
        let ran = self.started_at.take().map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        let is_first = ran >= STABLE_AFTER || self.last_delay.is_zero();
        self.last_delay =
            if is_first { Self::FIRST } else { self.last_delay.saturating_mul(2).min(MAX_DELAY) };
        self.due = Some(now + self.last_delay);
        self.last_delay
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
        let mut delays = Vec::new();
        for _ in 0..8 {
            back_off.started(now);
            assert_eq!(back_off.due(), None);
            let delay = back_off.ended(now);
            assert!(!back_off.is_due(now));
            now += delay;
            assert!(back_off.is_due(now));
            delays.push(delay.as_millis());
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        back_off.started(now);
        now += STABLE_AFTER;
        assert_eq!(back_off.ended(now), BackOff::FIRST);
        // It was not started, so it has not run.
        assert_eq!(back_off.ended(now), 2 * BackOff::FIRST);
    }
}
