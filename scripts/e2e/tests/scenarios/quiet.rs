// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks for error messages of Xen, the kernels, the shim and the backends.

use anyhow::{Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::console::Line;
use e2e::host::machine::Machine;

use crate::LIMIT;

/// Text of messages by which Xen, Linux and Rust report faults.
const COMPLAINTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "Kernel panic",
    "Call trace",
    "Call Trace",
    "rcu_sched",
    "hung task",
    "Assertion",
    "avc:  denied",
    "panicked at",
    "device is broken",
    "g.e. 0x",
    "deferring",
    "still in use",
    "Bad grant",
    "unbalanced",
    "segfault",
];

/// The warnings of Xen at each boot: about the synchronous console, which is complete, and about SILO mode,
/// in place of which FLASK separates the domains.
const AT_BOOT: &[&str] = &["WARNING: CONSOLE OUTPUT IS SYNCHRONOUS", "WARNING: SILO mode is not enabled"];

/// Returns the line if it reports a fault that is not expected.
fn complaint<'a>(text: &'a str, expected: &[&str]) -> Option<&'a str> {
    let complains = COMPLAINTS.iter().any(|complaint| text.contains(complaint));
    (complains && !expected.iter().any(|expected| text.contains(expected))).then_some(text)
}

/// Checks that no line of the console reports a fault.
pub(crate) fn check(lines: &[Line], expected: &[&str]) -> Result<()> {
    let complaints: Vec<&str> = lines.iter().filter_map(|line| complaint(&line.text, expected)).collect();
    ensure!(complaints.is_empty(), "faults reported on the console: {}", complaints.join("\n"));
    Ok(())
}

/// Checks that the log of a domain's kernel reports no fault. (Lines of the console can be damaged.)
pub(crate) fn kernel_reports_no_fault(channel: &Channel) -> Result<()> {
    let log = channel.check(&["sh", "-c", "dmesg"], LIMIT)?;
    ensure!(log.lines().count() > 10, "there is no kernel log");
    let complaints: Vec<&str> = log.lines().filter_map(|line| complaint(line, &[])).collect();
    ensure!(complaints.is_empty(), "faults reported in a kernel's log: {}", complaints.join("\n"));
    Ok(())
}

pub(crate) fn kernels_report_no_fault(machine: &Machine) -> Result<()> {
    [&machine.driver_domain, &machine.guest_a, &machine.guest_b]
        .into_iter()
        .try_for_each(kernel_reports_no_fault)?;
    let unpaused = |line: &&Line| !line.text.contains("unpaused");
    let boot: Vec<Line> = machine.console.since(0).iter().take_while(unpaused).cloned().collect();
    check(&boot, AT_BOOT)
}
