// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the plugin writes, a line of JSON for each record, and the benchmark reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counts::{COUNTERS, Counts};

/// Who executes: a thread of a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Party {
    /// The domain, by its VMID. Xen gives them out from 1 in the order in which it makes domains.
    pub domain: u16,
    /// The thread, by Linux's number, which is 0 for its idle loop.
    pub thread: u32,
}

/// What a party has executed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What was counted. Xen's is on the account of the party that it ran for, or that ran before.
    pub counts: [u64; COUNTERS],
    /// How often Linux has switched to the thread.
    pub switches: u64,
    /// Hypercalls, by their numbers.
    pub hypercalls: BTreeMap<u64, u64>,
    /// System calls, by their numbers.
    pub system_calls: BTreeMap<u64, u64>,
}

impl Account {
    /// The counters.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts(self.counts)
    }

    /// Adds what another has.
    pub fn add(&mut self, other: &Self) {
        let mut counts = self.counts();
        counts.add(&other.counts());
        self.counts = counts.0;
        self.switches += other.switches;
        add_calls(&mut self.hypercalls, &other.hypercalls);
        add_calls(&mut self.system_calls, &other.system_calls);
    }

    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            counts: self.counts().since(&earlier.counts()).0,
            switches: self.switches.saturating_sub(earlier.switches),
            hypercalls: calls_since(&self.hypercalls, &earlier.hypercalls),
            system_calls: calls_since(&self.system_calls, &earlier.system_calls),
        }
    }
}

fn add_calls(calls: &mut BTreeMap<u64, u64>, other: &BTreeMap<u64, u64>) {
    for (number, count) in other {
        *calls.entry(*number).or_default() += count;
    }
}

fn calls_since(calls: &BTreeMap<u64, u64>, earlier: &BTreeMap<u64, u64>) -> BTreeMap<u64, u64> {
    let since = |(number, count): (&u64, &u64)| {
        let count = count.saturating_sub(earlier.get(number).copied().unwrap_or_default());
        (count > 0).then_some((*number, count))
    };
    calls.iter().filter_map(since).collect()
}

/// All accounts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The number of the mark that asked for it.
    pub mark: u64,
    /// Who made the mark.
    pub party: Party,
    /// Instructions so far, of all processors.
    pub instructions: u64,
    /// How many requests of all domains have ended so far.
    pub requests: u64,
    /// The instructions from start to end of each request of the workload that ends here.
    pub costs: Vec<u64>,
    /// The same in nanoseconds of the host's clock.
    pub nanoseconds: Vec<u64>,
    /// At which instruction each domain has run for the first time.
    pub first: BTreeMap<u16, u64>,
    /// The accounts.
    pub accounts: Vec<(Party, Account)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_line() {
        let account = Account { switches: 3, system_calls: [(29, 2)].into(), ..Account::default() };
        let record = Record {
            party: Party { domain: 2, thread: 77 },
            first: [(1, 10)].into(),
            accounts: vec![(Party::default(), account)],
            ..Record::default()
        };
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }

    #[test]
    fn calls_of_before_are_left_out() {
        let earlier = Account { hypercalls: [(20, 5), (29, 1)].into(), ..Account::default() };
        let later = Account { hypercalls: [(20, 7), (29, 1), (41, 1)].into(), ..Account::default() };
        assert_eq!(later.since(&earlier).hypercalls, [(20, 2), (41, 1)].into());
    }
}
