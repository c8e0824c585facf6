// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The results of a run: which calls succeeded, how the others were refused, and whether a secret was read.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use super::attempt::Attempt;
use super::memory;
use crate::jobs::Job;

/// The mask of each secret in the rogue's memory, so that the rogue does not find its own copy.
pub(super) const MASK: u64 = 0xa5c3_96e7_1b2d_4f78;

/// The results of a run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    secrets: [u64; 2],
    /// The number of successes by name, and the arguments of the first.
    succeeded: BTreeMap<String, (u64, String)>,
    seen: BTreeSet<String>,
    refused: BTreeMap<i64, u64>,
    calls: u64,
}

impl Ledger {
    /// Creates an empty ledger. The secrets are masked with [`MASK`].
    pub(super) fn new(secrets: [u64; 2]) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// Makes a call and records its result. Returns whether it succeeded.
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

    /// Searches the memory that the rogue can read for a secret, and records the call after which it is
    /// there.
    pub(super) fn look(&mut self, attempt: &Attempt) {
        let secrets = self.secrets;
        if memory::has_any(|word| secrets.contains(&(word ^ MASK))) {
            self.seen.insert(attempt.name());
            memory::clear();
        }
    }

    /// Prints the results, one on each line.
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
