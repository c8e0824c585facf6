// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reports of the rogue, and the list of the calls that may succeed, with the reason of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The sum of the rogue's reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The calls that succeeded, by name, with the arguments of the first one: registers, and words of the
    /// structure.
    succeeded: BTreeMap<String, String>,
    /// The calls after which the rogue has seen a guest's secret.
    seen: BTreeSet<String>,
    /// The number of refused calls, by result.
    refused: BTreeMap<i64, u64>,
    calls: u64,
}

impl Report {
    /// Parses a report.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut report = Self::default();
        report.add(text)?;
        Ok(report)
    }

    /// Parses a report and adds it.
    pub(crate) fn add(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            match line.split_once(' ').context("not a report")? {
                ("succeeded", rest) => {
                    let (_, rest) = rest.split_once(' ').context("no number")?;
                    let (name, first) = rest.split_once(" [").context("no registers")?;
                    self.succeeded.entry(name.to_owned()).or_insert_with(|| format!("[{first}"));
                }
                ("seen", name) => drop(self.seen.insert(name.to_owned())),
                ("refused", rest) => {
                    let (times, result) = rest.split_once(' ').context("no number")?;
                    *self.refused.entry(result.parse()?).or_default() += times.parse::<u64>()?;
                }
                ("calls", number) => self.calls += number.parse::<u64>()?,
                _ => bail!("unexpected line of the rogue's report: {line}"),
            }
        }
        Ok(())
    }

    /// Adds another report.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, first) in &other.succeeded {
            self.succeeded.entry(name.clone()).or_insert_with(|| first.clone());
        }
        self.seen.extend(other.seen.iter().cloned());
        for (result, times) in &other.refused {
            *self.refused.entry(*result).or_default() += times;
        }
        self.calls += other.calls;
    }

    /// Returns the number of calls, and of those refused with each result, as text.
    pub(crate) fn text(&self) -> String {
        let refused: Vec<String> =
            self.refused.iter().map(|(result, times)| format!("{times} with {result}")).collect();
        format!("{} calls, refused: {}", self.calls, refused.join(", "))
    }

    /// Checks that the rogue has not seen a secret.
    pub(crate) fn require_unseen(&self) -> Result<()> {
        ensure!(self.seen.is_empty(), "the rogue has seen a guest's secret after: {}", list(&self.seen));
        Ok(())
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().cloned().collect::<Vec<_>>().join(", ")
}

/// The contents of the file `successes.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Successes {
    /// Calls with meaningful arguments, each of which succeeds.
    always: BTreeMap<String, String>,
    /// Calls that succeed with some random arguments only.
    chance: BTreeMap<String, String>,
}

impl Successes {
    /// Reads the file.
    pub(crate) fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rogue/successes.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let successes: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let all = successes.always.iter().chain(&successes.chance);
        let bare: Vec<&String> = all.filter(|(_, reason)| reason.is_empty()).map(|(name, _)| name).collect();
        ensure!(bare.is_empty(), "successes.toml has no reason for {bare:?}");
        Ok(successes)
    }

    /// Checks that exactly the calls in `[always]` succeeded.
    pub(crate) fn require(&self, report: &Report) -> Result<()> {
        let listed: BTreeSet<_> = self.always.keys().cloned().collect();
        let gone: BTreeSet<_> =
            listed.iter().filter(|name| !report.succeeded.contains_key(*name)).cloned().collect();
        let added = added(&report.succeeded, &listed);
        ensure!(
            added.is_empty(),
            "calls that succeed and are not listed (successes.toml, [always]):\n{added}"
        );
        ensure!(gone.is_empty(), "listed calls that no longer succeed: {}", list(&gone));
        Ok(())
    }

    /// Checks that no call succeeded that is not listed.
    pub(crate) fn require_no_other(&self, report: &Report) -> Result<()> {
        let listed: BTreeSet<_> = self.always.keys().chain(self.chance.keys()).cloned().collect();
        let added = added(&report.succeeded, &listed);
        ensure!(
            added.is_empty(),
            "random calls that succeed and are not listed (successes.toml, [chance]):\n{added}"
        );
        Ok(())
    }
}

/// Returns the calls that succeeded and are not listed, in the form of the list, without a reason.
fn added(succeeded: &BTreeMap<String, String>, listed: &BTreeSet<String>) -> String {
    let added = succeeded.iter().filter(|(name, _)| !listed.contains(*name));
    let lines = added.map(|(name, first)| format!("\"{name}\" = \"\" # {first}"));
    lines.collect::<Vec<_>>().join("\n")
}
