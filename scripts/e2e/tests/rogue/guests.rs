// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guests, which watch their own memory (scripts/e2e/bare/src/witness.rs): what they say, and what the
//! rogue is told of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::{GUEST_A, GUEST_B, Machine};

use crate::{LIMIT, rogue};

/// What a secret is combined with on its way to the rogue (`MASK` of scripts/e2e/bare/src/rogue/ledger.rs):
/// it must not find what it was told.
const MASK: u64 = 0xa5c3_96e7_1b2d_4f78;
/// A guest that does not look at its memory for so long was held up. The machine is shared, so some time it
/// has to wait.
const LONGEST_GAP: u64 = 10_000;
/// How long a guest has to begin.
const BEGIN: Duration = Duration::from_secs(60);

/// Both guests, at work.
pub(crate) struct Guests {
    /// How often each has looked when it was last asked.
    beats: Mutex<[u64; 2]>,
}

impl Guests {
    /// Has both guests watch themselves, and tells the rogue all of them but their secrets. The watching does
    /// not end: the machine ends before.
    pub(crate) fn guard(machine: &Machine, seed: u64) -> Result<Self> {
        for (channel, domid, other) in
            [(&machine.guest_a, GUEST_A, GUEST_B), (&machine.guest_b, GUEST_B, GUEST_A)]
        {
            let secret = (seed ^ u64::from(domid)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let command = ["witness", "guard", &secret.to_string(), &other.to_string()];
            let started = channel.start(&command)?;
            // Its end would stop what was started.
            std::mem::forget(started);
            let said = first_report(channel)?;
            let of = |name| said.get(name).copied().with_context(|| format!("domain {domid} says no {name}"));
            let numbers = [of("frame")?, of("control")?, of("read-only")?, of("neighbour")?, secret ^ MASK];
            let numbers = numbers.map(|number| number.to_string());
            let [frame, control, read_only, neighbour, secret] = numbers.each_ref().map(String::as_str);
            rogue(machine, &["know", &domid.to_string(), frame, control, read_only, neighbour, secret])?;
        }
        Ok(Self { beats: Mutex::default() })
    }

    /// Fails if something of a guest's memory has changed, or if it has stood still.
    pub(crate) fn require_unharmed(&self, machine: &Machine) -> Result<()> {
        let mut beats = self.beats.lock().map_err(|_| anyhow::anyhow!("an earlier test has panicked"))?;
        for ((channel, name), last) in
            [(&machine.guest_a, "first"), (&machine.guest_b, "second")].into_iter().zip(beats.iter_mut())
        {
            let said = report(channel).with_context(|| format!("the {name} guest is harmed"))?;
            let of = |name| said.get(name).copied().unwrap_or_default();
            ensure!(of("damages") == 0, "the {name} guest is harmed: {said:?}");
            ensure!(of("beats") > *last, "the {name} guest stands still: {said:?}");
            ensure!(of("longest-gap-ms") <= LONGEST_GAP, "the {name} guest has stood still: {said:?}");
            *last = of("beats");
        }
        Ok(())
    }

    /// Fails unless the rogue has written to the pages that are granted to it.
    pub(crate) fn require_answered(&self, machine: &Machine) -> Result<()> {
        for channel in [&machine.guest_a, &machine.guest_b] {
            let said = report(channel)?;
            ensure!(
                said.get("answered") == Some(&1),
                "what was written to the granted page is not there: {said:?}"
            );
        }
        Ok(())
    }
}

/// What a guest says, by name.
fn report(channel: &Channel) -> Result<BTreeMap<String, u64>> {
    let text = channel.check(&["witness", "report"], LIMIT)?;
    let pairs = text.split_whitespace().map(|pair| {
        let (name, number) = pair.split_once('=').context("no report")?;
        Ok((name.to_owned(), number.parse()?))
    });
    pairs.collect()
}

/// What it says when it has begun.
fn first_report(channel: &Channel) -> Result<BTreeMap<String, u64>> {
    let end = Instant::now() + BEGIN;
    loop {
        match report(channel) {
            Ok(said) if said.get("beats").is_some_and(|beats| *beats > 0) => return Ok(said),
            said if Instant::now() > end => return said.context("the guest does not begin"),
            _ => {}
        }
    }
}
