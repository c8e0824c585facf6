// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The figures of an earlier commit, which are in the repository: what got worse since.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::figures::Report;
use crate::statistics::as_f64;

/// By so much a figure may be above that of the baseline: more than two runs differ by, and less than anybody
/// would miss.
const SLACK: f64 = 0.03;

/// Eight guests meet each other on the way to the bus in one order or another.
const SLACK_OF_SCALE: f64 = 0.1;

/// Figures that are better the smaller they are, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The commit that was measured.
    pub commit: String,
    /// How it was measured: figures of one clock say nothing of those of another.
    pub clock: String,
    /// The figures.
    pub figures: BTreeMap<String, f64>,
}

impl Baseline {
    /// What of a report is kept: our own figures, in its unit. The other contenders do not change by what is
    /// done here.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let mut figures = BTreeMap::new();
        for (workload, contenders) in &report.workloads {
            if let Some(ours) = contenders.get("ours") {
                figures.insert(format!("{workload}.median"), as_f64(ours.cost.median));
                figures.insert(format!("{workload}.outside_guest"), ours.places.outside_guest().round());
                let calls = ours.counted.system_calls();
                figures.insert(format!("{workload}.system_calls"), (calls * 10.0).round() / 10.0);
            }
        }
        for (workload, scale) in &report.scale {
            if let Some(cost) = scale.cost.get(&scale.guests) {
                figures.insert(format!("scale.{workload}"), cost.round());
            }
        }
        Self { commit: report.commit.clone(), clock: report.clock.clone(), figures }
    }

    /// Reads one.
    ///
    /// # Errors
    /// If there is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!("{}: there is nothing to compare with: run with --update", path.display())
        })?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Keeps it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let head = "# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause\n\n\
                    # Written by `scripts/bench --quick --update`; \
                    `scripts/bench --check` compares with it.\n\n";
        let text = head.to_owned() + &toml::to_string(self)?;
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// What is worse in `now`, a line for each figure.
    ///
    /// # Errors
    /// If the two cannot be compared.
    pub fn worse(&self, now: &Self) -> Result<Vec<String>> {
        ensure!(self.clock == now.clock, "the baseline is by {}, this run by {}", self.clock, now.clock);
        let mut worse = Vec::new();
        for (name, before) in &self.figures {
            let Some(value) = now.figures.get(name) else {
                worse.push(format!("{name} is not measured any more"));
                continue;
            };
            let slack = if name.starts_with("scale.") { SLACK_OF_SCALE } else { SLACK };
            if *value > before * (1.0 + slack) {
                let mut line = String::new();
                let percent = (value / before - 1.0) * 100.0;
                let _ = write!(line, "{name}: {value} instead of {before} ({percent:+.1} %)");
                worse.push(line);
            }
        }
        Ok(worse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(figures: &[(&str, f64)]) -> Baseline {
        let figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Baseline { commit: "abc".to_owned(), clock: "icount".to_owned(), figures }
    }

    #[test]
    fn only_what_got_worse_is_told() {
        let before = baseline(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("d", 100.0)]);
        let now = baseline(&[("a", 102.9), ("b", 104.0), ("c", 50.0), ("e", 1.0)]);
        let worse = before.worse(&now).unwrap();
        assert_eq!(worse, ["b: 104 instead of 100 (+4.0 %)", "d is not measured any more"]);
    }

    #[test]
    fn clocks_are_not_compared() {
        let wall = Baseline { clock: "wall".to_owned(), ..baseline(&[]) };
        assert!(wall.worse(&baseline(&[])).is_err());
    }

    #[test]
    fn what_was_kept_is_read() {
        let path = std::env::temp_dir().join(format!("baseline-{}.toml", std::process::id()));
        let kept = baseline(&[("i2c_read.median", 1234.0)]);
        kept.write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), kept);
        fs::remove_file(path).unwrap();
    }
}
