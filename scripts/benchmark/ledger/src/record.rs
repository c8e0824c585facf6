// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Records: the output of the plugin, one line of JSON each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counts::{Class, Counts};

/// The VMID of the driver domain, the first domain that Xen creates.
pub const DRIVER_DOMAIN: u16 = 1;

/// A party that executes instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// Xen, on behalf of any domain.
    Xen,
    /// The kernel of the domain with this VMID. Xen assigns them from 1 on, in the order of creation.
    Kernel(u16),
    /// A program of the driver domain, by the number of one of its threads.
    Thread(u32),
    /// All programs of a guest.
    Programs(u16),
}

impl Party {
    /// Returns the party that executes code of this class while this domain and this thread run.
    #[must_use]
    pub fn new(class: Class, domain: u16, thread: u32) -> Self {
        match class {
            Class::Hypervisor => Self::Xen,
            Class::Kernel => Self::Kernel(domain),
            Class::User if domain == DRIVER_DOMAIN => Self::Thread(thread),
            Class::User => Self::Programs(domain),
        }
    }

    /// Returns its domain, `None` for Xen.
    #[must_use]
    pub fn domain(self) -> Option<u16> {
        match self {
            Self::Xen => None,
            Self::Kernel(domain) | Self::Programs(domain) => Some(domain),
            Self::Thread(_) => Some(DRIVER_DOMAIN),
        }
    }
}

/// The counts of a party.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The counters.
    pub counts: Counts,
    /// The number of calls by call number: hypercalls of a kernel, system calls of a program.
    pub calls: BTreeMap<u64, u64>,
}

impl Account {
    /// Adds the counts of another account.
    pub fn add(&mut self, other: &Self) {
        for (value, other) in self.counts.iter_mut().zip(other.counts) {
            *value += other;
        }
        for (number, count) in &other.calls {
            *self.calls.entry(*number).or_default() += count;
        }
    }

    /// Returns the difference to `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut new = self.clone();
        for (value, earlier) in new.counts.iter_mut().zip(earlier.counts) {
            *value = value.saturating_sub(earlier);
        }
        for (number, count) in &earlier.calls {
            let value = new.calls.entry(*number).or_default();
            *value = value.saturating_sub(*count);
        }
        new.calls.retain(|_, count| *count > 0);
        new
    }
}

/// All accounts at one point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The number of the mark that caused the record.
    pub mark: u64,
    /// The domain of the mark.
    pub domain: u16,
    /// The number of instructions so far, of all processors.
    pub instructions: u64,
    /// The number of requests that have ended so far, of all domains.
    pub requests: u64,
    /// The instructions of each request of the workload that ends here.
    pub costs: Vec<u64>,
    /// The nanoseconds of the host's clock of each request.
    pub nanoseconds: Vec<u64>,
    /// The number of instructions before the first one of each domain.
    pub first: BTreeMap<u16, u64>,
    /// The accounts.
    pub accounts: Vec<(Party, Account)>,
    /// Instructions of the workload that ends here by address, if they were counted (see [`crate::profile`]).
    #[serde(default)]
    pub profile: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_same_after_writing_and_reading() {
        let account = Account { counts: [1, 2, 3, 4, 5, 6], calls: [(29, 2)].into() };
        let record = Record {
            domain: 2,
            first: [(1, 10)].into(),
            accounts: vec![(Party::Xen, account.clone()), (Party::Thread(77), account)],
            ..Record::default()
        };
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }

    #[test]
    fn earlier_counts_are_subtracted() {
        let earlier = Account { counts: [5, 0, 0, 0, 0, 1], calls: [(20, 5), (29, 1)].into() };
        let later = Account { counts: [9, 0, 0, 0, 0, 1], calls: [(20, 7), (29, 1), (41, 1)].into() };
        let new = later.since(&earlier);
        assert_eq!(new, Account { counts: [4, 0, 0, 0, 0, 0], calls: [(20, 2), (41, 1)].into() });
    }

    #[test]
    fn only_programs_of_the_driver_domain_have_their_own_parties() {
        assert_eq!(Party::new(Class::User, DRIVER_DOMAIN, 7), Party::Thread(7));
        assert_eq!(Party::new(Class::User, 2, 7), Party::Programs(2));
        assert_eq!(Party::new(Class::Kernel, 1, 7), Party::Kernel(1));
        assert_eq!(Party::new(Class::Hypervisor, 1, 7), Party::Xen);
    }
}
