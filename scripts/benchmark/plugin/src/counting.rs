// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The actions for an instruction: inline counters, and calls.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use ledger::counts::KINDS;
use ledger::opcode::Special;
use ledger::{Class, Kind, Ledger, Mark, Party, book, profile};

use crate::qemu::{self, Instruction, Register, Running};

/// The registers with the number of a hypercall, a firmware call, a system call, and a mark.
const HYPERCALL: u8 = 16;
const FIRMWARE: u8 = 0;
const SYSTEM_CALL: u8 = 8;
const MARK: u8 = 0;

struct Counting {
    ledger: Ledger,
    output: File,
    started: Instant,
}

static COUNTING: OnceLock<Mutex<Counting>> = OnceLock::new();

/// Starts with the plugin's arguments. Returns whether processors take turns.
pub(crate) fn begin(words: impl Iterator<Item = String>) -> Result<bool, String> {
    let words: Vec<String> = words.collect();
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let path = value("out").ok_or("the argument out=FILE is missing")?;
    let output = File::create(path).map_err(|error| format!("{path}: {error}"))?;
    let counting = Counting { ledger: Ledger::default(), output, started: Instant::now() };
    COUNTING.set(Mutex::new(counting)).map_err(|_| "the plugin is loaded twice")?;
    let in_turns = value("turns") == Some("on");
    match value("profile") {
        Some("on") if in_turns => qemu::begin_profile(),
        Some("on") => return Err("profile=on needs turns=on".to_owned()),
        _ => {}
    }
    Ok(in_turns)
}

/// A call at an instruction. It is packed into a number, the argument of [`executed`].
#[derive(Clone, Copy)]
struct Call {
    kind: u8,
    register: u8,
    account: usize,
}

const CALL: u8 = 0;
const FIRMWARE_CALL: u8 = 1;
const MARKED: u8 = 2;

impl Call {
    fn of(special: Special, account: usize) -> Option<Self> {
        let (kind, register) = match special {
            Special::Hypercall => (CALL, HYPERCALL),
            Special::Firmware => (FIRMWARE_CALL, FIRMWARE),
            Special::SystemCall => (CALL, SYSTEM_CALL),
            Special::Mark => (MARKED, MARK),
            Special::Counted(_) => return None,
        };
        Some(Self { kind, register, account })
    }

    fn pack(self) -> usize {
        self.account << 16 | usize::from(self.kind) << 8 | usize::from(self.register)
    }

    fn unpack(packed: usize) -> Self {
        let [register, kind, ..] = packed.to_le_bytes();
        Self { kind, register, account: packed >> 16 }
    }
}

/// Handles the translation of an instruction while this party runs.
pub(crate) fn translated(running: &Running, instruction: &Instruction) {
    let Some(counting) = COUNTING.get() else { return };
    let class = Class::of(instruction.address);
    let thread = u32::try_from(running.thread & u64::from(u32::MAX)).unwrap_or_default();
    let party = Party::new(class, book::domain(running.domain), thread);
    let mut counting = counting.lock().unwrap_or_else(PoisonError::into_inner);
    let ledger = &mut counting.ledger;
    if ledger.is_first(party) {
        ledger.began(party, &qemu::counts(ledger.accounts()));
    }
    let account = ledger.account(party);
    let special = Special::of(instruction.word);
    if let Some(call) = special.and_then(|special| Call::of(special, account)) {
        instruction.call(call.pack());
    }
    instruction.count(account * KINDS + Kind::Instructions.place());
    if let Some(slot) = profile::slot(party, instruction.address) {
        instruction.profile(slot);
    }
    if let Some(Special::Counted(kind)) = special {
        instruction.count(account * KINDS + kind.place());
    }
}

/// Handles the call of an instruction that is about to be executed.
pub(crate) fn executed(packed: usize) {
    let Some(counting) = COUNTING.get() else { return };
    let call = Call::unpack(packed);
    let value = qemu::register(Register::General(call.register));
    let mut counting = counting.lock().unwrap_or_else(PoisonError::into_inner);
    match call.kind {
        CALL => counting.ledger.call(call.account, value),
        // The number has 32 bits. The upper half of the register is undefined.
        FIRMWARE_CALL => counting.ledger.call(call.account, value & u64::from(u32::MAX)),
        _ => counting.mark(call.account, value),
    }
}

impl Counting {
    fn mark(&mut self, account: usize, number: u64) {
        let Some(mark) = Mark::from_number(number) else { return };
        let nanoseconds = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or_default();
        let counts = qemu::counts(self.ledger.accounts());
        let Some(mut record) = self.ledger.mark(account, mark, &counts, nanoseconds) else { return };
        let profile = qemu::take_profile();
        if mark == Mark::Finish {
            record.profile = profile;
        }
        let written = serde_json::to_string(&record).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|line| writeln!(self.output, "{line}")) {
            eprintln!("plugin: {error}");
        }
    }
}
