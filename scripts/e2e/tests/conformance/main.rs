// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Conformance: what virtio asks of devices, tried on the real shim and daemons by a guest that has no
//! operating system and does what Linux never does. All on one machine that boots once. `scripts/test e2e
//! [NAME]` runs them.
//!
//! The tests are the guest's (scripts/e2e/bare/src/conformance), each named by its clause of virtio 1.3.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bare::conformance::{FAILED, GROUPS, Group, PASSED};
use e2e::host::machine::{Machine, Place};
use libtest_mimic::{Arguments, Failed, Trial};

/// How long the tests of a group may take.
const LIMIT: Duration = Duration::from_secs(240);

/// The machine, and what the guest has said of its tests.
struct Run {
    machine: Machine,
    /// By the name of the group, what it printed.
    groups: HashMap<&'static str, String>,
    filter: String,
}

impl Run {
    fn boot(filter: String) -> Result<Self> {
        let machine = Machine::start(&Place::hostile("conformance"))?;
        machine.wait_for_guests()?;
        let found = machine.guest_a.check(&["machine"], LIMIT)?;
        ensure!(found.starts_with("cpus: 2 of 2\n"), "the guest has found {found}");
        Ok(Self { machine, groups: HashMap::new(), filter })
    }

    /// How a test ended. The first one of a group has all of them run that are wanted.
    fn result(&mut self, group: &'static Group, test: &str) -> Result<()> {
        if !self.groups.contains_key(group.name) {
            let command = ["conformance", group.name, &self.filter];
            self.groups.insert(group.name, self.machine.guest_a.check(&command, LIMIT)?);
        }
        let said = self.groups.get(group.name).map(String::as_str).unwrap_or_default();
        for line in said.lines() {
            if line.strip_prefix(PASSED) == Some(test) {
                return Ok(());
            }
            if let Some((name, reason)) = line.strip_prefix(FAILED).and_then(|line| line.split_once(' '))
                && name == test
            {
                bail!("{reason}");
            }
        }
        bail!("the guest says nothing of it, but {said:?}")
    }
}

/// The run, which begins when the first test needs it, or why it did not.
type Shared = Mutex<OnceLock<Result<Run, String>>>;

fn perform(shared: &Shared, group: &'static Group, test: &str, filter: &str) -> Result<(), Failed> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.get_or_init(|| Run::boot(filter.to_owned()).map_err(|error| format!("{error:#}")));
    let run = shared.get_mut().context("nothing runs")?;
    let run = run.as_mut().map_err(|error| Failed::from(&*error))?;
    let place = run.machine.directory.display().to_string();
    run.result(group, test).map_err(|error| Failed::from(format!("{error:#}\nlogs in {place}")))
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one guest.
    arguments.test_threads = Some(1);
    // One that is part of the names asked for is enough of a filter: the others are passed over here.
    let filter = arguments.filter.clone().unwrap_or_default();
    let shared = Arc::new(Shared::default());
    let trial = |group: &'static Group, test: &'static str| {
        let (shared, filter) = (Arc::clone(&shared), filter.clone());
        Trial::test(test, move || perform(&shared, group, test, &filter))
    };
    let trials = GROUPS.iter().flat_map(|group| group.tests.iter().map(move |test| trial(group, test.name)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // `exit` would leave QEMU and the hardware running.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
