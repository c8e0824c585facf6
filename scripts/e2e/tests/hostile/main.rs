// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that means harm: what it does is in scripts/e2e/bare/src/hostile, each attack a test here, all on
//! one machine that boots once. `scripts/test e2e [NAME]` runs them.
//!
//! An attack passes if the guest got an answer to every access, its devices work afterwards, the driver
//! domain has the processes and resources that it had, no kernel and no program reports a fault, and the
//! guest beside it, which worked all the time, saw no error.
//!
//! `XBA_LONG=1` runs more than a million register accesses and a hundred thousand chains, and compares
//! latencies; `XBA_SEED=N` makes other attacks.

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

/// How long anything may take that is no attack.
const LIMIT: Duration = Duration::from_secs(60);

/// The machine, booted when the first test needs it, or why it did not boot.
type Shared = Mutex<OnceLock<Result<Machine, String>>>;

fn boot() -> Result<Machine> {
    // With a clock that counts instructions QEMU changes between the processors when something happens, and
    // not every 100 ms: an attack on both of them takes a tenth of the time, and is the same again.
    let arguments = ICOUNT.map(str::to_owned).to_vec();
    let machine = Machine::start(&Place { arguments, ..Place::hostile("hostile") })?;
    machine.wait_for_guests()?;
    // What the first use of a device leaves behind is no leak.
    works(&machine)?;
    Ok(machine)
}

/// All CPUs of the bare guest answer, and its devices do what they are to do.
fn works(machine: &Machine) -> Result<()> {
    let done = machine.guest_a.check(&["hostile", "works"], LIMIT);
    done.map(drop).context("the devices of the hostile guest do not work any more")
}

fn perform(machine: &Machine, attack: &Attack) -> Result<()> {
    let (mark, start) = (machine.console.mark(), Instant::now());
    let before = Census::take(&machine.driver_domain, &machine.console)?;
    neighbour::beside(&machine.guest_b, || attack.run(machine))?;
    works(machine)?;
    let after = Census::take(&machine.driver_domain, &machine.console)?;
    before.require_unchanged(&after)?;
    quiet::check(machine, mark, start.elapsed())
}

/// What a test does.
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
    // They share one machine.
    arguments.test_threads = Some(1);
    let shared = Arc::new(Shared::default());
    let attacks = ATTACKS.iter().map(|attack| {
        let shared = Arc::clone(&shared);
        Trial::test(attack.name, move || trial(&shared, |machine| perform(machine, attack)))
    });
    let others: [(_, Perform); 3] = [
        ("each-process-is-confined-to-its-role", confined::to_its_role),
        ("a-kick-that-is-early-keeps-nobody-busy", early::keeps_nobody_busy),
        ("a-device-comes-back-by-a-reload", reload::a_device_comes_back),
    ];
    let others = others.map(|(name, run)| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || trial(&shared, run))
    });
    // On machines of their own, which are gone when the others boot.
    let latency = Trial::test("latency-beside-a-hostile-guest", || {
        latency::compare().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let latency = latency.with_ignored_flag(!shared::is_long());
    let crowd = Trial::test("a-guest-with-eleven-adapters-has-one-turn", || {
        crowd::has_one_turn().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let flood = Trial::test("eight-vcpus-without-end", || {
        latency::compare_floods().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let apart = [latency, crowd, flood].into_iter();
    let conclusion = libtest_mimic::run(&arguments, apart.chain(others).chain(attacks).collect());
    // `exit` would leave QEMU and the hardware running.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
