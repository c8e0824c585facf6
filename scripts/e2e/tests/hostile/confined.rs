// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tests of the confinement (xen-frontend-shim/common/confinement/tests/attempts) in the driver domain:
//! the list of system calls depends on the kernel and the architecture.

use anyhow::{Result, ensure};
use e2e::host::machine::Machine;

use crate::LIMIT;

/// Links the programs that the tests start: the driver domain has busybox without links.
const PROGRAMS: &str =
    "mkdir -p /tmp/bin; for name in true mount id grep sleep; do ln -sf /bin/busybox /tmp/bin/$name; done";
/// The begin of the summary if all tests passed.
const PASSED: &str = "test result: ok. ";

pub(crate) fn to_its_role(machine: &Machine) -> Result<()> {
    let attempts = "/usr/bin/attempts --quiet >/tmp/attempts.log 2>&1";
    let script =
        format!("{PROGRAMS}; export PATH=/tmp/bin:$PATH; {attempts} || true; tail -c 4000 /tmp/attempts.log");
    let text = machine.driver_domain.check(&["sh", "-c", &script], LIMIT)?;
    let summary = text.lines().find(|line| line.starts_with(PASSED));
    ensure!(
        summary.is_some_and(|line| line.contains(" 0 failed; 0 ignored;")),
        "tests of the confinement failed: {text}"
    );
    eprintln!("attempts: {}", summary.unwrap_or_default().trim_start_matches(PASSED));
    Ok(())
}
