// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The accounts, and the workloads that are measured by them.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use crate::counts::{Counts, Kind};
use crate::mark::Mark;
use crate::record::{Account, Party, Record};

/// The maximum number of accounts. Further parties share the last one, because threads come and go.
pub const ACCOUNTS: usize = 1024;

/// The first bit of the VMID in VTTBR_EL2 (Arm ARM, D24.2).
const VMID_SHIFT: u32 = 48;

/// Returns the domain of a value of VTTBR_EL2.
#[must_use]
pub fn domain(vttbr: u64) -> u16 {
    let [low, high, ..] = (vttbr >> VMID_SHIFT).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// A point in time, by both clocks.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    instructions: u64,
    nanoseconds: u64,
}

/// The workload of a domain.
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

/// All accounts. Their counters are elsewhere, where counting is cheap; callers pass them when they are
/// needed.
#[derive(Debug, Default)]
pub struct Ledger {
    parties: Vec<Party>,
    numbers: HashMap<Party, usize>,
    calls: HashMap<usize, BTreeMap<u64, u64>>,
    workloads: HashMap<u16, Workload>,
    first: BTreeMap<u16, u64>,
    edge: Option<Moment>,
    requests: u64,
}

impl Ledger {
    /// Returns the number of a party's account.
    pub fn account(&mut self, party: Party) -> usize {
        let next = self.parties.len().min(ACCOUNTS - 1);
        let number = *self.numbers.entry(party).or_insert(next);
        if number == self.parties.len() {
            self.parties.push(party);
        }
        number
    }

    /// Returns the number of accounts.
    #[must_use]
    pub fn accounts(&self) -> usize {
        self.parties.len()
    }

    /// Returns whether the next instruction of this party is the first one of its domain. If so, call
    /// [`Ledger::began`].
    #[must_use]
    pub fn is_first(&self, party: Party) -> bool {
        party.domain().is_some_and(|domain| !self.first.contains_key(&domain))
    }

    /// Records the first instruction of a domain.
    pub fn began(&mut self, party: Party, counts: &[Counts]) {
        if let Some(domain) = party.domain() {
            self.first.entry(domain).or_insert(instructions(counts));
        }
    }

    /// Counts a hypercall of a kernel or a system call of a program.
    pub fn call(&mut self, account: usize, number: u64) {
        *self.calls.entry(account).or_default().entry(number).or_default() += 1;
    }

    /// Handles a mark of a program, given the counters of all accounts. Returns a record if the mark causes
    /// one.
    pub fn mark(
        &mut self,
        account: usize,
        mark: Mark,
        counts: &[Counts],
        nanoseconds: u64,
    ) -> Option<Record> {
        let now = Moment { instructions: instructions(counts), nanoseconds };
        let domain = self.parties.get(account)?.domain()?;
        let workload = self.workloads.entry(domain).or_default();
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
                workload.end(self.edge.take(), now);
                self.requests += 1;
            }
            Mark::Finish | Mark::Ready => {}
        }
        matches!(mark, Mark::Begin | Mark::Finish | Mark::Ready)
            .then(|| self.record(mark, domain, counts, now.instructions))
    }

    fn record(&mut self, mark: Mark, domain: u16, counts: &[Counts], instructions: u64) -> Record {
        let workload = match mark {
            Mark::Finish => self.workloads.get_mut(&domain).map(mem::take).unwrap_or_default(),
            _ => Workload::default(),
        };
        let account = |(number, (party, counts)): (usize, (&Party, &Counts))| {
            let calls = self.calls.get(&number).cloned().unwrap_or_default();
            (*party, Account { counts: *counts, calls })
        };
        Record {
            mark: mark.number(),
            domain,
            instructions,
            requests: self.requests,
            costs: workload.costs,
            nanoseconds: workload.nanoseconds,
            first: self.first.clone(),
            accounts: self.parties.iter().zip(counts).enumerate().map(account).collect(),
            profile: Vec::new(),
        }
    }
}

fn instructions(counts: &[Counts]) -> u64 {
    counts.iter().map(|counts| Kind::Instructions.of(counts)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(instructions: &[u64]) -> Vec<Counts> {
        instructions.iter().map(|count| [*count, 0, 0, 0, 0, 0]).collect()
    }

    /// A ledger with a guest's account and Xen's.
    fn ledger() -> (Ledger, usize) {
        let mut ledger = Ledger::default();
        let guest = ledger.account(Party::Programs(2));
        ledger.account(Party::Xen);
        (ledger, guest)
    }

    #[test]
    fn the_domain_is_in_the_upper_bits_of_vttbr() {
        assert_eq!(domain(0x0002_0000_7f00_0001), 2);
    }

    #[test]
    fn a_party_has_one_account_and_further_parties_share_the_last() {
        let mut ledger = Ledger::default();
        let first = ledger.account(Party::Xen);
        assert_eq!(ledger.account(Party::Xen), first);
        for thread in 0..2000 {
            assert!(ledger.account(Party::Thread(thread)) < ACCOUNTS);
        }
        assert_eq!(ledger.accounts(), ACCOUNTS);
        assert_eq!(ledger.account(Party::Thread(1999)), ACCOUNTS - 1);
    }

    #[test]
    fn the_cost_of_a_request_has_the_instructions_of_all_parties() {
        let (mut ledger, guest) = ledger();
        ledger.mark(guest, Mark::Begin, &counts(&[0, 0]), 0);
        ledger.mark(guest, Mark::Start, &counts(&[10, 5]), 100);
        ledger.mark(guest, Mark::End, &counts(&[20, 30]), 700);
        // An end without a start has no cost.
        ledger.mark(guest, Mark::End, &counts(&[21, 30]), 700);
        ledger.call(guest, 29);
        let record = ledger.mark(guest, Mark::Finish, &counts(&[40, 30]), 800).unwrap();
        assert_eq!((record.costs, record.nanoseconds), (vec![35], vec![600]));
        assert_eq!((record.instructions, record.requests), (70, 2));
        assert_eq!(record.accounts[0].1, Account { counts: [40, 0, 0, 0, 0, 0], calls: [(29, 1)].into() });
    }

    #[test]
    fn an_event_is_measured_from_the_edge_in_another_domain() {
        let (mut ledger, guest) = ledger();
        let maker = ledger.account(Party::Thread(9));
        let at = |instructions| counts(&[instructions, 0, 0]);
        ledger.mark(guest, Mark::Begin, &at(0), 0);
        ledger.mark(maker, Mark::Edge, &at(1000), 0);
        ledger.mark(guest, Mark::Event, &at(1500), 0);
        // An edge causes one event.
        ledger.mark(guest, Mark::Event, &at(1600), 0);
        assert_eq!(ledger.mark(guest, Mark::Finish, &at(1700), 0).unwrap().costs, [500]);
    }

    #[test]
    fn the_first_instruction_of_a_domain_is_recorded_once() {
        let (mut ledger, guest) = ledger();
        assert!(ledger.is_first(Party::Kernel(2)) && !ledger.is_first(Party::Xen));
        ledger.began(Party::Kernel(2), &counts(&[3, 4]));
        assert!(!ledger.is_first(Party::Programs(2)) && ledger.is_first(Party::Kernel(3)));
        ledger.began(Party::Programs(2), &counts(&[30, 4]));
        assert_eq!(ledger.mark(guest, Mark::Ready, &counts(&[50, 4]), 0).unwrap().first, [(2, 7)].into());
    }
}
