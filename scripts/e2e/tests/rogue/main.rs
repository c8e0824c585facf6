// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attacks of a driver domain that was taken over. In place of the driver domain, with its label and its
//! hardware, Xen boots a program that makes each hypercall about each domain and tries known attacks
//! (scripts/e2e/bare/src/rogue). All tests run on one machine that boots once. `scripts/test e2e rogue` runs
//! them.
//!
//! A test passes if two guests, which check their own memory all the time, found no change and were not
//! stopped, if the rogue has not seen the secret of a guest, if Xen answers, and if exactly the calls
//! succeeded that `successes.toml` lists.
//!
//! `XBA_LONG=1` makes a hundred thousand random calls. `XBA_SEED=N` selects other random calls.

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

/// The limit for one command.
const LIMIT: Duration = Duration::from_secs(60);
/// The number of random calls in one command.
const CALLS: u64 = 1000;
/// The number of commands in the normal run, and in the long run.
const COMMANDS: [u64; 2] = [5, 100];

/// The machine with its guests.
struct Run {
    machine: Machine,
    guests: Guests,
    /// The report of the calls that started the guests.
    first: Report,
}

/// The run, which the first test starts, or the reason why it did not start.
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

/// Maps, reads and writes a granted page. This shows that other attempts fail because Xen refuses them.
fn maps_what_is_granted(run: &Run) -> Result<()> {
    Report::parse(&rogue(&run.machine, &["control"])?)?.require_unseen()?;
    run.guests.require_unharmed(&run.machine)?;
    run.guests.require_answered(&run.machine)
}

/// Makes each call about each domain, and each known attack: exactly the listed ones succeed.
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

/// Returns all errors in one, not only the first: the consequences of a successful attack are of interest
/// too.
fn all(results: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let errors: Vec<String> =
        results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(())
}

/// Makes random calls: only listed ones succeed.
fn does_no_more_at_random(run: &Run) -> Result<()> {
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
    eprintln!("random calls: {} in {:.0} s", report.text(), start.elapsed().as_secs_f64());
    report.require_unseen()?;
    Successes::read()?.require_no_other(&report)
}

/// Checks that Xen answers, and that no domain is paused or being destroyed.
fn xen_lives(machine: &Machine) -> Result<()> {
    let domains = machine.ask_xen(b'q')?;
    let paused: BTreeSet<&str> =
        domains.lines().filter_map(|line| line.split_once("pause_count=")).map(|(_, count)| count).collect();
    ensure!(domains.contains("General information for domain 3"), "Xen does not list domain 3: {domains}");
    let is_dying = domains.contains("dying=1") || domains.contains("dying=2");
    ensure!(!is_dying, "a domain is being destroyed: {domains}");
    ensure!(paused.iter().all(|count| count.starts_with('0')), "a domain is paused: {domains}");
    Ok(())
}

/// The function of a test.
type Perform = fn(&Run) -> Result<()>;

fn trial(shared: &Shared, perform: Perform) -> Result<(), Failed> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.get_or_init(|| boot().map_err(|error| format!("{error:#}")));
    let run = shared.get_mut().context("the machine was not started")?;
    let run = run.as_mut().map_err(|error| Failed::from(&*error))?;
    let done = perform(run).and_then(|()| xen_lives(&run.machine));
    run.machine.split_log()?;
    let place = run.machine.directory.display().to_string();
    done.map_err(|error| Failed::from(format!("{error:#}\nlogs in {place}")))
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests share one machine.
    arguments.test_threads = Some(1);
    let shared = Arc::new(Shared::default());
    let tests: [(_, Perform); 3] = [
        ("rogue-driver-domain-maps-what-is-granted", maps_what_is_granted),
        ("rogue-driver-domain-does-what-is-listed", does_what_is_listed),
        ("rogue-driver-domain-does-no-more-at-random", does_no_more_at_random),
    ];
    let trials = tests.map(|(name, perform)| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || trial(&shared, perform))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().collect());
    // Ends QEMU and the simulated hardware before this process.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
