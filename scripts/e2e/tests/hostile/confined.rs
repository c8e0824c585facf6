// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The test of what each process may do (xen-frontend-shim/common/confinement/tests/attempts), on the kernel
//! and the processor that it is about: a list of system calls is another one on each.

use anyhow::{Result, ensure};
use e2e::host::machine::Machine;

use crate::LIMIT;

/// What it starts as the supervisor does, where busybox has no names of its own.
const PROGRAMS: &str =
    "mkdir -p /tmp/bin; for name in true mount id grep sleep; do ln -sf /bin/busybox /tmp/bin/$name; done";
/// Its summary when all is well.
const PASSED: &str = "test result: ok. ";

pub(crate) fn to_its_role(machine: &Machine) -> Result<()> {
    let attempts = "/usr/bin/attempts --quiet >/tmp/attempts.log 2>&1";
    let script =
        format!("{PROGRAMS}; export PATH=/tmp/bin:$PATH; {attempts} || true; tail -c 4000 /tmp/attempts.log");
    let text = machine.driver_domain.check(&["sh", "-c", &script], LIMIT)?;
    let summary = text.lines().find(|line| line.starts_with(PASSED));
    ensure!(summary.is_some_and(|line| line.contains(" 0 failed; 0 ignored;")), "{text}");
    eprintln!("attempts: {}", summary.unwrap_or_default().trim_start_matches(PASSED));
    Ok(())
}
