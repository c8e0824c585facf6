// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest kicks a queue that is not ready, and waits. Its worker and its backends use nearly no processor
//! time meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::census::{Process, processes};
use e2e::host::machine::Machine;

use crate::LIMIT;

/// How long the guest waits, for each of its two devices.
const PAUSE: Duration = Duration::from_secs(2);
/// The maximum of the processor time of all processes in that time: a tenth.
const MOST: Duration = Duration::from_millis(400);

pub(crate) fn kick_uses_no_processor_time(machine: &Machine) -> Result<()> {
    let used = || -> Result<u64> {
        let processes = processes(&machine.driver_domain)?;
        Ok(processes.values().map(|Process { nanoseconds, .. }| nanoseconds).sum())
    };
    let before = used()?;
    machine.guest_a.check(&["hostile", "early", &PAUSE.as_millis().to_string()], LIMIT)?;
    let busy = Duration::from_nanos(used()?.checked_sub(before).context("a process has ended")?);
    eprintln!("the processes used {busy:?} of {:?}", 2 * PAUSE);
    ensure!(busy < MOST, "the processes used {busy:?} of {:?}", 2 * PAUSE);
    crate::works(machine)
}
