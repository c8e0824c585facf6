// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The figures of an earlier commit, which are in the repository, and the comparison with them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::figures::Report;
use crate::statistics::as_f64;

/// The fraction by which a figure may exceed that of the baseline. Two runs differ by less.
const SLACK: f64 = 0.03;

/// The same for eight guests, which reach the bus in varying order.
const SLACK_OF_SCALE: f64 = 0.1;

/// Figures by name. Smaller is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The commit that was measured.
    pub commit: String,
    /// The clock of the measurement. Figures of different clocks cannot be compared.
    pub clock: String,
    /// The figures.
    pub figures: BTreeMap<String, f64>,
}

impl Baseline {
    /// Takes our own figures from a report, in its unit. Changes of this repository do not affect those of
    /// the other contenders.
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

    /// Reads a baseline.
    ///
    /// # Errors
    /// Returns an error if the file does not exist or is not a baseline.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{}: there is no baseline: run with --update", path.display()))?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Writes the baseline.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let head = "# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause\n\n\
                    # Written by `scripts/bench --quick --update`; \
                    `scripts/bench --check` compares with it.\n\n";
        let text = head.to_owned() + &toml::to_string(self)?;
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Returns a line for each figure that is worse in `now`.
    ///
    /// # Errors
    /// Returns an error if the clocks differ.
    pub fn worse(&self, now: &Self) -> Result<Vec<String>> {
        ensure!(self.clock == now.clock, "the baseline has clock {}, this run {}", self.clock, now.clock);
        let mut worse = Vec::new();
        for (name, before) in &self.figures {
            let Some(value) = now.figures.get(name) else {
                worse.push(format!("{name} is no longer measured"));
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
    fn only_worse_figures_are_listed() {
        let before = baseline(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("d", 100.0)]);
        let now = baseline(&[("a", 102.9), ("b", 104.0), ("c", 50.0), ("e", 1.0)]);
        let worse = before.worse(&now).unwrap();
        assert_eq!(worse, ["b: 104 instead of 100 (+4.0 %)", "d is no longer measured"]);
    }

    #[test]
    fn baselines_of_different_clocks_are_not_compared() {
        let wall = Baseline { clock: "wall".to_owned(), ..baseline(&[]) };
        assert!(wall.worse(&baseline(&[])).is_err());
    }

    #[test]
    fn a_written_baseline_is_read_again() {
        let path = std::env::temp_dir().join(format!("baseline-{}.toml", std::process::id()));
        let kept = baseline(&[("i2c_read.median", 1234.0)]);
        kept.write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), kept);
        fs::remove_file(path).unwrap();
    }
}
