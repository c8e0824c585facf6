// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! No messages of errors: from Xen, the kernels, the shim and the backends.

use anyhow::{Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::console::Line;
use e2e::host::machine::Machine;

use crate::LIMIT;

/// What Xen, Linux and Rust say when something went wrong.
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

/// What Xen warns of at every boot: the console is to be complete, and separating domains is FLASK's business
/// here.
const AT_BOOT: &[&str] = &["WARNING: CONSOLE OUTPUT IS SYNCHRONOUS", "WARNING: SILO mode is not enabled"];

fn complaint<'a>(text: &'a str, expected: &[&str]) -> Option<&'a str> {
    let complains = COMPLAINTS.iter().any(|complaint| text.contains(complaint));
    (complains && !expected.iter().any(|expected| text.contains(expected))).then_some(text)
}

/// Fails if the console says that something went wrong.
pub(crate) fn check(lines: &[Line], expected: &[&str]) -> Result<()> {
    let complaints: Vec<&str> = lines.iter().filter_map(|line| complaint(&line.text, expected)).collect();
    ensure!(complaints.is_empty(), "complaints on the console: {}", complaints.join("\n"));
    Ok(())
}

/// Fails if the log of a domain's kernel has a complaint. (Lines of the console can be damaged.)
pub(crate) fn kernel_did_not_complain(channel: &Channel) -> Result<()> {
    let log = channel.check(&["sh", "-c", "dmesg"], LIMIT)?;
    ensure!(log.lines().count() > 10, "there is no kernel log");
    let complaints: Vec<&str> = log.lines().filter_map(|line| complaint(line, &[])).collect();
    ensure!(complaints.is_empty(), "complaints in a kernel's log: {}", complaints.join("\n"));
    Ok(())
}

pub(crate) fn kernels_did_not_complain(machine: &Machine) -> Result<()> {
    [&machine.driver_domain, &machine.guest_a, &machine.guest_b]
        .into_iter()
        .try_for_each(kernel_did_not_complain)?;
    let unpaused = |line: &&Line| !line.text.contains("unpaused");
    let boot: Vec<Line> = machine.console.since(0).iter().take_while(unpaused).cloned().collect();
    check(&boot, AT_BOOT)
}
