// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Deadlines as timeouts of epoll.

use std::time::{Duration, Instant};

/// The milliseconds until `deadline`, rounded up; -1, no timeout, without a deadline.
pub(crate) fn milliseconds_until(deadline: Option<Instant>) -> i32 {
    let Some(deadline) = deadline else { return -1 };
    let left = deadline.saturating_duration_since(Instant::now());
    let rounded = left.saturating_add(Duration::from_nanos(999_999));
    i32::try_from(rounded.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_reaches_the_deadline() {
        assert_eq!(milliseconds_until(None), -1);
        assert_eq!(milliseconds_until(Some(Instant::now())), 0);
        let deadline = Instant::now() + Duration::from_millis(1_000_000);
        let wait = u64::try_from(milliseconds_until(Some(deadline))).unwrap();
        assert!(Instant::now() + Duration::from_millis(wait) >= deadline);
    }
}
