// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the plugin writes, a line of JSON for each record, and the benchmark reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counts::{Class, Counts};

/// The VMID of the domain that Xen makes first: the driver domain.
pub const DRIVER_DOMAIN: u16 = 1;

/// What executes an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// Xen, for whomever.
    Xen,
    /// The kernel of the domain with this VMID. Xen gives them out from 1, in the order in which it makes
    /// domains.
    Kernel(u16),
    /// A program of the driver domain, by Linux's number of a thread of it.
    Thread(u32),
    /// The programs of a guest.
    Programs(u16),
}

impl Party {
    /// The party that executes code of this class when this domain and this thread run.
    #[must_use]
    pub fn new(class: Class, domain: u16, thread: u32) -> Self {
        match class {
            Class::Hypervisor => Self::Xen,
            Class::Kernel => Self::Kernel(domain),
            Class::User if domain == DRIVER_DOMAIN => Self::Thread(thread),
            Class::User => Self::Programs(domain),
        }
    }

    /// Its domain; none is Xen's.
    #[must_use]
    pub fn domain(self) -> Option<u16> {
        match self {
            Self::Xen => None,
            Self::Kernel(domain) | Self::Programs(domain) => Some(domain),
            Self::Thread(_) => Some(DRIVER_DOMAIN),
        }
    }
}

/// What a party has executed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What was counted.
    pub counts: Counts,
    /// Calls, by their numbers: a kernel's to Xen, a program's to its kernel.
    pub calls: BTreeMap<u64, u64>,
}

impl Account {
    /// Adds what another has.
    pub fn add(&mut self, other: &Self) {
        for (value, other) in self.counts.iter_mut().zip(other.counts) {
            *value += other;
        }
        for (number, count) in &other.calls {
            *self.calls.entry(*number).or_default() += count;
        }
    }

    /// What came since `earlier`.
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

/// All accounts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The number of the mark that asked for it.
    pub mark: u64,
    /// The domain in which it was made.
    pub domain: u16,
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
    /// Instructions of the workload that ends here, by address, if they were counted (see
    /// [`crate::profile`]).
    #[serde(default)]
    pub profile: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_line() {
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
    fn what_was_before_is_left_out() {
        let earlier = Account { counts: [5, 0, 0, 0, 0, 1], calls: [(20, 5), (29, 1)].into() };
        let later = Account { counts: [9, 0, 0, 0, 0, 1], calls: [(20, 7), (29, 1), (41, 1)].into() };
        let new = later.since(&earlier);
        assert_eq!(new, Account { counts: [4, 0, 0, 0, 0, 0], calls: [(20, 2), (41, 1)].into() });
    }

    #[test]
    fn only_the_driver_domains_programs_are_told_apart() {
        assert_eq!(Party::new(Class::User, DRIVER_DOMAIN, 7), Party::Thread(7));
        assert_eq!(Party::new(Class::User, 2, 7), Party::Programs(2));
        assert_eq!(Party::new(Class::Kernel, 1, 7), Party::Kernel(1));
        assert_eq!(Party::new(Class::Hypervisor, 1, 7), Party::Xen);
    }
}
