// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Time: the virtual counter, and deadlines.

use core::time::Duration;

use crate::machine;

/// A point in time: a value of the virtual counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Returns the present time.
    #[must_use]
    pub fn now() -> Self {
        Self(machine::counter())
    }

    /// Returns the time `duration` from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let ticks = duration.as_nanos() * u128::from(machine::frequency()) / 1_000_000_000;
        Self(machine::counter().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX)))
    }

    /// Returns whether this time is reached.
    #[must_use]
    pub fn has_come(self) -> bool {
        machine::counter() >= self.0
    }

    /// Returns the time that has passed since.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        let ticks = machine::counter().saturating_sub(self.0);
        let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(machine::frequency().max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}
