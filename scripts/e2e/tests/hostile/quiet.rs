// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The messages that an attack of a guest may cause, and how many. Xen may report that it refuses grants and
//! the shim that it refuses rings, but at a limited rate: all domains wait for the UART.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::host::console::{Line, Party};
use e2e::host::machine::{DRIVER_DOMAIN, Machine};

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

/// A process says the same so often at once, and then once in so many seconds
/// (xen-frontend-shim/common/logging). The driver domain's clock is never ahead of ours.
const BURST: u64 = 10;
const PERIOD: u64 = 10;

/// Whether a line is the beginning of a message of the shim or of a backend. That messages were left out is
/// said for each place in the source, in the same words.
fn is_message(line: &Line) -> bool {
    let leads = ["ERROR ", "WARN ", "INFO "].iter().any(|level| line.text.starts_with(level));
    line.from == Party::Domain(DRIVER_DOMAIN) && leads && !line.text.contains("messages like the next one")
}

/// Fails if the driver domain has said the same again and again in this time, but for what differs in
/// numbers.
fn check_repetitions(console: &[Line], elapsed: Duration) -> Result<()> {
    let mut repeated = BTreeMap::<String, u64>::new();
    for line in console.iter().filter(|line| is_message(line)) {
        let words = line.text.chars().filter(|character| !character.is_ascii_hexdigit()).collect();
        *repeated.entry(words).or_default() += 1;
    }
    let most = BURST + elapsed.as_secs() / PERIOD + 1;
    for (words, times) in repeated {
        ensure!(times <= most, "{times} times, {most} at most in {elapsed:?}: {words}");
    }
    Ok(())
}

/// Fails if the console since `mark`, or the log of one of the two kernels, has a fault or too many messages
/// for the time.
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
    ensure!(complaints.is_empty(), "complaints: {}", complaints.join("\n"));
    Ok(())
}
