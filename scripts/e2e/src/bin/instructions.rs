// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a transfer costs, in instructions: `cargo run -p e2e --bin instructions [IMAGE]`, IMAGE being `target/demo` or
//! another image of the demo's manifest with an agent that knows `time-i2c`.
//!
//! QEMU counts instructions in place of time: with `-icount shift=1` each one takes two nanoseconds, whichever of the
//! machine's processors executes it, so a busy host changes nothing. The first column is the median of the latencies
//! that guest-a sees: all that its kernel, Xen, the driver domain's kernel and the daemons execute for one transfer. A
//! transfer is one thing after the other, so hardly anything is executed at the same time that is not of it; the median
//! leaves out those that a timer has interrupted.
//!
//! The I2C bus is on the host. While a transfer is on it nobody executes anything, and the clock goes on with the
//! host's: then there is no such figure. In its place stands that of a transfer to an address that the guest may not
//! reach. It takes the same way through guest, Xen and daemon, and back, only the bus is left out. (QEMU's option
//! `sleep=off` would let the clock jump to the next timer instead: by minutes, if the host is slow. Whoever limits a
//! wait takes that for a hang.) The GPIO transfers are to the PL061, which QEMU emulates by itself: nobody waits.
//!
//! The other columns are the processor time of the driver domain's daemons, by the clock of each process, which stands
//! still while a process waits: what our own code and its system calls cost.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::census::processes;
use e2e::host::machine::{ICOUNT, Machine, NANOSECONDS_PER_INSTRUCTION, Place};

const LIMIT: Duration = Duration::from_secs(300);
const TRANSFERS: u64 = 1000;
const ROUNDS: usize = 3;

/// A transfer to measure.
struct Measurement {
    name: &'static str,
    /// The agent's command, without the number of transfers.
    command: &'static str,
    /// What all of them end with.
    errors: u64,
    /// Whether it waits for the host.
    waits: bool,
}

const MEASUREMENTS: [Measurement; 4] = [
    Measurement {
        name: "I2C register read (write 1, read 2)",
        command: "time-i2c 0 0x48 0 2",
        errors: 0,
        waits: true,
    },
    Measurement {
        name: "the same, refused before the bus",
        command: "time-i2c 0 0x22 0 2",
        errors: TRANSFERS,
        waits: false,
    },
    Measurement { name: "GPIO get", command: "time-gpio-get gpiochip0 2", errors: 0, waits: false },
    Measurement { name: "GPIO set", command: "time-gpio-set gpiochip0 2", errors: 0, waits: false },
];

/// What one transfer costs, in instructions.
#[derive(Clone, Copy)]
struct Cost {
    median: u64,
    backend: u64,
    shim: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut place = Place::in_checkout("instructions");
    if let Some(image) = env::args().nth(1) {
        place.image = PathBuf::from(image);
    }
    place.arguments = ICOUNT.map(str::to_owned).to_vec();
    let machine = Machine::start(&place)?;
    machine.wait_for_guests()?;
    println!("{:36} {:>9} {:>9} {:>9}  rounds", "instructions per transfer", "in all", "backend", "shim");
    for measurement in &MEASUREMENTS {
        let mut costs = (0..ROUNDS).map(|_| measure(&machine, measurement)).collect::<Result<Vec<_>>>()?;
        costs.sort_by_key(|cost| cost.backend);
        let cost = costs.get(ROUNDS / 2).context("no round")?;
        let all = |cost: &Cost| if measurement.waits { "-".to_owned() } else { cost.median.to_string() };
        let rounds: Vec<String> =
            costs.iter().map(|cost| format!("{}/{}", all(cost), cost.backend)).collect();
        let (all, rounds) = (all(cost), rounds.join(" "));
        println!("{:36} {all:>9} {:9} {:9}  {rounds}", measurement.name, cost.backend, cost.shim);
    }
    Ok(())
}

fn measure(machine: &Machine, measurement: &Measurement) -> Result<Cost> {
    let count = TRANSFERS.to_string();
    let words = measurement.command.split(' ');
    let command: Vec<&str> = ["agent"].into_iter().chain(words).chain([count.as_str()]).collect();
    let before = processes(&machine.driver_domain)?;
    let text = machine.guest_a.check(&command, LIMIT)?;
    let after = processes(&machine.driver_domain)?;
    let expected = format!(" errors={} ", measurement.errors);
    ensure!(text.contains(&expected), "{}: {text}", command.join(" "));
    let median = text.split(' ').find_map(|pair| pair.strip_prefix("median=")?.parse::<u64>().ok());
    let used_by = |program: &str| {
        let own = after.values().filter(|process| process.program == program);
        let used =
            own.filter_map(|process| Some(process.nanoseconds - before.get(&process.pid)?.nanoseconds));
        used.sum::<u64>() / TRANSFERS / NANOSECONDS_PER_INSTRUCTION
    };
    Ok(Cost {
        median: median.context("the agent gives no median")? / NANOSECONDS_PER_INSTRUCTION,
        backend: used_by("backend"),
        shim: used_by("xen-frontend-shim"),
    })
}
