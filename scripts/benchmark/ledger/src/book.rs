// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The accounts, and the workloads that are measured with them.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use crate::counts::{Counts, Kind};
use crate::mark::Mark;
use crate::record::{Account, Party, Record};

/// How many accounts there can be. All parties beyond share the last one: threads come and go.
pub const ACCOUNTS: usize = 1024;

/// Where the VMID begins in VTTBR_EL2 (Arm ARM, D24.2).
const VMID_SHIFT: u32 = 48;

/// The domain that VTTBR_EL2 names.
#[must_use]
pub fn domain(vttbr: u64) -> u16 {
    let [low, high, ..] = (vttbr >> VMID_SHIFT).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    instructions: u64,
    nanoseconds: u64,
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

/// All accounts. What is counted of them is elsewhere, where it is cheap to count; it is handed in when it is
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
    /// The number of a party's account.
    pub fn account(&mut self, party: Party) -> usize {
        let next = self.parties.len().min(ACCOUNTS - 1);
        let number = *self.numbers.entry(party).or_insert(next);
        if number == self.parties.len() {
            self.parties.push(party);
        }
        number
    }

    /// How many accounts there are.
    #[must_use]
    pub fn accounts(&self) -> usize {
        self.parties.len()
    }

    /// Whether it is the domain's first instruction that this party is about to execute; then
    /// [`Ledger::began`] is to be told.
    #[must_use]
    pub fn is_first(&self, party: Party) -> bool {
        party.domain().is_some_and(|domain| !self.first.contains_key(&domain))
    }

    /// It is.
    pub fn began(&mut self, party: Party, counts: &[Counts]) {
        if let Some(domain) = party.domain() {
            self.first.entry(domain).or_insert(instructions(counts));
        }
    }

    /// A kernel calls Xen, or a program its kernel.
    pub fn call(&mut self, account: usize, number: u64) {
        *self.calls.entry(account).or_default().entry(number).or_default() += 1;
    }

    /// A program makes a mark; `counts` are those of all accounts. Returns a record if the mark asks for one.
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
    fn a_domain_is_in_the_upper_bits() {
        assert_eq!(domain(0x0002_0000_7f00_0001), 2);
    }

    #[test]
    fn a_party_has_one_account_and_too_many_share_the_last() {
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
    fn a_request_costs_what_all_execute_meanwhile() {
        let (mut ledger, guest) = ledger();
        ledger.mark(guest, Mark::Begin, &counts(&[0, 0]), 0);
        ledger.mark(guest, Mark::Start, &counts(&[10, 5]), 100);
        ledger.mark(guest, Mark::End, &counts(&[20, 30]), 700);
        // One that was never started costs nothing, and is no panic.
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
        // An edge is told once.
        ledger.mark(guest, Mark::Event, &at(1600), 0);
        assert_eq!(ledger.mark(guest, Mark::Finish, &at(1700), 0).unwrap().costs, [500]);
    }

    #[test]
    fn the_first_time_is_kept() {
        let (mut ledger, guest) = ledger();
        assert!(ledger.is_first(Party::Kernel(2)) && !ledger.is_first(Party::Xen));
        ledger.began(Party::Kernel(2), &counts(&[3, 4]));
        assert!(!ledger.is_first(Party::Programs(2)) && ledger.is_first(Party::Kernel(3)));
        ledger.began(Party::Programs(2), &counts(&[30, 4]));
        assert_eq!(ledger.mark(guest, Mark::Ready, &counts(&[50, 4]), 0).unwrap().first, [(2, 7)].into());
    }
}
