// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the rogue reports, and the list of what may succeed, with the reason of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// What the rogue has found out, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// By the name of the call, what the first one handed over: registers, and words of the structure.
    succeeded: BTreeMap<String, String>,
    seen: BTreeSet<String>,
    refused: BTreeMap<i64, u64>,
    calls: u64,
}

impl Report {
    /// Reads what it says, a line for each.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut report = Self::default();
        report.add(text)?;
        Ok(report)
    }

    /// Adds what it says.
    pub(crate) fn add(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            match line.split_once(' ').context("no report")? {
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
                _ => bail!("the rogue says: {line}"),
            }
        }
        Ok(())
    }

    /// Adds another one.
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

    /// How many calls there were, and how those that did not succeed were refused.
    pub(crate) fn text(&self) -> String {
        let refused: Vec<String> =
            self.refused.iter().map(|(result, times)| format!("{times} with {result}")).collect();
        format!("{} calls, refused: {}", self.calls, refused.join(", "))
    }

    /// Fails if the rogue has seen a secret.
    pub(crate) fn require_unseen(&self) -> Result<()> {
        ensure!(self.seen.is_empty(), "the rogue has seen a guest's secret after: {}", list(&self.seen));
        Ok(())
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().cloned().collect::<Vec<_>>().join(", ")
}

/// The file beside this one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Successes {
    /// Calls that make sense: each of them does succeed.
    always: BTreeMap<String, String>,
    /// What succeeds only with values that come by chance.
    chance: BTreeMap<String, String>,
}

impl Successes {
    /// Reads it.
    pub(crate) fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rogue/successes.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let successes: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let all = successes.always.iter().chain(&successes.chance);
        let bare: Vec<&String> = all.filter(|(_, reason)| reason.is_empty()).map(|(name, _)| name).collect();
        ensure!(bare.is_empty(), "no reason is given for {bare:?}");
        Ok(successes)
    }

    /// Fails unless exactly what is listed has succeeded.
    pub(crate) fn require(&self, report: &Report) -> Result<()> {
        let listed: BTreeSet<_> = self.always.keys().cloned().collect();
        let gone: BTreeSet<_> =
            listed.iter().filter(|name| !report.succeeded.contains_key(*name)).cloned().collect();
        let added = added(&report.succeeded, &listed);
        ensure!(added.is_empty(), "what succeeds and is not listed (successes.toml, [always]):\n{added}");
        ensure!(gone.is_empty(), "what is listed and does not succeed any more: {}", list(&gone));
        Ok(())
    }

    /// Fails if something has succeeded that is not listed.
    pub(crate) fn require_no_other(&self, report: &Report) -> Result<()> {
        let listed: BTreeSet<_> = self.always.keys().chain(self.chance.keys()).cloned().collect();
        let added = added(&report.succeeded, &listed);
        ensure!(
            added.is_empty(),
            "what succeeds by chance and is not listed (successes.toml, [chance]):\n{added}"
        );
        Ok(())
    }
}

/// What has succeeded and is not listed, as it would be added to the list but for the reason.
fn added(succeeded: &BTreeMap<String, String>, listed: &BTreeSet<String>) -> String {
    let added = succeeded.iter().filter(|(name, _)| !listed.contains(*name));
    let lines = added.map(|(name, first)| format!("\"{name}\" = \"\" # {first}"));
    lines.collect::<Vec<_>>().join("\n")
}
