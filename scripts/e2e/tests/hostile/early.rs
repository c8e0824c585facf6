// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest kicks a queue that is not ready, and waits: neither its worker nor a backend has anything to do
//! meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::census::{Process, processes};
use e2e::host::machine::Machine;

use crate::LIMIT;

/// So long the guest waits, with each of its two devices.
const PAUSE: Duration = Duration::from_secs(2);
/// The processor time that all processes together may use of it: a tenth.
const MOST: Duration = Duration::from_millis(400);

pub(crate) fn keeps_nobody_busy(machine: &Machine) -> Result<()> {
    let used = || -> Result<u64> {
        let processes = processes(&machine.driver_domain)?;
        Ok(processes.values().map(|Process { nanoseconds, .. }| nanoseconds).sum())
    };
    let before = used()?;
    machine.guest_a.check(&["hostile", "early", &PAUSE.as_millis().to_string()], LIMIT)?;
    let busy = Duration::from_nanos(used()?.checked_sub(before).context("a process has ended")?);
    eprintln!("the processes were at work for {busy:?} of {:?}", 2 * PAUSE);
    ensure!(busy < MOST, "the processes were at work for {busy:?} of {:?}", 2 * PAUSE);
    crate::works(machine)
}
