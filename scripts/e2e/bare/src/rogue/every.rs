// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every hypercall with every sub-operation for every target, with plausible values: directly, and as the
//! entry of a multicall.

use alloc::vec::Vec;

use anyhow::Result;

use super::attempt::Attempt;
use super::hypercall::{Form, Hypercall};
use super::known::Known;
use super::ledger::Ledger;
use super::tables::HYPERCALLS;
use super::words::Target;

/// The targets besides the guests: the rogue by its domid and as DOMID_SELF, DOMID_IO, DOMID_XEN, DOMID_COW,
/// DOMID_INVALID, DOMID_IDLE, and domids that do not exist.
const OTHERS: [u16; 11] = [1, 0x7ff0, 0x7ff1, 0x7ff2, 0x7ff3, 0x7ff4, 0x7fff, 0, 4, 0x7fef, 0xffff];
/// The numbers of hypercalls are below this.
const END: u64 = 64;
/// `__HYPERVISOR_multicall`. All other hypercalls are made once more by it.
const MULTICALL: u64 = 13;

pub(super) fn run(ledger: &mut Ledger, known: &[Known; 2]) -> Result<()> {
    let targets = targets(known);
    for is_wrapped in [false, true] {
        for hypercall in HYPERCALLS {
            all_of(hypercall, &targets, |attempt| make(ledger, attempt, is_wrapped));
        }
        for number in (0..END).filter(|number| is_unknown(*number)) {
            let hypercall =
                Hypercall { number, name: "", form: Form::Register, end: 4, words: &[], operations: &[] };
            all_of(&hypercall, &targets, |attempt| make(ledger, attempt, is_wrapped));
        }
    }
    Ok(())
}

/// Returns all targets. Those that are not guests have the frame and the grant of the first guest.
pub(super) fn targets(known: &[Known; 2]) -> Vec<Target> {
    let [first, _] = known;
    let guests = known.iter().map(Known::target);
    guests.chain(OTHERS.map(|domid| Target { domid, ..first.target() })).collect()
}

/// Returns whether no table has this hypercall.
pub(super) fn is_unknown(number: u64) -> bool {
    number != MULTICALL && HYPERCALLS.iter().all(|hypercall| hypercall.number != number)
}

fn make(ledger: &mut Ledger, attempt: &Attempt, is_wrapped: bool) {
    if attempt.harms_only_itself().is_none() {
        ledger.make(attempt, is_wrapped);
    }
}

/// Calls `perform` for all sub-operations, with or without a name, and for all targets of each that has one.
fn all_of(hypercall: &Hypercall, targets: &[Target], mut perform: impl FnMut(&Attempt)) {
    let named = hypercall.operations.iter().map(Ok);
    let has_name = |number: &u64| hypercall.operations.iter().any(|operation| operation.number == *number);
    let unnamed = (0..hypercall.end).filter(|number| !has_name(number)).map(Err);
    for operation in named.chain(unnamed) {
        for target in targets {
            let attempt = Attempt::new(hypercall, operation, target);
            perform(&attempt);
            if attempt.domid.is_none() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hypercall_is_made_for_every_target() {
        let guest = Known { domid: 2, frame: 0, control: 0, read_only: 0, neighbour: 0, secret: 0 };
        let known = [guest, Known { domid: 3, ..guest }];
        let mut names = alloc::collections::BTreeSet::new();
        for hypercall in HYPERCALLS {
            all_of(hypercall, &targets(&known), |attempt| {
                names.insert(attempt.name());
            });
        }
        for name in [
            "domctl pausedomain guest",
            "domctl 94 absent",
            "grant_table_op setup_table xen",
            "dm_op 21 idle",
            "memory_op add_to_physmap_batch:gmfn_foreign io",
            "sysctl physinfo -",
        ] {
            assert!(names.contains(name), "{name}");
        }
    }
}
