// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The latency of a guest's transfers while another guest attacks, in instructions.
//!
//! The guests share the driver domain and its processor, so a guest that uses its devices without pause also
//! delays the other one. The reference is such a guest, with as many requests in flight as a driver may have.
//! An attack may cost at most a tenth more than that, in the mean and in the median. The 99th percentile is
//! printed but has no limit: it shows messages on the UART and starts and resets of a device, which ordinary
//! use does not have. Each of these is one short step of the driver domain.
//!
//! Each vCPU has a processor of its own (`sched=null`), so that Xen's scheduler is not measured. QEMU runs
//! the processors in turns, with one clock for all of them. Instructions of the other guest therefore count
//! if they are executed while a transfer waits. For this reason a guest that only computes is no reference:
//! it never waits, and has turns of milliseconds.
//!
//! The transfers read a line of the PL061, which QEMU emulates: no transfer waits for a process of the host.

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
/// The number of rounds: odd, so that the median is one of them.
const ROUNDS: usize = 5;

/// What the other guest does repeatedly: a description, and its command. A command is long, since the
/// requests on the console use time of the common clock.
type Load = (&'static str, &'static [&'static str]);
const NOTHING: Load = ("does nothing", &[]);
const BUSY: Load = ("is busy", &["hostile", "busy", "2000"]);
const ATTACKS: [Load; 6] = [
    ("accesses registers", &["hostile", "registers", "1", "20000"]),
    ("sends chains for I2C", &["hostile", "chains", "i2c", "1", "1000"]),
    ("sends chains for GPIO", &["hostile", "chains", "gpio", "1", "1000"]),
    ("puts rings anywhere (I2C)", &["hostile", "rings", "i2c", "1", "600"]),
    ("puts rings anywhere (GPIO)", &["hostile", "rings", "gpio", "1", "600"]),
    ("kicks", &["hostile", "storm", "1", "20000"]),
];

/// The maximum number of vCPUs that the bare-metal guest uses.
const MANY: u16 = 8;
/// The number of transfers beside that many vCPUs. Fewer, as all processors run in turns on one of the host.
const FEW_TRANSFERS: &str = "100";
const FEW_ROUNDS: usize = 3;
/// The reference for that many vCPUs: it takes longer than the transfers.
const SHORT_BUSY: Load = ("is busy", &["hostile", "busy", "400"]);
/// The attacks on all vCPUs, each with its duration in milliseconds and the limit of the mean and median
/// latency, in tenths of those beside the reference. The kernel limits the rate of kicks. Register reads are
/// answered by the worker, which only the scheduler limits: it gets its share of the processor like other
/// processes.
const FLOODS: [(Load, u64); 2] = [
    (("kicks on eight vCPUs", &["hostile", "kicks", "1000"]), 11),
    (("reads on eight vCPUs", &["hostile", "reads", "1000"]), 30),
];

/// The latency of transfers, in instructions.
#[derive(Clone, Copy, Debug)]
struct Latency {
    mean: u64,
    median: u64,
    p99: u64,
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
            p99: number("p99")? / NANOSECONDS_PER_INSTRUCTION,
        })
    }

    /// Returns whether mean or median exceeds `tenths` tenths of that in `busy`.
    fn is_slower_than(self, busy: Self, tenths: u64) -> bool {
        let pairs = [(self.mean, busy.mean), (self.median, busy.median)];
        pairs.iter().any(|(one, other)| one * 10 > other * tenths)
    }

    fn print(self, name: &str) {
        let Self { mean, median, p99 } = self;
        eprintln!("the other guest {name:26} mean {mean:8} median {median:8} p99 {p99:8}");
    }

    /// Returns the median of each figure over several rounds.
    fn middle(rounds: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> u64| {
            let mut figures: Vec<u64> = rounds.iter().map(figure).collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied().unwrap_or(0)
        };
        Self { mean: middle(|l| l.mean), median: middle(|l| l.median), p99: middle(|l| l.p99) }
    }
}

/// Checks that transfers take at most a tenth longer beside an attack than beside a busy guest.
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

/// Checks the limits of [`FLOODS`], in which the guest kicks or reads registers on all its vCPUs.
pub(crate) fn compare_floods() -> Result<()> {
    let machine = boot("flood", MANY)?;
    let rounds = if is_long() { ROUNDS } else { FEW_ROUNDS };
    measure(&machine, NOTHING, (1, FEW_TRANSFERS))?;
    let busy = beside_all_of(&machine, SHORT_BUSY, rounds)?;
    crate::works(&machine)?;
    let (mark, start) = (machine.console.mark(), Instant::now());
    let before = Census::take(&machine.driver_domain, &machine.console)?;
    let mut slow = Vec::new();
    for (flood, tenths) in FLOODS {
        if beside_all_of(&machine, flood, rounds)?.is_slower_than(busy, tenths) {
            slow.push(flood.0);
        }
    }
    // No watchdog has killed a process, and no process reports a fault.
    crate::works(&machine)?;
    before.require_unchanged(&Census::take(&machine.driver_domain, &machine.console)?)?;
    quiet::check(&machine, mark, start.elapsed())?;
    require_none(&slow)
}

/// Measures and prints the latency of transfers that begin and end while the other guest runs one command.
fn beside_all_of(machine: &Machine, (name, command): Load, rounds: usize) -> Result<Latency> {
    let round = || {
        let mark = machine.console.mark();
        thread::scope(|scope| {
            let other = scope.spawn(|| machine.guest_a.check(command, LIMIT));
            let begins = |line: &Line| line.text.contains("bare: begins").then_some(());
            machine.console.wait(mark, LIMIT, begins)?.context("the other guest has not begun its attack")?;
            let latency = transfers(machine, FEW_TRANSFERS);
            let is_over = other.is_finished();
            let report =
                other.join().map_err(|_| anyhow!("the thread of the other guest has panicked"))??;
            eprintln!("the other guest: {}", report.trim_end());
            ensure!(!is_over, "`{}` ended before the transfers", command.join(" "));
            latency
        })
    };
    let latency = Latency::middle(&(0..rounds).map(|_| round()).collect::<Result<Vec<_>>>()?);
    latency.print(name);
    Ok(latency)
}

fn require_none(slow: &[&str]) -> Result<()> {
    ensure!(
        slow.is_empty(),
        "transfers take too long, compared with those beside a busy guest, if the other guest: {}",
        slow.join(", ")
    );
    Ok(())
}

/// Boots the hostile image with `vcpus` vCPUs of the bare-metal guest, on a board with a processor for each
/// vCPU.
fn boot(run: &str, vcpus: u16) -> Result<Machine> {
    let arguments = ICOUNT.map(str::to_owned).to_vec();
    let place = Place { arguments, ..Place::hostile(run) };
    let place = rebuild(place, run, |manifest, board| {
        let guests = manifest.get_mut("guest").and_then(Value::as_array_mut);
        let hostile = guests.and_then(|guests| guests.first_mut()?.as_table_mut());
        hostile.context("the manifest has no guest")?.insert("vcpus".to_owned(), i64::from(vcpus).into());
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

/// Measures and prints the latency while the other guest runs a command repeatedly. `effort` has the rounds
/// and the transfers in each.
fn measure(machine: &Machine, (name, command): Load, effort: (usize, &str)) -> Result<Latency> {
    let (rounds, count) = effort;
    if !command.is_empty() {
        // The first run causes messages of the driver domain on the UART. Their rate is limited from then on.
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
        other.join().map_err(|_| anyhow!("the thread of the other guest has panicked"))??;
        Ok::<_, anyhow::Error>(Latency::middle(&measured?))
    })?;
    latency.print(name);
    Ok(latency)
}

/// Measures `count` transfers of the well-behaved guest.
fn transfers(machine: &Machine, count: &str) -> Result<Latency> {
    Latency::of(&machine.guest_b.check(&["agent", "time-gpio-get", "gpiochip0", "3", count], LIMIT)?)
}
