// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much longer the well-behaved guest waits for a transfer while the other one attacks, in instructions.
//!
//! All domains share two processors, so a guest that only computes makes the others slower, too: its instructions are
//! executed while they wait, and Xen has to share the processors out. That is not the appliance's doing. The fair
//! comparison is therefore with the same guest that keeps its CPUs just as busy, but leaves its devices alone. Then
//! the processors are never idle in either case, each instruction counts in both, and what differs is what the attack
//! costs the driver domain. The latency without anybody else is given, too.
//!
//! Three figures of the latency: its mean, which has the times in it for which Xen gave a processor to the other guest;
//! its median, which has not; what 99 of 100 stay below. And what the good guest's own daemons executed for a transfer,
//! by their processor time: it does not grow when they wait.
//!
//! The transfers are reads of a line of the PL061, which QEMU emulates by itself: nobody waits for the host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use e2e::host::census::{Process, processes};
use e2e::host::machine::{ICOUNT, Machine, NANOSECONDS_PER_INSTRUCTION, Place};

const LIMIT: Duration = Duration::from_secs(600);
const TRANSFERS: &str = "300";
const ROUNDS: usize = 5;

/// What the other guest does meanwhile: long enough for several rounds.
const ATTACKS: [(&str, &[&str]); 6] = [
    ("computes only", &["hostile", "spin", "3000"]),
    ("accesses registers", &["hostile", "registers", "1", "20000"]),
    ("sends chains for I2C", &["hostile", "chains", "i2c", "1", "400"]),
    ("sends chains for GPIO", &["hostile", "chains", "gpio", "1", "400"]),
    ("puts rings anywhere", &["hostile", "rings", "gpio", "1", "200"]),
    ("kicks", &["hostile", "storm", "1", "20000"]),
];

/// What a transfer took, in instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Latency {
    mean: u64,
    median: u64,
    late: u64,
    daemons: u64,
}

/// Prints the latencies.
pub(crate) fn compare() -> Result<()> {
    let arguments = ICOUNT.map(str::to_owned).to_vec();
    let machine = Machine::start(&Place { arguments, ..Place::hostile("latency") })?;
    machine.wait_for_guests()?;
    tell("is idle", &measure(&machine)?);
    for (name, command) in ATTACKS {
        tell(name, &beside(&machine, command)?);
    }
    Ok(())
}

fn tell(name: &str, rounds: &[Latency]) {
    let median = |figure: fn(&Latency) -> u64| {
        let mut figures: Vec<u64> = rounds.iter().map(figure).collect();
        figures.sort_unstable();
        figures.get(figures.len() / 2).copied().unwrap_or(0)
    };
    let [mean, half, late] = [median(|l| l.mean), median(|l| l.median), median(|l| l.late)];
    let daemons = median(|l| l.daemons);
    eprintln!("the other guest {name:24} mean {mean:8} median {half:8} p99 {late:8} daemons {daemons:8}");
}

fn beside(machine: &Machine, command: &[&str]) -> Result<Vec<Latency>> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let attack = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Acquire) {
                machine.guest_a.check(command, LIMIT)?;
            }
            Ok(())
        });
        let measured = measure(machine);
        over.store(true, Ordering::Release);
        attack.join().map_err(|_| anyhow!("a panic"))??;
        measured
    })
}

fn measure(machine: &Machine) -> Result<Vec<Latency>> {
    (0..ROUNDS).map(|_| round(machine)).collect()
}

fn round(machine: &Machine) -> Result<Latency> {
    let before = used_by_daemons(machine)?;
    let text = machine.guest_b.check(&["agent", "time-gpio-get", "gpiochip0", "3", TRANSFERS], LIMIT)?;
    let number = |name: &str| -> Result<u64> {
        let found = text.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        found.with_context(|| format!("no {name} in {text}"))
    };
    let used = used_by_daemons(machine)? - before;
    Ok(Latency {
        daemons: used / number("transfers")? / NANOSECONDS_PER_INSTRUCTION,
        mean: number("nanoseconds")? / number("transfers")? / NANOSECONDS_PER_INSTRUCTION,
        median: number("median")? / NANOSECONDS_PER_INSTRUCTION,
        late: number("p99")? / NANOSECONDS_PER_INSTRUCTION,
    })
}

/// The processor time of the good guest's worker and backends so far, in nanoseconds.
fn used_by_daemons(machine: &Machine) -> Result<u64> {
    let processes = processes(&machine.driver_domain)?;
    let is_own = |process: &&Process| process.command.contains("good");
    Ok(processes.values().filter(is_own).map(|process| process.nanoseconds).sum())
}
