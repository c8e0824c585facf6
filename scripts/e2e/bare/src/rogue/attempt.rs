// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One hypercall of the rogue: its arguments, whether it succeeded, and the name under which it is recorded.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};

use super::hypercall::{
    DOMCTL, EVENT_CHANNEL_OP, Form, GRANT_TABLE_OP, Hypercall, MEMORY_OP, Operation, RESOURCES, SCHED_OP,
    SCHED_OP_COMPAT, SPACES,
};
use super::memory::{self, ARGUMENT_LENGTH, LIST_LENGTH};
use super::tables::HYPERCALLS;
use super::words::{self, NO_RESULT, RESULTS, Target, Word};
use crate::machine;

/// `__HYPERVISOR_multicall`.
const MULTICALL: u64 = 13;
/// A status that Xen does not write. `GNTST_okay` is 0.
const NO_STATUS: u64 = 0x5555;

/// The place of the domid in the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a register.
    Register(usize),
    /// In a word of the structure, from this bit on.
    Argument(usize, u32),
}

/// A hypercall with all of its arguments.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The number of the hypercall.
    pub(super) number: u64,
    /// The arguments in registers.
    pub(super) registers: [u64; 4],
    /// The structure: the first words of the first page.
    pub(super) argument: [u64; ARGUMENT_LENGTH],
    /// The first words of the second page.
    pub(super) list: [u64; LIST_LENGTH],
    /// The place of the target's domid, if there is one.
    pub(super) domid: Option<Place>,
    /// The name of the attack of which this is the last step. It must not succeed.
    pub(super) attack: Option<&'static str>,
}

impl Attempt {
    /// A sub-operation with the values of its table; one without an entry is given by its number.
    pub(super) fn new(hypercall: &Hypercall, operation: Result<&Operation, u64>, target: &Target) -> Self {
        let (number, shape) = match operation {
            Ok(operation) => (operation.number, operation.words),
            Err(number) => (number, hypercall.words),
        };
        let mut attempt = Self {
            number: hypercall.number,
            registers: [0; 4],
            argument: [0; ARGUMENT_LENGTH],
            list: words::list(target),
            domid: None,
            attack: None,
        };
        let first = attempt.set_head(hypercall.form, number, target);
        for (index, word) in (first..).zip(shape) {
            attempt.set(hypercall.form, index, *word, target);
        }
        attempt.prepare_status(number);
        attempt
    }

    /// A sub-operation of the table, by the number of the hypercall and its name.
    pub(super) fn named(hypercall: u64, name: &str, target: &Target) -> Option<Self> {
        let hypercall = HYPERCALLS.iter().find(|candidate| candidate.number == hypercall)?;
        let operation = hypercall.operations.iter().find(|operation| operation.name == name)?;
        Some(Self::new(hypercall, Ok(operation), target))
    }

    /// Sets the place of the domid after the sub-operation has changed.
    pub(super) fn find_domid(&mut self) {
        let Some(hypercall) = self.hypercall() else { return };
        let number = self.operation();
        let named = hypercall.operations.iter().find(|operation| operation.number == number);
        self.domid = Self::new(hypercall, named.ok_or(number), &Target::default()).domid;
    }

    /// Sets a word of the structure.
    pub(super) fn with(mut self, index: usize, value: u64) -> Self {
        if let Some(word) = self.argument.get_mut(index) {
            *word = value;
        }
        self
    }

    /// Marks this as a step of an attack that must not succeed.
    pub(super) fn attack(mut self, name: &'static str) -> Self {
        self.attack = Some(name);
        self
    }

    /// Sets the registers and words that select the sub-operation. Returns the index of the next word.
    fn set_head(&mut self, form: Form, number: u64, target: &Target) -> usize {
        let argument = memory::argument();
        let (registers, next) = match form {
            Form::Register => ([number, argument, 1, 0], 0),
            Form::Vcpu => ([number, 0, argument, 0], 0),
            Form::Length => ([number, 4, argument, 0], 0),
            Form::Versioned(_) | Form::Structure => ([argument, 0, 0, 0], 1),
            Form::Device => {
                self.domid = Some(Place::Register(0));
                ([u64::from(target.domid), 1, Word::List(words::BUFFERS).value(target), 0], 1)
            }
            Form::Registers => ([number, 0, 0, 0], 1),
            Form::None => ([0; 4], 0),
        };
        self.registers = registers;
        match form {
            Form::Versioned(version) => self.argument[0] = number | u64::from(version) << 32,
            Form::Structure | Form::Device => self.argument[0] = number,
            _ => {}
        }
        if self.number != DOMCTL {
            return next;
        }
        // struct xen_domctl: the domid follows the version.
        self.argument[1] = u64::from(target.domid);
        self.domid = Some(Place::Argument(1, 0));
        2
    }

    fn set(&mut self, form: Form, index: usize, word: Word, target: &Target) {
        let in_registers = matches!(form, Form::Registers | Form::None);
        let place = if in_registers { self.registers.get_mut(index) } else { self.argument.get_mut(index) };
        if let Some(place) = place {
            *place = word.value(target);
        }
        if let Some(shift) = word.domid_at() {
            let place = if in_registers { Place::Register(index) } else { Place::Argument(index, shift) };
            self.domid.get_or_insert(place);
        }
    }

    /// Sets the status to one that is not success, in case Xen does not write it.
    fn prepare_status(&mut self, operation: u64) {
        if let Some((index, shift)) = self.status(operation)
            && let Some(word) = self.argument.get_mut(index)
        {
            *word = *word & !(0xffff << shift) | NO_STATUS << shift;
        }
    }

    /// Returns the place of a 16-bit status in the structure: word and first bit (grant_table.h).
    fn status(&self, operation: u64) -> Option<(usize, u32)> {
        if self.number != GRANT_TABLE_OP {
            return None;
        }
        match operation {
            0 => Some((2, 16)),
            1 | 7 => Some((2, 32)),
            2 | 11 => Some((1, 0)),
            3 => Some((0, 16)),
            4 => Some((2, 0)),
            5 => Some((4, 32)),
            6 => Some((1, 32)),
            9 => Some((0, 48)),
            _ => None,
        }
    }

    /// Returns the hypercall, if the table has it.
    pub(super) fn hypercall(&self) -> Option<&'static Hypercall> {
        HYPERCALLS.iter().find(|candidate| candidate.number == self.number)
    }

    /// Returns the number of the sub-operation.
    pub(super) fn operation(&self) -> u64 {
        let form = self.hypercall().map_or(Form::None, |hypercall| hypercall.form);
        let ([register, ..], [word, ..]) = (self.registers, self.argument);
        match form {
            Form::Register | Form::Vcpu | Form::Length | Form::Registers => register,
            Form::Versioned(_) | Form::Structure | Form::Device => word & 0xffff_ffff,
            Form::None => 0,
        }
    }

    /// Makes the call, directly or as the only entry of a multicall. Returns the result.
    pub(super) fn perform(&self, is_wrapped: bool) -> i64 {
        memory::prepare(&self.argument, &self.list);
        machine::barrier();
        if !is_wrapped {
            return machine::hypercall(self.number, self.registers);
        }
        memory::prepare_entry(self.number, self.registers);
        let result = machine::hypercall(MULTICALL, [memory::calls(), 1, 0, 0]);
        if result == 0 { memory::entry_result() } else { result }
    }

    /// Returns whether the call has had its effect, judged by the result and by what Xen has written.
    pub(super) fn succeeded(&self, result: i64) -> bool {
        if result < 0 {
            return false;
        }
        let operation = self.operation();
        if self.asks_for_nothing(operation) {
            return false;
        }
        if let Some((index, shift)) = self.status(operation) {
            return result == 0 && memory::argument_word(index) >> shift & 0xffff == 0;
        }
        match (self.number, operation) {
            // The number of pages that were handled, including earlier parts of the call.
            (MEMORY_OP, 0 | 1 | 6) => result > 0,
            // A result for each page.
            (MEMORY_OP, 23) => memory::list_word(RESULTS) & 0xffff_ffff == 0,
            _ => true,
        }
    }

    /// Returns whether the call has nothing to do: no structures, or a copy of no bytes.
    fn asks_for_nothing(&self, operation: u64) -> bool {
        let ([_, _, count, _], [_, _, _, _, length, ..]) = (self.registers, self.argument);
        self.number == GRANT_TABLE_OP && (count == 0 || (operation == 5 && length & 0xffff == 0))
    }

    /// Returns the address and the handle of a page that was mapped by a grant.
    pub(super) fn mapped(&self) -> Option<(u64, u64)> {
        let [address, ..] = self.argument;
        let is_map = self.number == GRANT_TABLE_OP && self.operation() == 0;
        is_map.then(|| (address, memory::argument_word(2) >> 32))
    }

    /// Returns whether the call may have mapped pages, even if it failed.
    pub(super) fn may_have_done_something(&self, result: i64) -> bool {
        result >= 0 || memory::list_word(RESULTS) != NO_RESULT
    }

    /// Returns the name under which a success is recorded: hypercall, sub-operation and type of target.
    pub(super) fn name(&self) -> String {
        let target = self.target();
        if let Some(attack) = self.attack {
            return format!("attack {attack} {target}");
        }
        let Some(hypercall) = self.hypercall() else { return format!("hypercall {} {target}", self.number) };
        if hypercall.form == Form::None {
            return format!("{} - {target}", hypercall.name);
        }
        let number = self.operation();
        let known = hypercall.operations.iter().find(|operation| operation.number == number);
        let name = known.map_or_else(|| number.to_string(), |known| base(known.name).to_owned());
        format!("{} {name}{} {target}", hypercall.name, self.detail().unwrap_or_default())
    }

    /// Returns the registers and the first words of the structure, for the report.
    pub(super) fn text(&self) -> String {
        let [a, b, c, d, e, f, ..] = self.argument;
        format!("{:x?} {:x?}", self.registers, [a, b, c, d, e, f])
    }

    /// Returns the type or space that distinguishes calls of the same sub-operation (memory.h).
    fn detail(&self) -> Option<String> {
        let [word, ..] = self.argument;
        let (names, value) = match (self.number, self.operation()) {
            (MEMORY_OP, 7) => (SPACES, word >> 32),
            (MEMORY_OP, 23) => (SPACES, word >> 16 & 0xffff),
            (MEMORY_OP, 28) => (RESOURCES, word >> 16 & 0xffff),
            // A channel from the domain itself, or from another.
            (EVENT_CHANNEL_OP, 6) => {
                (&["in", "for"][..], u64::from(self.domid != Some(Place::Argument(0, 0))))
            }
            _ => return None,
        };
        let name = usize::try_from(value).ok().and_then(|value| names.get(value));
        Some(name.map_or_else(|| format!(":{value}"), |name| format!(":{name}")))
    }

    /// Returns the type of the domain that the call is for (xen.h: `DOMID_*`).
    fn target(&self) -> &'static str {
        let value = match self.domid {
            None => return "-",
            Some(Place::Register(index)) => self.registers.get(index).copied(),
            Some(Place::Argument(index, shift)) => self.argument.get(index).map(|word| word >> shift),
        };
        match value.unwrap_or_default() & 0xffff {
            1 => "own",
            2 | 3 => "guest",
            0x7ff0 => "self",
            0x7ff1 => "io",
            0x7ff2 => "xen",
            0x7ff3 => "cow",
            0x7ff4 => "invalid",
            0x7fff => "idle",
            _ => "absent",
        }
    }

    /// Returns the reason why the call must not be made, if it would stop the rogue itself.
    pub(super) fn harms_only_itself(&self) -> Option<&'static str> {
        match (self.number, self.operation()) {
            (SCHED_OP | SCHED_OP_COMPAT, 1) => Some("it waits for an event that never comes"),
            (SCHED_OP | SCHED_OP_COMPAT, 2) => Some("it ends the rogue"),
            (SCHED_OP, 3) => Some("it waits for an event that never comes"),
            (SCHED_OP, 6) => Some("it ends the rogue after a delay"),
            _ => None,
        }
    }
}

/// Returns the name of a sub-operation without the type or space of its entry.
fn base(name: &str) -> &str {
    name.split_once(':').map_or(name, |(base, _)| base)
}

#[cfg(test)]
mod tests {
    use super::super::hypercall::DEVICE_MODEL_OP;
    use super::*;

    const GUEST: Target = Target { domid: 2, frame: 0x4_0000, grant: 9 };

    #[test]
    fn a_success_is_named_by_call_and_type_of_target() {
        let name = |number, operation| Attempt::named(number, operation, &GUEST).unwrap().name();
        assert_eq!(name(DOMCTL, "pausedomain"), "domctl pausedomain guest");
        assert_eq!(
            name(MEMORY_OP, "acquire_resource:grant_table"),
            "memory_op acquire_resource:grant_table guest"
        );
        assert_eq!(
            name(MEMORY_OP, "add_to_physmap_batch:gmfn_foreign"),
            "memory_op add_to_physmap_batch:gmfn_foreign guest"
        );
        assert_eq!(name(DEVICE_MODEL_OP, "nr_vcpus"), "dm_op nr_vcpus guest");
    }

    #[test]
    fn a_changed_word_changes_the_name() {
        let attempt = Attempt::named(DOMCTL, "pausedomain", &GUEST).unwrap().with(1, 0x7ff2);
        assert_eq!(attempt.name(), "domctl pausedomain xen");
        let attempt = Attempt::named(MEMORY_OP, "acquire_resource:grant_table", &GUEST).unwrap();
        assert_eq!(attempt.with(0, 1 | 7 << 16).name(), "memory_op acquire_resource:7 own");
        let mut attempt = Attempt::named(27, "RELABEL_DOMAIN", &GUEST).unwrap().with(0, 2 | 1 << 32);
        attempt.find_domid();
        assert_eq!(attempt.name(), "xsm_op GETENFORCE -");
    }

    #[test]
    fn an_unknown_call_does_not_succeed() {
        for hypercall in HYPERCALLS {
            for operation in hypercall.operations {
                let attempt = Attempt::new(hypercall, Ok(operation), &GUEST);
                assert_eq!(attempt.operation(), operation.number, "{}", attempt.name());
                assert!(!attempt.succeeded(attempt.perform(false)), "{}", attempt.name());
            }
        }
    }

    #[test]
    fn an_unwritten_status_is_not_success() {
        for operation in ["map_grant_ref", "copy", "setup_table", "query_size", "transfer", "dump_table"] {
            let attempt = Attempt::named(GRANT_TABLE_OP, operation, &GUEST).unwrap();
            let (index, shift) = attempt.status(attempt.operation()).unwrap();
            assert_eq!(attempt.argument[index] >> shift & 0xffff, NO_STATUS, "{operation}");
        }
    }
}
