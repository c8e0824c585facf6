// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The messages that an attack of a guest may cause, and how many. Xen may report that it refuses grants and
//! the shim that it refuses rings, but at a limited rate: all domains wait for the UART.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::host::console::{Line, Party};
use e2e::host::machine::{DRIVER_DOMAIN, Machine};

use crate::LIMIT;

/// Text of messages by which Xen, Linux and Rust report faults of their own.
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

/// How many equal messages a process may print at once (xen-frontend-shim/common/logging).
const BURST: u64 = 10;
/// The period in seconds in which a process may print one more. The driver domain's clock is not ahead of the
/// host's.
const PERIOD: u64 = 10;

/// Returns whether a line begins a message of the shim or of a backend. Does not count the messages about
/// omitted messages, which are equal for all places in the source.
fn is_message(line: &Line) -> bool {
    let leads = ["ERROR ", "WARN ", "INFO "].iter().any(|level| line.text.starts_with(level));
    line.from == Party::Domain(DRIVER_DOMAIN) && leads && !line.text.contains("messages like the next one")
}

/// Checks the number of equal messages of the driver domain in this time. Messages that differ in hexadecimal
/// digits only count as equal.
fn check_repetitions(console: &[Line], elapsed: Duration) -> Result<()> {
    let mut repeated = BTreeMap::<String, u64>::new();
    for line in console.iter().filter(|line| is_message(line)) {
        let words = line.text.chars().filter(|character| !character.is_ascii_hexdigit()).collect();
        *repeated.entry(words).or_default() += 1;
    }
    let most = BURST + elapsed.as_secs() / PERIOD + 1;
    for (words, times) in repeated {
        ensure!(times <= most, "{times} times, at most {most} in {elapsed:?}: {words}");
    }
    Ok(())
}

/// Checks that the console since `mark` and the logs of the two kernels have no fault, and that no message is
/// repeated too often for the time.
pub(crate) fn check(machine: &Machine, mark: usize, elapsed: Duration) -> Result<()> {
    let console = machine.console.since(mark);
    check_repetitions(&console, elapsed)?;
    let mut lines: Vec<String> = console.into_iter().map(|line| line.text).collect();
    for channel in [&machine.driver_domain, &machine.guest_b] {
        let log = channel.check(&["sh", "-c", "dmesg"], LIMIT)?;
        lines.extend(log.lines().map(str::to_owned));
    }
    let complains = |line: &&String| COMPLAINTS.iter().any(|complaint| line.contains(complaint));
    let complaints: Vec<&str> = lines.iter().filter(complains).map(String::as_str).collect();
    ensure!(complaints.is_empty(), "reported faults: {}", complaints.join("\n"));
    Ok(())
}
