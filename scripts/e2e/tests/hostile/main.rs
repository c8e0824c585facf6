// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attacks of a guest on its devices. The bare-metal guest makes them (scripts/e2e/bare/src/hostile), each is
//! a test here, and most run on one machine that boots once. `scripts/test e2e [NAME]` runs them.
//!
//! An attack passes if each access of the guest was answered, its devices work afterwards, the driver domain
//! has the same processes and resources as before, no kernel and no program reports a fault, and the guest
//! beside it used its devices all the time without an error.
//!
//! `XBA_LONG=1` runs more than a million register accesses and a hundred thousand chains, and compares
//! latencies. `XBA_SEED=N` selects other random attacks.

mod attack;
mod confined;
mod crowd;
mod early;
mod latency;
mod neighbour;
mod quiet;
mod reload;
#[path = "../shared/mod.rs"]
mod shared;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use attack::{ATTACKS, Attack};
use e2e::host::census::Census;
use e2e::host::machine::{ICOUNT, Machine, Place};
use libtest_mimic::{Arguments, Failed, Trial};

/// The limit for each command but the attacks.
const LIMIT: Duration = Duration::from_secs(60);

/// The machine, which the first test boots, or the reason why it did not boot.
type Shared = Mutex<OnceLock<Result<Machine, String>>>;

fn boot() -> Result<Machine> {
    // With a clock that counts instructions, QEMU switches between the processors at events instead of every
    // 100 ms. An attack that uses two of them takes a tenth of the time, and is reproducible.
    let arguments = ICOUNT.map(str::to_owned).to_vec();
    let machine = Machine::start(&Place { arguments, ..Place::hostile("hostile") })?;
    machine.wait_for_guests()?;
    // The first use of a device allocates resources that stay.
    works(&machine)?;
    Ok(machine)
}

/// Checks that all CPUs of the bare-metal guest answer and that its devices work.
fn works(machine: &Machine) -> Result<()> {
    let done = machine.guest_a.check(&["hostile", "works"], LIMIT);
    done.map(drop).context("the devices of the hostile guest do not work any more")
}

fn perform(machine: &Machine, attack: &Attack) -> Result<()> {
    let (mark, start) = (machine.console.mark(), Instant::now());
    let mut before = Census::take(&machine.driver_domain, &machine.console)?;
    let at_quarter = || {
        before.take_memory_of(&Census::take(&machine.driver_domain, &machine.console)?);
        Ok(())
    };
    neighbour::beside(&machine.guest_b, || attack.run(machine, at_quarter))?;
    works(machine)?;
    let after = Census::take(&machine.driver_domain, &machine.console)?;
    before.require_unchanged(&after)?;
    quiet::check(machine, mark, start.elapsed())
}

/// The function of a test.
type Perform = fn(&Machine) -> Result<()>;

fn trial(shared: &Shared, perform: impl FnOnce(&Machine) -> Result<()>) -> Result<(), Failed> {
    let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = shared.get_or_init(|| boot().map_err(|error| format!("{error:#}")));
    let machine = machine.as_ref().map_err(Failed::from)?;
    let done = perform(machine);
    machine.split_log()?;
    done.map_err(|error| Failed::from(format!("{error:#}\n{}", machine.post_mortem())))
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests share one machine.
    arguments.test_threads = Some(1);
    let shared = Arc::new(Shared::default());
    let attacks = ATTACKS.iter().map(|attack| {
        let shared = Arc::clone(&shared);
        Trial::test(attack.name, move || trial(&shared, |machine| perform(machine, attack)))
    });
    let others: [(_, Perform); 3] = [
        ("each-process-is-confined-to-its-role", confined::to_its_role),
        ("an-early-kick-uses-no-processor-time", early::kick_uses_no_processor_time),
        ("a-reload-restores-a-removed-device", reload::removed_device_is_restored),
    ];
    let others = others.map(|(name, run)| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || trial(&shared, run))
    });
    // These boot machines of their own, which end before the shared machine boots.
    let latency = Trial::test("latency-beside-a-hostile-guest", || {
        latency::compare().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let latency = latency.with_ignored_flag(!shared::is_long());
    let crowd = Trial::test("a-guest-with-eleven-adapters-has-one-turn", || {
        crowd::has_one_turn().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let flood = Trial::test("flood-from-eight-vcpus", || {
        latency::compare_floods().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let apart = [latency, crowd, flood].into_iter();
    let conclusion = libtest_mimic::run(&arguments, apart.chain(others).chain(attacks).collect());
    // Ends QEMU and the simulated hardware before this process.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
