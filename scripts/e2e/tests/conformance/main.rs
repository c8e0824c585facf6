// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Conformance tests: a bare-metal guest checks the statements of virtio 1.3 about devices, on the real shim
//! and backends, also with accesses that Linux's drivers do not make. All tests run on one machine that boots
//! once. `scripts/test e2e [NAME]` runs them.
//!
//! The guest has the tests (scripts/e2e/bare/src/conformance). Each is named by its clause of virtio 1.3.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bare::conformance::{FAILED, GROUPS, Group, PASSED};
use e2e::host::machine::{Machine, Place};
use libtest_mimic::{Arguments, Failed, Trial};

/// The limit for the tests of a group.
const LIMIT: Duration = Duration::from_secs(240);

/// The machine, and the guest's results.
struct Run {
    machine: Machine,
    /// The results of each group that has run, by its name, as the guest printed them.
    groups: HashMap<&'static str, String>,
    filter: String,
}

impl Run {
    fn boot(filter: String) -> Result<Self> {
        let machine = Machine::start(&Place::hostile("conformance"))?;
        machine.wait_for_guests()?;
        let found = machine.guest_a.check(&["machine"], LIMIT)?;
        ensure!(found.starts_with("cpus: 2 of 2\n"), "the guest has not started both CPUs: {found}");
        Ok(Self { machine, groups: HashMap::new(), filter })
    }

    /// Returns the result of a test. Runs all selected tests of its group first, unless that has happened.
    ///
    /// # Errors
    /// Returns the reason if the test failed, or if the guest did not report it.
    fn result(&mut self, group: &'static Group, test: &str) -> Result<()> {
        if !self.groups.contains_key(group.name) {
            let command = ["conformance", group.name, &self.filter];
            self.groups.insert(group.name, self.machine.guest_a.check(&command, LIMIT)?);
        }
        let results = self.groups.get(group.name).map(String::as_str).unwrap_or_default();
        for line in results.lines() {
            if line.strip_prefix(PASSED) == Some(test) {
                return Ok(());
            }
            if let Some((name, reason)) = line.strip_prefix(FAILED).and_then(|line| line.split_once(' '))
                && name == test
            {
                bail!("{reason}");
            }
        }
        bail!("the guest did not report this test: {results:?}")
    }
}

/// The run, which the first test starts, or the reason why it did not start.
type Shared = Mutex<OnceLock<Result<Run, String>>>;

fn perform(shared: &Shared, group: &'static Group, test: &str, filter: &str) -> Result<(), Failed> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.get_or_init(|| Run::boot(filter.to_owned()).map_err(|error| format!("{error:#}")));
    let run = shared.get_mut().context("the machine was not started")?;
    let run = run.as_mut().map_err(|error| Failed::from(&*error))?;
    let place = run.machine.directory.display().to_string();
    run.result(group, test).map_err(|error| Failed::from(format!("{error:#}\nlogs in {place}")))
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests share one guest.
    arguments.test_threads = Some(1);
    // The guest filters by this text only. Other options of the command line select among its results here.
    let filter = arguments.filter.clone().unwrap_or_default();
    let shared = Arc::new(Shared::default());
    let trial = |group: &'static Group, test: &'static str| {
        let (shared, filter) = (Arc::clone(&shared), filter.clone());
        Trial::test(test, move || perform(&shared, group, test, &filter))
    };
    let trials = GROUPS.iter().flat_map(|group| group.tests.iter().map(move |test| trial(group, test.name)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Ends QEMU and the simulated hardware before this process.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
