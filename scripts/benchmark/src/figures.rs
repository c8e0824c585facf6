// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The results, in the format of the JSON file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spent::{Counted, Places};
use crate::statistics::{Distribution, as_f64, ratio};

/// The results of a contender in a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The number of measured requests.
    pub requests: u64,
    /// The number of failed requests.
    pub errors: u64,
    /// The cost of a request from its start to its end, in [`Report::unit`].
    #[serde(flatten)]
    pub cost: Distribution,
    /// The median of each round.
    pub rounds: Vec<u64>,
    /// Instructions per request by party, the mean of the median round.
    pub places: Places,
    /// Other counts per request.
    pub counted: Counted,
    /// Instructions per request by function of Xen and of the driver domain's kernel, with `--profile`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub profile: BTreeMap<String, f64>,
}

/// A second without requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// Instructions by party.
    pub places: Places,
    /// Other counts.
    pub counted: Counted,
}

/// Instructions of all processors since the driver domain's first instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Until the guest's first instruction.
    pub to_guest: u64,
    /// Until the guest's first program runs.
    pub to_guest_program: u64,
    /// Until the guest's first transfer is answered.
    pub to_first_answer: u64,
}

/// The cost of a request for one guest, and for several at the same time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// The number of guests.
    pub guests: u64,
    /// The number of devices of each guest.
    pub devices: u64,
    /// Instructions per request, by the number of guests that send requests.
    pub cost: BTreeMap<u64, f64>,
    /// Instructions per request by party, by the number of guests that send requests.
    pub places: BTreeMap<u64, Places>,
}

/// All results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format.
    pub format: u32,
    /// The commit that was measured.
    pub commit: String,
    /// `icount` or `wall`.
    pub clock: String,
    /// The unit of costs: `instructions` or `nanoseconds`.
    pub unit: String,
    /// Whether this is a run with few requests.
    pub quick: bool,
    /// By workload and contender.
    pub workloads: BTreeMap<String, BTreeMap<String, Figures>>,
    /// A second without requests.
    pub idle: Option<Idle>,
    /// The start of a driver domain with one guest.
    pub start: Option<Start>,
    /// By workload.
    pub scale: BTreeMap<String, Scale>,
    /// Ratios of figures, by name.
    pub ratios: BTreeMap<String, f64>,
}

impl Report {
    fn figures(&self, workload: &str, contender: &str) -> Option<&Figures> {
        self.workloads.get(workload)?.get(contender)
    }

    /// Computes the ratios of the figures that are there.
    pub fn compare(&mut self) {
        let mut ratios = BTreeMap::new();
        for workload in self.workloads.keys() {
            let median = |contender| Some(as_f64(self.figures(workload, contender)?.cost.median));
            let mut put = |name: &str, one: Option<f64>, other: Option<f64>| {
                if let (Some(one), Some(other)) = (one, other)
                    && let Some(ratio) = ratio(one, other)
                {
                    ratios.insert(format!("{workload}.{name}"), ratio);
                }
            };
            put("ours_over_upstream", median("ours"), median("upstream"));
            put("round_trip_over_ioctl", median("ours"), median("ioctl"));
            let outside = |contender| Some(self.figures(workload, contender)?.places.outside_guest());
            put("outside_guest.ours_over_upstream", outside("ours"), outside("upstream"));
            let late = self.figures(workload, "ours_under_load").map(|figures| as_f64(figures.cost.p999));
            put("p999_over_median_under_load", late, median("ours_under_load"));
        }
        for (workload, scale) in &self.scale {
            let most = scale.cost.get(&scale.guests);
            if let (Some(one), Some(most)) = (scale.cost.get(&1), most)
                && let Some(ratio) = ratio(*most, *one)
            {
                ratios.insert(format!("scale.{workload}.eight_guests_over_one"), ratio);
                if workload == "i2c_read" {
                    ratios.insert("scale.eight_guests_over_one".to_owned(), ratio);
                }
            }
        }
        self.ratios = ratios;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn figures(median: u64, p999: u64) -> Figures {
        Figures {
            requests: 1,
            errors: 0,
            cost: Distribution { median, p999, ..Distribution::default() },
            rounds: vec![median],
            places: Places { xen: 10.0, ..Places::default() },
            counted: Counted::default(),
            profile: BTreeMap::new(),
        }
    }

    #[test]
    fn contenders_are_compared_by_their_medians() {
        let mut report = Report::default();
        let contenders = [("ours", 250, 300), ("upstream", 1000, 1000), ("ioctl", 100, 100)];
        let of = contenders.map(|(name, median, p999)| (name.to_owned(), figures(median, p999)));
        report.workloads.insert("i2c_read".to_owned(), of.into());
        let under_load = [("ours_under_load".to_owned(), figures(200, 500))];
        report.workloads.insert("gpio_get".to_owned(), under_load.into());
        let cost = [(1, 100.0), (8, 109.0)].into();
        let scale = Scale { guests: 8, devices: 2, cost, ..Scale::default() };
        report.scale.insert("i2c_read".to_owned(), scale);
        report.compare();
        let ratio = |name: &str| report.ratios.get(name).copied();
        assert_eq!(ratio("i2c_read.ours_over_upstream"), Some(0.25));
        assert_eq!(ratio("i2c_read.round_trip_over_ioctl"), Some(2.5));
        assert_eq!(ratio("i2c_read.outside_guest.ours_over_upstream"), Some(1.0));
        assert_eq!(ratio("gpio_get.p999_over_median_under_load"), Some(2.5));
        assert_eq!(ratio("gpio_get.ours_over_upstream"), None);
        assert_eq!(ratio("scale.eight_guests_over_one"), Some(1.09));
    }

    #[test]
    fn a_written_report_is_read_again() {
        let mut report = Report { format: 1, unit: "instructions".to_owned(), ..Report::default() };
        report.workloads.insert("i2c_read".to_owned(), [("ours".to_owned(), figures(1, 2))].into());
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
