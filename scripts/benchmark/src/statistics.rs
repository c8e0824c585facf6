// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Medians and percentiles.

use serde::{Deserialize, Serialize};

/// The distribution of the cost of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The minimum.
    pub least: u64,
    /// Half of the requests cost no more.
    pub median: u64,
    /// 99 of 100 requests cost no more.
    pub p99: u64,
    /// 999 of 1000 requests cost no more. With fewer than 1000 requests, it is the maximum.
    pub p999: u64,
    /// The maximum.
    pub most: u64,
}

impl Distribution {
    /// Returns the distribution of `costs`, in any order; `None` if there are none.
    #[must_use]
    pub fn of(costs: &[u64]) -> Option<Self> {
        let mut sorted = costs.to_vec();
        sorted.sort_unstable();
        let at = |per_mille| rank(&sorted, per_mille);
        Some(Self { least: at(0)?, median: at(500)?, p99: at(990)?, p999: at(999)?, most: at(1000)? })
    }
}

/// Returns the smallest element of `sorted` that at least `per_mille` of a thousand elements do not exceed
/// (nearest rank).
#[must_use]
pub fn rank(sorted: &[u64], per_mille: usize) -> Option<u64> {
    let place = (sorted.len() * per_mille).div_ceil(1000).saturating_sub(1);
    sorted.get(place).copied()
}

/// Returns `one / other`, rounded to four decimal places; `None` if `other` is 0.
#[must_use]
pub fn ratio(one: f64, other: f64) -> Option<f64> {
    let ratio = one / other;
    ratio.is_finite().then(|| (ratio * 10_000.0).round() / 10_000.0)
}

/// Returns `sum / count`.
#[must_use]
pub fn per(sum: u64, count: u64) -> f64 {
    let each = as_f64(sum) / as_f64(count.max(1));
    (each * 100.0).round() / 100.0
}

/// Converts a count. All counts are far below 2^53, up to which the conversion is exact.
#[must_use]
pub fn as_f64(count: u64) -> f64 {
    let [high, low] =
        [count >> 32, count & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or_default());
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_nearest_ranks() {
        let costs: Vec<u64> = (1..=1000).rev().collect();
        let distribution = Distribution::of(&costs).unwrap();
        assert_eq!(distribution, Distribution { least: 1, median: 500, p99: 990, p999: 999, most: 1000 });
        assert_eq!(Distribution::of(&[7]).unwrap().p99, 7);
        assert_eq!(Distribution::of(&[1, 2, 3, 4]).unwrap().median, 2);
        assert_eq!(Distribution::of(&[]), None);
    }

    #[test]
    fn a_ratio_to_zero_is_none() {
        assert_eq!(ratio(1.0, 3.0), Some(0.3333));
        assert_eq!(ratio(0.0, 0.0), None);
        assert_eq!(ratio(1.0, 0.0), None);
    }

    #[test]
    fn large_counts_are_exact() {
        assert_eq!(as_f64(0x1_0000_0003), 4_294_967_299.0);
        assert_eq!(per(7, 2), 3.5);
        assert_eq!(per(7, 0), 7.0);
    }
}
