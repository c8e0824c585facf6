// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The accounts, which are settled at each switch and before each record.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use crate::counts::{Class, Counts};
use crate::mark::Mark;
use crate::record::{Account, Party, Record};

/// Where the VMID begins in VTTBR_EL2 (Arm ARM, D24.2).
const VMID_SHIFT: u32 = 48;

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// Instructions of all processors.
    pub instructions: u64,
    /// Nanoseconds of the host's clock.
    pub nanoseconds: u64,
}

/// A processor.
#[derive(Clone, Debug, Default)]
struct Processor {
    party: Party,
    settled: Counts,
}

/// The workload that a domain runs.
#[derive(Clone, Debug, Default)]
struct Workload {
    start: Option<Moment>,
    costs: Vec<u64>,
    nanoseconds: Vec<u64>,
}

impl Workload {
    fn end(&mut self, from: Option<Moment>, now: Moment) {
        let Some(from) = from else { return };
        self.costs.push(now.instructions.saturating_sub(from.instructions));
        self.nanoseconds.push(now.nanoseconds.saturating_sub(from.nanoseconds));
    }
}

/// All accounts.
#[derive(Debug, Default)]
pub struct Ledger {
    processors: Vec<Processor>,
    accounts: HashMap<Party, Account>,
    workloads: HashMap<u16, Workload>,
    first: BTreeMap<u16, u64>,
    edge: Option<Moment>,
    requests: u64,
}

impl Ledger {
    /// The accounts of a machine with so many processors.
    #[must_use]
    pub fn new(processors: usize) -> Self {
        Self { processors: vec![Processor::default(); processors], ..Self::default() }
    }

    fn party(&self, processor: usize) -> Party {
        self.processors.get(processor).map(|processor| processor.party).unwrap_or_default()
    }

    fn account(&mut self, processor: usize) -> &mut Account {
        self.accounts.entry(self.party(processor)).or_default()
    }

    /// What `processor` has counted until now is the present party's.
    fn settle(&mut self, processor: usize, counts: &Counts) {
        let Some(of) = self.processors.get_mut(processor) else { return };
        let new = counts.since(&of.settled);
        of.settled = *counts;
        let party = of.party;
        let account = self.accounts.entry(party).or_default();
        let mut sum = account.counts();
        sum.add(&new);
        account.counts = sum.0;
    }

    /// Xen writes `vttbr`; `now` are the instructions of all processors.
    pub fn switch_domain(&mut self, processor: usize, counts: &Counts, vttbr: u64, now: u64) {
        self.settle(processor, counts);
        let [low, high, ..] = (vttbr >> VMID_SHIFT).to_le_bytes();
        let domain = u16::from_le_bytes([low, high]);
        self.first.entry(domain).or_insert(now);
        if let Some(processor) = self.processors.get_mut(processor) {
            processor.party.domain = domain;
        }
    }

    /// CONTEXTIDR_EL1 is written: by Linux, which switches to another thread, or by Xen, which gives a domain its own.
    pub fn switch_thread(&mut self, processor: usize, counts: &Counts, value: u64, by: Class) {
        self.settle(processor, counts);
        let thread = u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
        let switched = by == Class::Kernel && self.party(processor).thread != thread;
        if let Some(processor) = self.processors.get_mut(processor) {
            processor.party.thread = thread;
        }
        self.account(processor).switches += u64::from(switched);
    }

    /// The present party calls Xen.
    pub fn hypercall(&mut self, processor: usize, number: u64) {
        *self.account(processor).hypercalls.entry(number).or_default() += 1;
    }

    /// The present party calls its kernel.
    pub fn system_call(&mut self, processor: usize, number: u64) {
        *self.account(processor).system_calls.entry(number).or_default() += 1;
    }

    /// The present party makes a mark; `counts` are those of all processors. Returns a record if the mark asks for one.
    pub fn mark(
        &mut self,
        processor: usize,
        mark: Mark,
        counts: &[Counts],
        nanoseconds: u64,
    ) -> Option<Record> {
        let instructions = counts.iter().map(Counts::instructions).sum();
        let now = Moment { instructions, nanoseconds };
        let party = self.party(processor);
        let edge = self.edge;
        let workload = self.workloads.entry(party.domain).or_default();
        match mark {
            Mark::Begin => *workload = Workload::default(),
            Mark::Start => workload.start = Some(now),
            Mark::End => {
                let start = workload.start.take();
                workload.end(start, now);
                self.requests += 1;
            }
            Mark::Edge => self.edge = Some(now),
            Mark::Event => {
                workload.end(edge, now);
                self.edge = None;
                self.requests += 1;
            }
            Mark::Finish | Mark::Ready => {}
        }
        matches!(mark, Mark::Begin | Mark::Finish | Mark::Ready)
            .then(|| self.record(mark, party, counts, instructions))
    }

    fn record(&mut self, mark: Mark, party: Party, counts: &[Counts], instructions: u64) -> Record {
        for (processor, counts) in counts.iter().enumerate() {
            self.settle(processor, counts);
        }
        let workload = match mark {
            Mark::Finish => self.workloads.get_mut(&party.domain).map(mem::take).unwrap_or_default(),
            _ => Workload::default(),
        };
        let mut accounts: Vec<_> =
            self.accounts.iter().map(|(party, account)| (*party, account.clone())).collect();
        accounts.sort_by_key(|(party, _)| *party);
        Record {
            mark: mark.number(),
            party,
            instructions,
            requests: self.requests,
            costs: workload.costs,
            nanoseconds: workload.nanoseconds,
            first: self.first.clone(),
            accounts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Kind;

    fn counts(class: Class, instructions: u64) -> Counts {
        let mut counts = Counts::default();
        counts.0[Counts::place(class, Kind::Instructions)] = instructions;
        counts
    }

    fn vttbr(domain: u64) -> u64 {
        domain << VMID_SHIFT | 0x7f00_0000
    }

    #[test]
    fn instructions_are_whose_who_ran() {
        let mut ledger = Ledger::new(1);
        ledger.switch_domain(0, &counts(Class::Kernel, 100), vttbr(2), 100);
        ledger.switch_thread(0, &counts(Class::Kernel, 110), 7, Class::Kernel);
        let record = ledger.mark(0, Mark::Begin, &[counts(Class::Kernel, 140)], 0).unwrap();
        let of = |domain, thread| {
            let party = Party { domain, thread };
            let found = record.accounts.iter().find(|(other, _)| *other == party);
            found.map(|(_, account)| (account.counts().instructions(), account.switches))
        };
        assert_eq!(of(0, 0), Some((100, 0)));
        assert_eq!(of(2, 0), Some((10, 0)));
        assert_eq!(of(2, 7), Some((30, 1)));
        assert_eq!(record.first, [(2, 100)].into());
    }

    #[test]
    fn what_xen_restores_is_no_switch() {
        let mut ledger = Ledger::new(1);
        ledger.switch_thread(0, &Counts::default(), 7, Class::Hypervisor);
        assert_eq!(ledger.account(0).switches, 0);
        assert_eq!(ledger.party(0).thread, 7);
    }

    #[test]
    fn a_request_costs_what_all_processors_execute_meanwhile() {
        let mut ledger = Ledger::new(2);
        let at = |first, second| [counts(Class::User, first), counts(Class::Hypervisor, second)];
        ledger.mark(0, Mark::Begin, &at(0, 0), 0);
        ledger.mark(0, Mark::Start, &at(10, 5), 100);
        ledger.mark(0, Mark::End, &at(20, 30), 700);
        // One that was never started costs nothing, and is no panic.
        ledger.mark(0, Mark::End, &at(21, 30), 700);
        let record = ledger.mark(0, Mark::Finish, &at(40, 30), 800).unwrap();
        assert_eq!((record.costs, record.nanoseconds), (vec![35], vec![600]));
    }

    #[test]
    fn an_event_is_measured_from_the_edge_in_another_domain() {
        let mut ledger = Ledger::new(2);
        let at = |first| [counts(Class::User, first), Counts::default()];
        ledger.switch_domain(0, &Counts::default(), vttbr(1), 0);
        ledger.switch_domain(1, &Counts::default(), vttbr(2), 0);
        ledger.mark(1, Mark::Begin, &at(0), 0);
        ledger.mark(0, Mark::Edge, &at(1000), 0);
        ledger.mark(1, Mark::Event, &at(1500), 0);
        // An edge is told once.
        ledger.mark(1, Mark::Event, &at(1600), 0);
        assert_eq!(ledger.mark(1, Mark::Finish, &at(1700), 0).unwrap().costs, [500]);
    }
}
