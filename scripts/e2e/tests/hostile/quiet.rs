// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What must not be said while a guest means harm. That Xen refuses its grants and the shim its rings may be.

use anyhow::{Result, ensure};
use e2e::host::machine::Machine;

use crate::LIMIT;

/// What Xen, Linux and Rust say when they themselves are in trouble.
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
    "panicked at",
    "device is broken",
    "segfault",
    "Out of memory",
    "unbalanced",
];

/// Fails if somebody has complained on the console since `mark`, or in the log of one of the two kernels.
pub(crate) fn check(machine: &Machine, mark: usize) -> Result<()> {
    let console = machine.console.since(mark);
    let mut lines: Vec<String> = console.into_iter().map(|line| line.text).collect();
    for channel in [&machine.driver_domain, &machine.guest_b] {
        let log = channel.check(&["sh", "-c", "dmesg"], LIMIT)?;
        lines.extend(log.lines().map(str::to_owned));
    }
    let complains = |line: &&String| COMPLAINTS.iter().any(|complaint| line.contains(complaint));
    let complaints: Vec<&str> = lines.iter().filter(complains).map(String::as_str).collect();
    ensure!(complaints.is_empty(), "complaints: {}", complaints.join("\n"));
    Ok(())
}
