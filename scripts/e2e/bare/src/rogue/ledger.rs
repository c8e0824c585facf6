// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the rogue has found out: which calls succeed, how the others were refused, and whether it has seen a
//! secret.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use super::attempt::Attempt;
use super::memory;
use crate::jobs::Job;

/// What each secret is combined with wherever the rogue keeps it, lest it find its own copy.
pub(super) const MASK: u64 = 0xa5c3_96e7_1b2d_4f78;

/// The record of a run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    secrets: [u64; 2],
    /// By the name, how often, and what the first one handed over.
    succeeded: BTreeMap<String, (u64, String)>,
    seen: BTreeSet<String>,
    refused: BTreeMap<i64, u64>,
    calls: u64,
}

impl Ledger {
    /// An empty record; the secrets are combined with [`MASK`].
    pub(super) fn new(secrets: [u64; 2]) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// Makes a call and records how it ended. Returns whether it succeeded.
    pub(super) fn make(&mut self, attempt: &Attempt, is_wrapped: bool) -> bool {
        self.calls += 1;
        let result = attempt.perform(is_wrapped);
        let has_succeeded = attempt.succeeded(result);
        if has_succeeded {
            self.succeeded.entry(attempt.name()).or_insert_with(|| (0, attempt.text())).0 += 1;
            if let Some((address, handle)) = attempt.mapped() {
                memory::remember(address, handle);
            }
        } else {
            *self.refused.entry(result).or_default() += 1;
        }
        if attempt.may_have_done_something(result) {
            self.look(attempt);
        }
        has_succeeded
    }

    /// Looks for a secret in all that the rogue can read, and writes down after which call it was there.
    pub(super) fn look(&mut self, attempt: &Attempt) {
        let secrets = self.secrets;
        if memory::has_any(|word| secrets.contains(&(word ^ MASK))) {
            self.seen.insert(attempt.name());
            memory::clear();
        }
    }

    /// Says what there is, a line for each.
    pub(super) fn report(&self, job: &Job) {
        for (name, (times, first)) in &self.succeeded {
            job.print(format_args!("succeeded {times} {name} {first}"));
        }
        for name in &self.seen {
            job.print(format_args!("seen {name}"));
        }
        for (result, times) in &self.refused {
            job.print(format_args!("refused {times} {result}"));
        }
        job.print(format_args!("calls {}", self.calls));
    }
}
