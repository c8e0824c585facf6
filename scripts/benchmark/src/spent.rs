// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who has executed what, between two records.

use std::collections::{BTreeMap, HashMap};

use ledger::{Account, Class, Kind, Party, Record};
use serde::{Deserialize, Serialize};

use crate::calls;
use crate::statistics::per;

/// The driver domain's VMID, which is its domid as long as no domain ends.
pub const DRIVER_DOMAIN: u16 = 1;

/// The programs of the driver domain, by the numbers of their threads.
pub type Threads = HashMap<u32, Program>;

/// What a program of the driver domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Our shim.
    Shim,
    /// A backend, ours or another.
    Daemon,
    /// Something else: the benchmark's own, mostly.
    Other,
}

impl Program {
    /// What the program with this file name is.
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

/// Where the instructions of a request go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Places {
    /// The guests: kernels and programs.
    pub guest: f64,
    /// Xen.
    pub xen: f64,
    /// The driver domain's kernel.
    pub kernel: f64,
    /// The shim's program.
    pub shim: f64,
    /// The daemons' programs.
    pub daemon: f64,
    /// Other programs of the driver domain: the one that asks, if it is there.
    pub other: f64,
}

impl Places {
    /// With their names.
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

    /// All that is not the guest's.
    #[must_use]
    pub fn outside_guest(&self) -> f64 {
        self.xen + self.kernel + self.shim + self.daemon + self.other
    }
}

/// What is counted beside the instructions, for each request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Entries of Xen: traps and interrupts.
    pub xen_entries: f64,
    /// TLB invalidations by Xen and the driver domain's kernel.
    pub tlb_invalidations: f64,
    /// Switches of threads in the driver domain.
    pub context_switches: f64,
    /// Page faults in the driver domain.
    pub page_faults: f64,
    /// How often the driver domain's kernel had nothing to do.
    pub idle_waits: f64,
    /// Hypercalls of the driver domain, by name.
    pub hypercalls: BTreeMap<String, f64>,
    /// System calls of daemons and shim, by name.
    pub system_calls: BTreeMap<String, f64>,
}

/// All of it, for a number of requests.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    guest: Account,
    driver: Account,
    shim: Account,
    daemon: Account,
    other: Account,
}

impl Spent {
    /// Between two records.
    #[must_use]
    pub fn between(from: &Record, to: &Record, threads: &Threads) -> Self {
        let before: HashMap<Party, &Account> =
            from.accounts.iter().map(|(party, account)| (*party, account)).collect();
        let mut spent = Self::default();
        for (party, account) in &to.accounts {
            let new = before.get(party).map_or_else(|| account.clone(), |earlier| account.since(earlier));
            spent.book(*party, &new, threads);
        }
        spent
    }

    fn book(&mut self, party: Party, account: &Account, threads: &Threads) {
        if party.domain != DRIVER_DOMAIN {
            return self.guest.add(account);
        }
        self.driver.add(account);
        match threads.get(&party.thread) {
            Some(Program::Shim) => self.shim.add(account),
            Some(Program::Daemon) => self.daemon.add(account),
            Some(Program::Other) | None => self.other.add(account),
        }
    }

    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.guest.add(&other.guest);
        self.driver.add(&other.driver);
        self.shim.add(&other.shim);
        self.daemon.add(&other.daemon);
        self.other.add(&other.other);
    }

    /// Where the instructions went, for each of so many requests.
    #[must_use]
    pub fn places(&self, requests: u64) -> Places {
        let of = |account: &Account, classes: &[Class]| {
            let counts = account.counts();
            per(classes.iter().map(|class| counts.get(*class, Kind::Instructions)).sum(), requests)
        };
        Places {
            guest: of(&self.guest, &[Class::Kernel, Class::User]),
            xen: of(&self.guest, &[Class::Hypervisor]) + of(&self.driver, &[Class::Hypervisor]),
            kernel: of(&self.driver, &[Class::Kernel]),
            shim: of(&self.shim, &[Class::User]),
            daemon: of(&self.daemon, &[Class::User]),
            other: of(&self.other, &[Class::User]),
        }
    }

    /// What was counted beside them, for each of so many requests.
    #[must_use]
    pub fn counted(&self, requests: u64) -> Counted {
        let (guest, driver) = (self.guest.counts(), self.driver.counts());
        let xen = |kind| guest.get(Class::Hypervisor, kind) + driver.get(Class::Hypervisor, kind);
        let named = |calls: &BTreeMap<u64, u64>, name: fn(u64) -> String| {
            calls.iter().map(|(number, count)| (name(*number), per(*count, requests))).collect()
        };
        let mut system_calls = self.shim.clone();
        system_calls.add(&self.daemon);
        let kernel = |kind| driver.get(Class::Kernel, kind);
        Counted {
            xen_entries: per(xen(Kind::Returns), requests),
            tlb_invalidations: per(xen(Kind::Invalidations) + kernel(Kind::Invalidations), requests),
            context_switches: per(self.driver.switches, requests),
            page_faults: per(kernel(Kind::Faults), requests),
            idle_waits: per(kernel(Kind::Waits), requests),
            hypercalls: named(&self.driver.hypercalls, calls::hypercall),
            system_calls: named(&system_calls.system_calls, calls::system_call),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Counts;

    fn account(class: Class, instructions: u64) -> Account {
        let mut counts = Counts::default();
        counts.0[Counts::place(class, Kind::Instructions)] = instructions;
        Account { counts: counts.0, ..Account::default() }
    }

    fn record(accounts: &[(u16, u32, Class, u64)]) -> Record {
        let accounts = accounts.iter().map(|(domain, thread, class, instructions)| {
            (Party { domain: *domain, thread: *thread }, account(*class, *instructions))
        });
        Record { accounts: accounts.collect(), ..Record::default() }
    }

    #[test]
    fn instructions_go_where_they_were_executed() {
        let threads = Threads::from([(10, Program::Shim), (11, Program::Daemon)]);
        let from = record(&[(1, 11, Class::User, 100)]);
        let to = record(&[
            (1, 0, Class::Kernel, 40),
            (1, 10, Class::User, 20),
            (1, 11, Class::User, 110),
            (2, 9, Class::User, 8),
            (2, 0, Class::Hypervisor, 6),
        ]);
        let places = Spent::between(&from, &to, &threads).places(2);
        let expected =
            Places { guest: 4.0, xen: 3.0, kernel: 20.0, shim: 10.0, daemon: 5.0, other: 0.0 };
        assert_eq!(places, expected);
        assert_eq!(places.outside_guest(), 38.0);
    }
}
