// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! When something that has ended is started again: soon, but less and less so if it keeps ending.

use std::time::{Duration, Instant};

/// At most so long: a driver waits five seconds for a backend, which also has to come up.
const LONGEST: Duration = Duration::from_secs(2);
/// What has lived so long begins with the first pause again.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// The pauses of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BackOff {
    born: Option<Instant>,
    last: Duration,
    due: Option<Instant>,
}

impl BackOff {
    /// How long the first pause is. Each further one is twice as long.
    pub(super) const FIRST: Duration = Duration::from_millis(100);

    /// It has been started.
    pub(super) fn started(&mut self, now: Instant) {
        self.born = Some(now);
        self.due = None;
    }

    /// It has ended, or could not be started. Says for how long it is left alone.
    pub(super) fn ended(&mut self, now: Instant) -> Duration {
        let life = self.born.take().map_or(Duration::ZERO, |born| now.saturating_duration_since(born));
        let is_first = life >= LONG_LIFE || self.last.is_zero();
        self.last = if is_first { Self::FIRST } else { self.last.saturating_mul(2).min(LONGEST) };
        self.due = Some(now + self.last);
        self.last
    }

    /// Whether it may be started.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// When it may be, if that is later.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_to_a_limit_and_begin_anew_after_a_long_life() {
        let mut now = Instant::now();
        let mut back_off = BackOff::default();
        assert!(back_off.is_due(now));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            back_off.started(now);
            assert_eq!(back_off.due(), None);
            let pause = back_off.ended(now);
            assert!(!back_off.is_due(now));
            now += pause;
            assert!(back_off.is_due(now));
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        back_off.started(now);
        now += LONG_LIFE;
        assert_eq!(back_off.ended(now), BackOff::FIRST);
        // Not even started, and so not lived long.
        assert_eq!(back_off.ended(now), 2 * BackOff::FIRST);
    }
}
