// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is counted inline and what needs a call.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use ledger::opcode::Special;
use ledger::{Class, Counts, Kind, Ledger, Mark};

use crate::qemu::{self, Instruction};

/// The register that has the number of a hypercall, of a system call, and of a mark.
const HYPERCALL: u8 = 16;
const SYSTEM_CALL: u8 = 8;
const MARK: u8 = 0;

struct Counting {
    ledger: Ledger,
    output: File,
    started: Instant,
}

static COUNTING: OnceLock<Mutex<Counting>> = OnceLock::new();

/// Begins, with the plugin's arguments.
pub(crate) fn begin(processors: usize, words: impl Iterator<Item = String>) -> Result<(), String> {
    let path = words.filter_map(|word| word.strip_prefix("out=").map(str::to_owned)).last();
    let path = path.ok_or("its argument out=FILE is missing")?;
    let output = File::create(&path).map_err(|error| format!("{path}: {error}"))?;
    let counting = Counting { ledger: Ledger::new(processors), output, started: Instant::now() };
    COUNTING.set(Mutex::new(counting)).map_err(|_| "it is there twice".to_owned())
}

/// Which call it is, and where: what [`executed`] gets.
fn code(special: Special, class: Class) -> Option<usize> {
    let (kind, register) = match special {
        Special::Domain(register) => (0, register),
        Special::Thread(register) if class == Class::Hypervisor => (1, register),
        Special::Thread(register) => (2, register),
        Special::Hypercall => (3, HYPERCALL),
        Special::SystemCall => (4, SYSTEM_CALL),
        Special::Mark => (5, MARK),
        Special::Counted(_) => return None,
    };
    Some(kind << 8 | usize::from(register))
}

/// An instruction is being translated.
pub(crate) fn translated(instruction: &Instruction) {
    let class = Class::of(instruction.address);
    let special = Special::of(instruction.word);
    if let Some(code) = special.and_then(|special| code(special, class)) {
        instruction.call(code);
    }
    instruction.count(Counts::place(class, Kind::Instructions));
    if let Some(Special::Counted(kind)) = special {
        instruction.count(Counts::place(class, kind));
    }
}

/// An instruction with this code is going to be executed.
pub(crate) fn executed(processor: usize, code: usize) {
    let Some(counting) = COUNTING.get() else { return };
    let [register, kind, ..] = code.to_le_bytes();
    let value = qemu::register(register);
    let mut counting = counting.lock().unwrap_or_else(PoisonError::into_inner);
    let own = qemu::counts(processor);
    let ledger = &mut counting.ledger;
    match kind {
        0 => ledger.switch_domain(processor, &own, value, all().iter().map(Counts::instructions).sum()),
        1 => ledger.switch_thread(processor, &own, value, Class::Hypervisor),
        2 => ledger.switch_thread(processor, &own, value, Class::Kernel),
        3 => ledger.hypercall(processor, value),
        4 => ledger.system_call(processor, value),
        _ => counting.mark(processor, value),
    }
}

fn all() -> Vec<Counts> {
    (0..qemu::processors()).map(qemu::counts).collect()
}

impl Counting {
    fn mark(&mut self, processor: usize, number: u64) {
        let Some(mark) = Mark::from_number(number) else { return };
        let nanoseconds = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or_default();
        let Some(record) = self.ledger.mark(processor, mark, &all(), nanoseconds) else { return };
        let written = serde_json::to_string(&record).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|line| writeln!(self.output, "{line}")) {
            eprintln!("plugin: {error}");
        }
    }
}
