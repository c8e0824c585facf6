// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random hypercalls: one of the tables', for any target, with some words changed. The same seed makes the
//! same calls.

use anyhow::Result;

use super::attempt::Attempt;
use super::every;
use super::hypercall::{Form, GRANT_TABLE_OP, Hypercall, MEMORY_OP, VCPU_OP};
use super::known::Known;
use super::ledger::Ledger;
use super::memory;
use super::tables::{FREQUENT, HYPERCALLS};
use super::words::{BUFFERS, Target};
use crate::random::Random;

/// Numbers at which programs fail, besides those of [`Random`]: domids, frames of guests, addresses without
/// memory.
const NUMBERS: [u64; 16] = [
    0x7ff0,
    0x7ff1,
    0x7ff2,
    0x7fff,
    2,
    3,
    0x4_0000,
    0x4_0001,
    0x4_2000,
    0x3_8000,
    0x3800_0000,
    0x4000_0000,
    0xffff_ffff_ffff_f000,
    0x8000_0000_0000_0000,
    0x0000_ffff_ffff_f000,
    u64::MAX,
];

/// `GNTTABOP_setup_table` and `GNTTABOP_get_status_frames`, whose structures have the address of a list.
const WITH_LIST: [u64; 2] = [2, 9];

/// The number of calls after which mapped pages are unmapped, to make room for others.
const CLEARED_AFTER: u64 = 100;

pub(super) fn run(ledger: &mut Ledger, known: &[Known; 2], seed: u64, count: u64) -> Result<()> {
    let targets = every::targets(known);
    let mut random = Random::new(seed, 0);
    let mut made = 0;
    while made < count {
        let mut attempt = pick(&mut random, &targets);
        let operation = attempt.operation();
        let changes = random.below(5);
        for _ in 0..changes {
            change(&mut random, &mut attempt);
        }
        if attempt.operation() != operation {
            attempt.find_domid();
        }
        spare_own_memory(&mut attempt);
        if attempt.harms_only_itself().is_some() {
            continue;
        }
        ledger.make(&attempt, random.one_in(6));
        made += 1;
        if made % CLEARED_AFTER == 0 {
            memory::clear();
        }
    }
    Ok(())
}

/// Returns a call of the tables, or sometimes an unknown one.
fn pick(random: &mut Random, targets: &[Target]) -> Attempt {
    let target = targets.get(random.below(targets.len())).copied().unwrap_or_default();
    let unknown = Hypercall {
        number: u64::from(random.word() % 64),
        name: "",
        form: Form::Register,
        end: 1,
        words: &[],
        operations: &[],
    };
    let is_unknown = random.one_in(40) && every::is_unknown(unknown.number);
    let among = if random.one_in(5) { HYPERCALLS.len() } else { FREQUENT };
    let known = HYPERCALLS.get(random.below(among));
    let hypercall = known.filter(|_| !is_unknown).unwrap_or(&unknown);
    let number = u64::from(random.word()) % hypercall.end;
    let operations = hypercall.operations;
    let named = operations.iter().find(|operation| operation.number == number);
    let chosen = if random.one_in(10) { None } else { operations.get(random.below(operations.len().max(1))) };
    Attempt::new(hypercall, chosen.or(named).ok_or(number), &target)
}

/// Changes one word to a special number or a random one, by one bit, or by a small amount.
fn change(random: &mut Random, attempt: &mut Attempt) {
    let is_list = random.one_in(4);
    let place = match random.below(8) {
        // The first register has the number of the operation or the address of the structure.
        0 => attempt.registers.get_mut(1 + random.below(3)),
        _ if is_list => attempt.list.get_mut(random.below(32)),
        _ => attempt.argument.get_mut(random.below(6)),
    };
    let Some(place) = place else { return };
    *place = match random.below(7) {
        0 => random.pick(&NUMBERS),
        1 => u64::from(random.number()),
        2 => *place ^ 1 << (random.word() % 64),
        3 => place.wrapping_add(u64::from(random.small())),
        4 => *place & 0xffff_ffff | u64::from(random.number()) << 32,
        5 => *place & !0xffff | random.pick(&NUMBERS) & 0xffff,
        _ => u64::from(random.word()) << 32 | u64::from(random.word()),
    };
}

/// Keeps the call away from the rogue's own RAM. Addresses in it become those of a spare page, frames become
/// frames of the landing zone.
fn spare_own_memory(attempt: &mut Attempt) {
    let (number, operation) = (attempt.number, attempt.operation());
    let gives_pages_away = number == MEMORY_OP || number == GRANT_TABLE_OP;
    limit_lengths(attempt);
    let takes_addresses = number == GRANT_TABLE_OP && !WITH_LIST.contains(&operation);
    let spare = |word: &mut u64, is_address_of_page: bool| {
        // Xen may write to the areas that a vCPU registers at any time.
        if number == VCPU_OP && memory::is_own_address(*word) {
            *word = memory::own();
        }
        if memory::is_private(*word) || (is_address_of_page && memory::is_own_address(*word)) {
            *word = if is_address_of_page { memory::LANDING } else { memory::own() };
        }
        if memory::is_own_frame(*word) && (gives_pages_away || *word != memory::own_frame()) {
            *word = (memory::LANDING >> 12) + (*word & 7);
        }
    };
    // The results are read from the structure at its usual place.
    let is_readable =
        |word: &&mut u64| memory::is_own_address(**word) || memory::is_beside_grant_table(**word);
    for word in attempt.registers.iter_mut().filter(is_readable) {
        let is_list = *word >> 12 == memory::list() >> 12;
        *word = if is_list { memory::list() + 8 * BUFFERS } else { memory::argument() };
    }
    for word in &mut attempt.argument {
        spare(word, takes_addresses);
    }
    for word in &mut attempt.list {
        spare(word, false);
    }
}

/// Limits lengths, so that Xen does not write results beyond the pages for them.
fn limit_lengths(attempt: &mut Attempt) {
    let operation = attempt.operation();
    let ([_, _, count, _], [first, ..]) = (&mut attempt.registers, &mut attempt.argument);
    match (attempt.number, operation) {
        // The number of structures, each with a status.
        (GRANT_TABLE_OP, _) => *count %= 16,
        // The number of frames, each with a result: `size` of struct xen_add_to_physmap_batch.
        (MEMORY_OP, 23) => *first &= !(0xfff8 << 32),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_calls() {
        let guest = Target { domid: 2, frame: 0x4_1000, grant: 9 };
        let calls = |seed| {
            let mut random = Random::new(seed, 0);
            [(); 50].map(|()| {
                let mut attempt = pick(&mut random, &[guest]);
                change(&mut random, &mut attempt);
                (attempt.number, attempt.registers, attempt.argument)
            })
        };
        assert_eq!(calls(1), calls(1));
        assert_ne!(calls(1), calls(2));
    }
}
