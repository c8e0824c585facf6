// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guests, which check their own memory (scripts/e2e/bare/src/witness.rs): their reports, and what the
//! rogue gets of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::{GUEST_A, GUEST_B, Machine};

use crate::{LIMIT, rogue};

/// The mask of a secret on its way to the rogue (`MASK` of scripts/e2e/bare/src/rogue/ledger.rs): the rogue
/// must not find the secret in its own memory.
const MASK: u64 = 0xa5c3_96e7_1b2d_4f78;
/// The longest interval in milliseconds between two checks of a guest that does not count as a stop. The host
/// is shared, so a guest waits for some time.
const LONGEST_GAP: u64 = 10_000;
/// The limit for a guest's first check.
const BEGIN: Duration = Duration::from_secs(60);

/// Both guests, while they check their memory.
pub(crate) struct Guests {
    /// The number of checks of each guest in its last report.
    beats: Mutex<[u64; 2]>,
}

impl Guests {
    /// Starts the checks of both guests, which run until the machine ends, and sends the rogue all about the
    /// guests but their secrets.
    pub(crate) fn guard(machine: &Machine, seed: u64) -> Result<Self> {
        for (channel, domid, other) in
            [(&machine.guest_a, GUEST_A, GUEST_B), (&machine.guest_b, GUEST_B, GUEST_A)]
        {
            let secret = (seed ^ u64::from(domid)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let command = ["witness", "guard", &secret.to_string(), &other.to_string()];
            let started = channel.start(&command)?;
            // Dropping it would stop the checks.
            std::mem::forget(started);
            let report = first_report(channel)?;
            let of = |name| report.get(name).copied().with_context(|| format!("domain {domid}: no {name}"));
            let numbers = [of("frame")?, of("control")?, of("read-only")?, of("neighbour")?, secret ^ MASK];
            let numbers = numbers.map(|number| number.to_string());
            let [frame, control, read_only, neighbour, secret] = numbers.each_ref().map(String::as_str);
            rogue(machine, &["know", &domid.to_string(), frame, control, read_only, neighbour, secret])?;
        }
        Ok(Self { beats: Mutex::default() })
    }

    /// Checks that no memory of a guest has changed, and that no guest was stopped.
    pub(crate) fn require_unharmed(&self, machine: &Machine) -> Result<()> {
        let mut beats = self.beats.lock().map_err(|_| anyhow::anyhow!("an earlier test has panicked"))?;
        for ((channel, name), last) in
            [(&machine.guest_a, "first"), (&machine.guest_b, "second")].into_iter().zip(beats.iter_mut())
        {
            let report = report(channel).with_context(|| format!("the {name} guest"))?;
            let of = |name| report.get(name).copied().unwrap_or_default();
            ensure!(of("damages") == 0, "memory of the {name} guest has changed: {report:?}");
            ensure!(of("beats") > *last, "the {name} guest is stopped: {report:?}");
            ensure!(of("longest-gap-ms") <= LONGEST_GAP, "the {name} guest was stopped: {report:?}");
            *last = of("beats");
        }
        Ok(())
    }

    /// Checks that the rogue has written to the pages that are granted to it.
    pub(crate) fn require_answered(&self, machine: &Machine) -> Result<()> {
        for channel in [&machine.guest_a, &machine.guest_b] {
            let report = report(channel)?;
            ensure!(
                report.get("answered") == Some(&1),
                "the granted page does not have what the rogue wrote: {report:?}"
            );
        }
        Ok(())
    }
}

/// Returns a guest's report, by name.
fn report(channel: &Channel) -> Result<BTreeMap<String, u64>> {
    let text = channel.check(&["witness", "report"], LIMIT)?;
    let pairs = text.split_whitespace().map(|pair| {
        let (name, number) = pair.split_once('=').context("not a report")?;
        Ok((name.to_owned(), number.parse()?))
    });
    pairs.collect()
}

/// Returns a guest's report after its first check.
fn first_report(channel: &Channel) -> Result<BTreeMap<String, u64>> {
    let end = Instant::now() + BEGIN;
    loop {
        match report(channel) {
            Ok(report) if report.get("beats").is_some_and(|beats| *beats > 0) => return Ok(report),
            report if Instant::now() > end => return report.context("the guest has not begun its checks"),
            _ => {}
        }
    }
}
