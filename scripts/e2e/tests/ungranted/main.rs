// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest without grants (`memory-access = "all"`) beside one that grants its pages, on one machine that
//! boots once. `scripts/test e2e [NAME]` runs them.
//!
//! What the drivers of the guest do is in scripts/e2e/bare/src/conformance/rtos.rs. The other tests show that
//! the driver domain maps memory of that guest only, and that the other guest is not affected.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bare::conformance::{FAILED, PASSED, Test, WITHOUT_GRANTS};
use e2e::host::machine::{GUEST_A, GUEST_B, Machine, Place};
use libtest_mimic::{Arguments, Failed, Trial};

/// How long a test may take.
const LIMIT: Duration = Duration::from_secs(240);

/// The first page of a guest's RAM (Xen's public/arch-arm.h, GUEST_RAM0_BASE).
const FIRST_PAGE: &str = "0x40000";

/// Work of the guest that grants its pages.
const WORK: &[&str] = &["agent", "i2c-stress", "0", "0x68", "0x10", "8", "50"];

/// The machine, booted when the first test needs it, or why it did not boot.
type Shared = Mutex<OnceLock<Result<Machine, String>>>;

type Perform = fn(&Machine) -> Result<()>;

fn boot() -> Result<Machine> {
    let machine = Machine::start(&Place::ungranted("ungranted"))?;
    machine.wait_for_guests()?;
    Ok(machine)
}

/// Runs a test of the guest while the other guest works.
fn conform(machine: &Machine, test: &Test) -> Result<()> {
    let work = machine.guest_b.start(WORK)?;
    let said = machine.guest_a.check(&["conformance", WITHOUT_GRANTS.name, test.name], LIMIT)?;
    let worked = work.look_until(LIMIT, |_| false)?;
    let passed = said.lines().any(|line| line.strip_prefix(PASSED) == Some(test.name));
    if !passed {
        bail!("{}", said.strip_prefix(FAILED).unwrap_or(&said));
    }
    let text = worked.text();
    ensure!(text.contains(" errors=0 differences=0 "), "the guest with grants: {text}");
    Ok(())
}

/// The driver domain's root, which has every right that the policy leaves.
fn driver_domain_maps_one_guest(machine: &Machine) -> Result<()> {
    let map = |domain: u16, first: &str, count: &str| {
        let domain = domain.to_string();
        machine.driver_domain.check(&["agent", "map-foreign", &domain, first, count], LIMIT)
    };
    let own = map(GUEST_A, FIRST_PAGE, "8")?;
    ensure!(own.starts_with("mapped=8 refused=0 "), "pages of the guest without grants: {own}");
    let other = map(GUEST_B, FIRST_PAGE, "8")?;
    ensure!(other.starts_with("mapped=0 refused=8 "), "pages of the guest with grants: {other}");
    ensure!(other.contains("Permission denied"), "{other}");
    Ok(())
}

/// Prints number and user of each backend.
const BACKENDS: &str = r#"
for process in /proc/[0-9]*; do
    [ "$(readlink $process/exe)" = /usr/bin/backend ] || continue
    echo "${process#/proc/} $(awk '/^Uid:/ { print $2 }' $process/status)"
done 2>/dev/null"#;

/// The numbers of the backends of each guest, by its domid.
fn backends(machine: &Machine) -> Result<BTreeMap<u16, Vec<String>>> {
    let text = machine.driver_domain.check(&["sh", "-c", BACKENDS], LIMIT)?;
    let mut found: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let (number, user) = line.split_once(' ').with_context(|| line.to_owned())?;
        let domid = user.parse::<u16>()?.checked_sub(10000).with_context(|| line.to_owned())?;
        found.entry(domid).or_default().push(number.to_owned());
    }
    ensure!(found.values().map(Vec::len).eq([2, 2]), "two backends of each guest: {text}");
    Ok(found)
}

/// What each backend can do with its descriptors of `/dev/xen`, as its user and without its list of system
/// calls: that of the guest without grants maps pages of this guest only.
fn backends_reach_their_guest(machine: &Machine) -> Result<()> {
    let domains = [GUEST_A, GUEST_B].map(|domain| domain.to_string());
    let [first, second] = &domains;
    for (domid, processes) in backends(machine)? {
        for process in processes {
            let text = machine.driver_domain.check(&["agent", "borrow", &process, first, second], LIMIT)?;
            // A backend has a duplicate of the descriptor for each region of memory.
            let done: BTreeSet<_> = text.lines().filter_map(|line| line.strip_suffix(": done")).collect();
            let expected: &[&str] = if domid == GUEST_A {
                &["2 call", "2 map-foreign"]
            } else {
                &["3 copy-from", "3 copy-to", "3 map", "3 restrict"]
            };
            ensure!(done.iter().eq(expected), "a backend of domain {domid} has done {done:?}: {text}");
            let restricted = ["3 map-foreign: refused: ", "2 map: refused: "];
            let refused = text.lines().find(|line| restricted.iter().any(|start| line.starts_with(start)));
            let refused = refused.with_context(|| text.clone())?;
            ensure!(refused.contains("Operation not permitted"), "not by the restriction: {refused}");
        }
    }
    Ok(())
}

/// Prints what is left of the driver domain's memory. Linux keeps the page structures of foreign mappings.
fn driver_domain_has_memory_left(machine: &Machine) -> Result<()> {
    let command = "grep -E '^(MemTotal|MemAvailable):' /proc/meminfo";
    let text = machine.driver_domain.check(&["sh", "-c", command], LIMIT)?;
    let number = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let [total, available] = text.lines().filter_map(number).collect::<Vec<_>>()[..] else { bail!("{text}") };
    eprintln!("memory of the driver domain: {available} KiB of {total} KiB are available");
    ensure!(available > total / 4, "{text}");
    Ok(())
}

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
    let guest = WITHOUT_GRANTS.tests.iter().map(|test| {
        let shared = Arc::clone(&shared);
        Trial::test(test.name, move || trial(&shared, |machine| conform(machine, test)))
    });
    let others: [(_, Perform); 3] = [
        ("driver-domain-maps-memory-of-one-guest-only", driver_domain_maps_one_guest),
        ("a-backend-maps-memory-of-its-guest-only", backends_reach_their_guest),
        ("driver-domain-has-memory-left", driver_domain_has_memory_left),
    ];
    let others = others.map(|(name, run)| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || trial(&shared, run))
    });
    let conclusion = libtest_mimic::run(&arguments, guest.chain(others).collect());
    // `exit` would leave QEMU and the hardware running.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
