// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Time: the virtual counter, and moments at which waiting is over.

use core::time::Duration;

use crate::machine;

/// A moment, as the virtual counter has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// The present moment.
    #[must_use]
    pub fn now() -> Self {
        Self(machine::counter())
    }

    /// So much later than now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let ticks = duration.as_nanos() * u128::from(machine::frequency()) / 1_000_000_000;
        Self(machine::counter().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX)))
    }

    /// Whether it has come.
    #[must_use]
    pub fn has_come(self) -> bool {
        machine::counter() >= self.0
    }

    /// How much time has passed since.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        let ticks = machine::counter().saturating_sub(self.0);
        let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(machine::frequency().max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}
