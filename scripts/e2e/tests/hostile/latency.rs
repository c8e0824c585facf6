// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much longer the well-behaved guest waits for a transfer while the other one attacks, in instructions.
//!
//! Guests share the driver domain, and with it its processor: one that only uses its devices as much as it
//! can makes the others wait, too. Compared is therefore with a guest that does just that, with as many
//! requests in flight as a driver may have. An attack must not cost the others more than ten per cent above
//! it, in the mean and in the median. (The 99th percentile is told and not judged: it is that of messages on
//! the UART, and of starts and resets of a device, which orderly use does not have. Each is one step of the
//! driver domain's, and is soon over.)
//!
//! Each vCPU has a processor of its own (`sched=null`), lest Xen's scheduler be what is measured. QEMU lets
//! the processors take turns and has one clock for all of them: what the other guest executes counts, too, if
//! anything of it runs while a transfer waits. That is why a guest that only computes is no measure: it never
//! waits, and has turns of milliseconds.
//!
//! The transfers are reads of a line of the PL061, which QEMU emulates by itself: no transfer waits for the
//! host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::host::census::Census;
use e2e::host::console::Line;
use e2e::host::machine::{ICOUNT, Machine, NANOSECONDS_PER_INSTRUCTION, Place};
use toml::Value;

use crate::quiet;
use crate::shared::{is_long, rebuild, section};

const LIMIT: Duration = Duration::from_secs(600);
const TRANSFERS: &str = "300";
/// Odd, for there is a middle one then.
const ROUNDS: usize = 5;

/// What the other guest does meanwhile, again and again, but not too often: the console over which it is told
/// is on all processors' clock.
type Doing = (&'static str, &'static [&'static str]);
const NOTHING: Doing = ("does nothing", &[]);
const BUSY: Doing = ("is busy", &["hostile", "busy", "2000"]);
const ATTACKS: [Doing; 6] = [
    ("accesses registers", &["hostile", "registers", "1", "20000"]),
    ("sends chains for I2C", &["hostile", "chains", "i2c", "1", "1000"]),
    ("sends chains for GPIO", &["hostile", "chains", "gpio", "1", "1000"]),
    ("puts rings anywhere (I2C)", &["hostile", "rings", "i2c", "1", "600"]),
    ("puts rings anywhere (GPIO)", &["hostile", "rings", "gpio", "1", "600"]),
    ("kicks", &["hostile", "storm", "1", "20000"]),
];

/// The most vCPUs that the hostile guest can use.
const MANY: u16 = 8;
/// Transfers beside so many: all processors take turns on one of the host.
const FEW_TRANSFERS: &str = "100";
const FEW_ROUNDS: usize = 3;
/// The guest that they are compared with, for longer than the transfers take.
const SOON_DONE: Doing = ("is busy", &["hostile", "busy", "400"]);
/// What the hostile guest does on all vCPUs, for so many milliseconds, likewise; and how much longer a
/// transfer may take beside it than beside a busy guest, in tenths of that. The kernel bounds kicks. Reads
/// are a worker's to answer, and only the scheduler bounds those: a worker has its share of the processor
/// like any other process.
const FLOODS: [(Doing, u64); 2] = [
    (("kicks on eight vCPUs", &["hostile", "kicks", "1000"]), 11),
    (("reads on eight vCPUs", &["hostile", "reads", "1000"]), 30),
];

/// What a transfer took, in instructions.
#[derive(Clone, Copy, Debug)]
struct Latency {
    mean: u64,
    median: u64,
    late: u64,
}

impl Latency {
    fn of(text: &str) -> Result<Self> {
        let number = |name: &str| -> Result<u64> {
            let found =
                text.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
            found.with_context(|| format!("no {name} in {text}"))
        };
        Ok(Self {
            mean: number("nanoseconds")? / number("transfers")? / NANOSECONDS_PER_INSTRUCTION,
            median: number("median")? / NANOSECONDS_PER_INSTRUCTION,
            late: number("p99")? / NANOSECONDS_PER_INSTRUCTION,
        })
    }

    /// Whether it is more than so many tenths of that beside a busy guest, in the mean or in the median.
    fn is_slower_than(self, busy: Self, tenths: u64) -> bool {
        let pairs = [(self.mean, busy.mean), (self.median, busy.median)];
        pairs.iter().any(|(one, other)| one * 10 > other * tenths)
    }

    fn tell(self, name: &str) {
        let Self { mean, median, late } = self;
        eprintln!("the other guest {name:26} mean {mean:8} median {median:8} p99 {late:8}");
    }

    /// Of several rounds, the middle one of each figure.
    fn middle(rounds: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> u64| {
            let mut figures: Vec<u64> = rounds.iter().map(figure).collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied().unwrap_or(0)
        };
        Self { mean: middle(|l| l.mean), median: middle(|l| l.median), late: middle(|l| l.late) }
    }
}

/// Fails if an attack makes a transfer of the other guest take longer than a tenth above what a busy guest
/// does.
pub(crate) fn compare() -> Result<()> {
    let machine = boot("latency", 2)?;
    measure(&machine, NOTHING, (1, TRANSFERS))?;
    let busy = measure(&machine, BUSY, (ROUNDS, TRANSFERS))?;
    let mut slow = Vec::new();
    for attack in ATTACKS {
        if measure(&machine, attack, (ROUNDS, TRANSFERS))?.is_slower_than(busy, 11) {
            slow.push(attack.0);
        }
    }
    require_none(&slow)
}

/// The same for one that does what the kernel or a worker answers, on all of many vCPUs and without end.
pub(crate) fn compare_floods() -> Result<()> {
    let machine = boot("flood", MANY)?;
    let rounds = if is_long() { ROUNDS } else { FEW_ROUNDS };
    measure(&machine, NOTHING, (1, FEW_TRANSFERS))?;
    let busy = beside_all_of(&machine, SOON_DONE, rounds)?;
    crate::works(&machine)?;
    let (mark, start) = (machine.console.mark(), Instant::now());
    let before = Census::take(&machine.driver_domain, &machine.console)?;
    let mut slow = Vec::new();
    for (flood, tenths) in FLOODS {
        if beside_all_of(&machine, flood, rounds)?.is_slower_than(busy, tenths) {
            slow.push(flood.0);
        }
    }
    // No watchdog has killed a process, and none complains.
    crate::works(&machine)?;
    before.require_unchanged(&Census::take(&machine.driver_domain, &machine.console)?)?;
    quiet::check(&machine, mark, start.elapsed())?;
    require_none(&slow)
}

/// The latency of transfers that begin and end while the other guest does something.
fn beside_all_of(machine: &Machine, (name, command): Doing, rounds: usize) -> Result<Latency> {
    let round = || {
        let mark = machine.console.mark();
        thread::scope(|scope| {
            let other = scope.spawn(|| machine.guest_a.check(command, LIMIT));
            let begins = |line: &Line| line.text.contains("bare: begins").then_some(());
            machine.console.wait(mark, LIMIT, begins)?.context("the other guest does not begin")?;
            let latency = transfers(machine, FEW_TRANSFERS);
            let is_over = other.is_finished();
            let report = other.join().map_err(|_| anyhow!("a panic"))??;
            eprintln!("the other guest: {}", report.trim_end());
            ensure!(!is_over, "`{}` was over before the transfers were", command.join(" "));
            latency
        })
    };
    let latency = Latency::middle(&(0..rounds).map(|_| round()).collect::<Result<Vec<_>>>()?);
    latency.tell(name);
    Ok(latency)
}

fn require_none(slow: &[&str]) -> Result<()> {
    ensure!(slow.is_empty(), "too slow, compared with what it is beside a busy guest: {}", slow.join(", "));
    Ok(())
}

/// The hostile image, with so many vCPUs for the hostile guest, on a board with a processor for each vCPU.
fn boot(run: &str, vcpus: u16) -> Result<Machine> {
    let arguments = ICOUNT.map(str::to_owned).to_vec();
    let place = Place { arguments, ..Place::hostile(run) };
    let place = rebuild(place, run, |manifest, board| {
        let guests = manifest.get_mut("guest").and_then(Value::as_array_mut);
        let hostile = guests.and_then(|guests| guests.first_mut()?.as_table_mut());
        hostile.context("there is no guest")?.insert("vcpus".to_owned(), i64::from(vcpus).into());
        section(board, "machine")?.insert("cpus".to_owned(), i64::from(3 + vcpus).into());
        let xen = section(board, "xen")?;
        let arguments = xen.get("bootargs").and_then(Value::as_str).unwrap_or_default();
        let arguments = format!("{arguments} sched=null vwfi=native");
        xen.insert("bootargs".to_owned(), arguments.into());
        Ok(())
    })?;
    let machine = Machine::start(&place)?;
    machine.wait_for_guests()?;
    Ok(machine)
}

/// The latency while the other guest does something, which is told.
fn measure(machine: &Machine, (name, command): Doing, effort: (usize, &str)) -> Result<Latency> {
    let (rounds, count) = effort;
    if !command.is_empty() {
        // What it has the driver domain say, over a UART, is said by now; more of it comes seldom.
        machine.guest_a.check(command, LIMIT)?;
    }
    let over = AtomicBool::new(false);
    let latency = thread::scope(|scope| {
        let other = scope.spawn(|| -> Result<()> {
            while !command.is_empty() && !over.load(Ordering::Acquire) {
                machine.guest_a.check(command, LIMIT)?;
            }
            Ok(())
        });
        let round = || transfers(machine, count);
        let measured: Result<Vec<Latency>> = (0..rounds).map(|_| round()).collect();
        over.store(true, Ordering::Release);
        other.join().map_err(|_| anyhow!("a panic"))??;
        Ok::<_, anyhow::Error>(Latency::middle(&measured?))
    })?;
    latency.tell(name);
    Ok(latency)
}

/// So many transfers of the well-behaved guest.
fn transfers(machine: &Machine, count: &str) -> Result<Latency> {
    Latency::of(&machine.guest_b.check(&["agent", "time-gpio-get", "gpiochip0", "3", count], LIMIT)?)
}
