// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver domain that was taken over: in its place, with its label and its hardware, Xen boots a program
//! that makes every hypercall at every domain and tries what is known to have worked somewhere
//! (scripts/e2e/bare/src/rogue). All on one machine that boots once. `scripts/test e2e rogue` runs it.
//!
//! A test passes if two guests, which watch their own memory all the while, have found nothing changed and
//! have been held up by nothing, if the rogue has seen the secret of neither, if Xen answers, and if what
//! succeeded is what `successes.toml` lists.
//!
//! `XBA_LONG=1` makes a hundred thousand calls by chance; `XBA_SEED=N` makes others.

mod guests;
mod successes;

use std::collections::BTreeSet;
use std::env;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::host::machine::{GUEST_A, GUEST_B, Machine, Place};
use guests::Guests;
use libtest_mimic::{Arguments, Failed, Trial};
use successes::{Report, Successes};

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// So many calls by chance are made by one command, and so many commands there are, and in the long run.
const CALLS: u64 = 1000;
const COMMANDS: [u64; 2] = [5, 100];

/// The machine, and what is watched on it.
struct Run {
    machine: Machine,
    guests: Guests,
    /// What has succeeded while the machine came up.
    first: Report,
}

/// The run, which begins when the first test needs it, or why it did not.
type Shared = Mutex<OnceLock<Result<Run, String>>>;

fn boot() -> Result<Run> {
    let machine = Machine::start(&Place::rogue("rogue"))?;
    let mut first = Report::default();
    for guest in [GUEST_A, GUEST_B] {
        first.add(&rogue(&machine, &["unpause", &guest.to_string()])?)?;
    }
    let guests = Guests::guard(&machine, seed())?;
    Ok(Run { machine, guests, first })
}

fn seed() -> u64 {
    env::var("XBA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn rogue(machine: &Machine, command: &[&str]) -> Result<String> {
    machine.driver_domain.check(&[&["rogue"], command].concat(), LIMIT)
}

/// A page that is granted is mapped, read and written: what is refused below is refused for a reason.
fn maps_what_is_granted(run: &Run) -> Result<()> {
    Report::parse(&rogue(&run.machine, &["control"])?)?.require_unseen()?;
    run.guests.require_unharmed(&run.machine)?;
    run.guests.require_answered(&run.machine)
}

/// Every call at every domain, and every attack by name: exactly what is listed succeeds.
fn does_what_is_listed(run: &Run) -> Result<()> {
    let mut report = run.first.clone();
    for command in ["control", "every", "attacks"] {
        let start = Instant::now();
        let part = Report::parse(&rogue(&run.machine, &[command])?)?;
        eprintln!("{command}: {} in {:.0} s", part.text(), start.elapsed().as_secs_f64());
        report.merge(&part);
    }
    all([
        report.require_unseen(),
        run.guests.require_unharmed(&run.machine),
        Successes::read()?.require(&report),
    ])
}

/// All that went wrong, not only the first of it: who has found a way in wants to know what it leads to.
fn all(results: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let errors: Vec<String> =
        results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(())
}

/// Calls by chance: nothing succeeds that is not listed.
fn does_no_more_by_chance(run: &Run) -> Result<()> {
    let [short, long] = COMMANDS;
    let commands = if env::var_os("XBA_LONG").is_some() { long } else { short };
    let (mut report, start) = (Report::default(), Instant::now());
    for number in 0..commands {
        let seed = seed().wrapping_add(number).to_string();
        let text = rogue(&run.machine, &["chance", &seed, &CALLS.to_string()]);
        report.add(&text.with_context(|| format!("the calls of seed {seed}"))?)?;
        run.guests
            .require_unharmed(&run.machine)
            .with_context(|| format!("after the calls of seed {seed}"))?;
    }
    eprintln!("by chance: {} in {:.0} s", report.text(), start.elapsed().as_secs_f64());
    report.require_unseen()?;
    Successes::read()?.require_no_other(&report)
}

/// Xen answers, and both guests run and are not paused.
fn xen_lives(machine: &Machine) -> Result<()> {
    let said = machine.ask_xen(b'q')?;
    let paused: BTreeSet<&str> =
        said.lines().filter_map(|line| line.split_once("pause_count=")).map(|(_, count)| count).collect();
    ensure!(said.contains("General information for domain 3"), "Xen says of its domains: {said}");
    ensure!(!said.contains("dying=1") && !said.contains("dying=2"), "a domain is being destroyed: {said}");
    ensure!(paused.iter().all(|count| count.starts_with('0')), "a domain is paused: {said}");
    Ok(())
}

/// What a test does.
type Perform = fn(&Run) -> Result<()>;

fn trial(shared: &Shared, perform: Perform) -> Result<(), Failed> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.get_or_init(|| boot().map_err(|error| format!("{error:#}")));
    let run = shared.get_mut().context("nothing runs")?;
    let run = run.as_mut().map_err(|error| Failed::from(&*error))?;
    let done = perform(run).and_then(|()| xen_lives(&run.machine));
    run.machine.split_log()?;
    let place = run.machine.directory.display().to_string();
    done.map_err(|error| Failed::from(format!("{error:#}\nlogs in {place}")))
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one machine.
    arguments.test_threads = Some(1);
    let shared = Arc::new(Shared::default());
    let tests: [(_, Perform); 3] = [
        ("rogue-driver-domain-maps-what-is-granted", maps_what_is_granted),
        ("rogue-driver-domain-does-what-is-listed", does_what_is_listed),
        ("rogue-driver-domain-does-no-more-by-chance", does_no_more_by_chance),
    ];
    let trials = tests.map(|(name, perform)| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || trial(&shared, perform))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().collect());
    // `exit` would leave QEMU and the hardware running.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
