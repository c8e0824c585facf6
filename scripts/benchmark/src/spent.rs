// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The instructions of each party between two records.

use std::collections::{BTreeMap, HashMap};

use ledger::record::DRIVER_DOMAIN;
use ledger::{Account, Kind, Party, Record};
use serde::{Deserialize, Serialize};

use crate::calls;
use crate::statistics::per;

/// The programs of the driver domain, by thread number.
pub type Threads = HashMap<u32, Program>;

/// A program of the driver domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Our shim.
    Shim,
    /// A backend, ours or another.
    Daemon,
    /// Another program, usually one of the benchmark.
    Other,
}

impl Program {
    /// Returns the program with this file name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "xen-frontend-shim" => Self::Shim,
            "backend" => Self::Daemon,
            _ if name.starts_with("vhost-device-") => Self::Daemon,
            _ => Self::Other,
        }
    }
}

/// The instructions of a request by party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Places {
    /// The guests: kernels and programs.
    pub guest: f64,
    /// Xen.
    pub xen: f64,
    /// The driver domain's kernel.
    pub kernel: f64,
    /// The program of the shim.
    pub shim: f64,
    /// The programs of the backends.
    pub daemon: f64,
    /// Other programs of the driver domain: with `ioctl`, the one that makes the requests.
    pub other: f64,
}

impl Places {
    /// Returns all parts with their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("guest", self.guest),
            ("Xen", self.xen),
            ("driver-domain kernel", self.kernel),
            ("shim", self.shim),
            ("daemon", self.daemon),
            ("caller in the driver domain", self.other),
        ]
    }

    /// Returns the sum of all parts but the guests.
    #[must_use]
    pub fn outside_guest(&self) -> f64 {
        self.xen + self.kernel + self.shim + self.daemon + self.other
    }
}

/// The counts of a request besides instructions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Entries of Xen: traps and interrupts.
    pub xen_entries: f64,
    /// TLB invalidations by Xen, for mappings between domains.
    pub tlb_invalidations_xen: f64,
    /// TLB invalidations by the driver domain's kernel, for mappings of its programs.
    pub tlb_invalidations_kernel: f64,
    /// Switches of threads in the driver domain.
    pub context_switches: f64,
    /// Page faults in the driver domain.
    pub page_faults: f64,
    /// The number of times that the driver domain's kernel was idle.
    pub idle_waits: f64,
    /// Hypercalls of the driver domain, by name.
    pub hypercalls: BTreeMap<String, f64>,
    /// System calls of the shim, by name.
    pub shim_calls: BTreeMap<String, f64>,
    /// System calls of the backends, by name.
    pub daemon_calls: BTreeMap<String, f64>,
}

impl Counted {
    /// Returns the number of system calls of shim and backends.
    #[must_use]
    pub fn system_calls(&self) -> f64 {
        self.shim_calls.values().chain(self.daemon_calls.values()).sum()
    }
}

/// The counts of a number of requests.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    guest: Account,
    xen: Account,
    kernel: Account,
    shim: Account,
    daemon: Account,
    other: Account,
}

impl Spent {
    /// Returns the counts between two records.
    #[must_use]
    pub fn between(from: &Record, to: &Record, threads: &Threads) -> Self {
        let before: HashMap<Party, &Account> =
            from.accounts.iter().map(|(party, account)| (*party, account)).collect();
        let mut spent = Self::default();
        for (party, account) in &to.accounts {
            let new = before.get(party).map_or_else(|| account.clone(), |earlier| account.since(earlier));
            spent.of(*party, threads).add(&new);
        }
        spent
    }

    fn of(&mut self, party: Party, threads: &Threads) -> &mut Account {
        match party {
            Party::Xen => &mut self.xen,
            Party::Kernel(DRIVER_DOMAIN) => &mut self.kernel,
            Party::Kernel(_) | Party::Programs(_) => &mut self.guest,
            Party::Thread(thread) => match threads.get(&thread) {
                Some(Program::Shim) => &mut self.shim,
                Some(Program::Daemon) => &mut self.daemon,
                Some(Program::Other) | None => &mut self.other,
            },
        }
    }

    /// Returns the instructions by party, divided by the number of requests.
    #[must_use]
    pub fn places(&self, requests: u64) -> Places {
        let of = |account: &Account| per(Kind::Instructions.of(&account.counts), requests);
        Places {
            guest: of(&self.guest),
            xen: of(&self.xen),
            kernel: of(&self.kernel),
            shim: of(&self.shim),
            daemon: of(&self.daemon),
            other: of(&self.other),
        }
    }

    /// Returns the other counts, divided by the number of requests.
    #[must_use]
    pub fn counted(&self, requests: u64) -> Counted {
        let each = |account: &Account, kind: Kind| per(kind.of(&account.counts), requests);
        let named = |calls: &BTreeMap<u64, u64>, name: fn(u64) -> String| {
            calls.iter().map(|(number, count)| (name(*number), per(*count, requests))).collect()
        };
        Counted {
            xen_entries: each(&self.xen, Kind::Returns),
            tlb_invalidations_xen: each(&self.xen, Kind::Invalidations),
            tlb_invalidations_kernel: each(&self.kernel, Kind::Invalidations),
            context_switches: each(&self.kernel, Kind::Switches),
            page_faults: each(&self.kernel, Kind::Faults),
            idle_waits: each(&self.kernel, Kind::Waits),
            hypercalls: named(&self.kernel.calls, calls::hypercall),
            shim_calls: named(&self.shim.calls, calls::system_call),
            daemon_calls: named(&self.daemon.calls, calls::system_call),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(accounts: &[(Party, u64)]) -> Record {
        let account = |instructions| Account { counts: [instructions, 0, 0, 0, 0, 0], ..Account::default() };
        let accounts = accounts.iter().map(|(party, instructions)| (*party, account(*instructions)));
        Record { accounts: accounts.collect(), ..Record::default() }
    }

    #[test]
    fn instructions_are_counted_for_the_party_that_executes_them() {
        let threads = Threads::from([(10, Program::Shim), (11, Program::Daemon)]);
        let from = record(&[(Party::Thread(11), 100)]);
        let to = record(&[
            (Party::Kernel(1), 40),
            (Party::Thread(10), 20),
            (Party::Thread(11), 110),
            (Party::Programs(2), 6),
            (Party::Kernel(3), 2),
            (Party::Xen, 6),
        ]);
        let places = Spent::between(&from, &to, &threads).places(2);
        let expected = Places { guest: 4.0, xen: 3.0, kernel: 20.0, shim: 10.0, daemon: 5.0, other: 0.0 };
        assert_eq!(places, expected);
        assert_eq!(places.outside_guest(), 38.0);
    }
}
