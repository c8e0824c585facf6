// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much longer the well-behaved guest waits for a transfer while the other one attacks, in instructions.
//!
//! Guests share the driver domain, and with it its processor: one that only uses its devices as much as it can makes the
//! others wait, too. Compared is therefore with a guest that does just that, with as many requests in flight as a driver
//! may have. An attack must not cost the others more than ten per cent above it, in the mean and in the median. (The 99th
//! percentile is told and not judged: it is that of messages on the UART, and of starts and resets of a device, which
//! orderly use does not have. Each is one step of the driver domain's, and is soon over.)
//!
//! Each vCPU has a processor of its own (`sched=null`), lest Xen's scheduler be what is measured. QEMU lets the processors
//! take turns and has one clock for all of them: what the other guest executes counts, too, if anything of it runs while a
//! transfer waits. That is why a guest that only computes is no measure: it waits for nobody, and has turns of
//! milliseconds.
//!
//! The transfers are reads of a line of the PL061, which QEMU emulates by itself: nobody waits for the host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use e2e::host::machine::{ICOUNT, Machine, NANOSECONDS_PER_INSTRUCTION, Place};
use toml::Value;

use crate::shared::{rebuild, section};

const LIMIT: Duration = Duration::from_secs(600);
const TRANSFERS: &str = "300";
/// Odd, for there is a middle one then.
const ROUNDS: usize = 5;

/// What the other guest does meanwhile, again and again, but not too often: the console over which it is told is on all
/// processors' clock.
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

/// Fails if an attack makes a transfer of the other guest take longer than a tenth above what a busy guest does.
pub(crate) fn compare() -> Result<()> {
    let place = place()?;
    let machine = Machine::start(&place)?;
    machine.wait_for_guests()?;
    measure(&machine, NOTHING, 1)?;
    let busy = measure(&machine, BUSY, ROUNDS)?;
    let mut slow = Vec::new();
    for attack in ATTACKS {
        let attacked = measure(&machine, attack, ROUNDS)?;
        let pairs = [(attacked.mean, busy.mean), (attacked.median, busy.median)];
        if pairs.iter().any(|(attacked, busy)| attacked * 10 > busy * 11) {
            slow.push(attack.0);
        }
    }
    ensure!(slow.is_empty(), "more than a tenth slower than beside a busy guest: {}", slow.join(", "));
    Ok(())
}

/// The hostile image, on a board with a processor for each vCPU.
fn place() -> Result<Place> {
    let arguments = ICOUNT.map(str::to_owned).to_vec();
    let place = Place { arguments, ..Place::hostile("latency") };
    rebuild(place, "latency", |_, board| {
        section(board, "machine")?.insert("cpus".to_owned(), 5.into());
        let xen = section(board, "xen")?;
        let arguments = xen.get("bootargs").and_then(Value::as_str).unwrap_or_default();
        let arguments = format!("{arguments} sched=null vwfi=native");
        xen.insert("bootargs".to_owned(), arguments.into());
        Ok(())
    })
}

/// The latency while the other guest does something, which is told.
fn measure(machine: &Machine, (name, command): Doing, rounds: usize) -> Result<Latency> {
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
        let round = || {
            let timed = ["agent", "time-gpio-get", "gpiochip0", "3", TRANSFERS];
            Latency::of(&machine.guest_b.check(&timed, LIMIT)?)
        };
        let measured: Result<Vec<Latency>> = (0..rounds).map(|_| round()).collect();
        over.store(true, Ordering::Release);
        other.join().map_err(|_| anyhow!("a panic"))??;
        Ok::<_, anyhow::Error>(Latency::middle(&measured?))
    })?;
    let Latency { mean, median, late } = latency;
    eprintln!("the other guest {name:26} mean {mean:8} median {median:8} p99 {late:8}");
    Ok(latency)
}
