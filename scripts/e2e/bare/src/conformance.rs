// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Conformance tests: the requirements of virtio 1.3 on a device. Each test is named after its clause.
//!
//! The tests run against the real shim and backends, one after the other. Each begins and ends with a reset.
//! Where the specification has a requirement on the driver only, the test violates it and checks the device:
//! the access is answered, it has no effect, and the device works as before.

mod case;
mod devices;
mod features;
mod gpio;
mod gpio_interrupts;
mod i2c;
mod queues;
mod registers;
mod rtos;
mod status;

use anyhow::{Context, Result};
pub use case::Test;

use crate::jobs::Job;
use crate::uart;

/// Tests that one request of the host runs: each request takes time on the console.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The subject of the tests.
    pub name: &'static str,
    /// The tests, in the order in which they run.
    pub tests: &'static [Test],
}

/// All groups.
pub const GROUPS: &[Group] = &[
    Group { name: "registers", tests: registers::TESTS },
    Group { name: "status", tests: status::TESTS },
    Group { name: "features", tests: features::TESTS },
    Group { name: "queues", tests: queues::TESTS },
    Group { name: "i2c", tests: i2c::TESTS },
    Group { name: "gpio", tests: gpio::TESTS },
    Group { name: "irq", tests: gpio_interrupts::TESTS },
];

/// The tests of a guest without grants, which run on an image of their own.
pub const WITHOUT_GRANTS: Group = Group { name: "rtos", tests: rtos::TESTS };

/// The word before the name of a test that passed.
pub const PASSED: &str = "passed ";
/// The word before the name of a test that failed. The reason follows the name.
pub const FAILED: &str = "failed ";

/// Runs the tests of a group whose names contain `filter`, and prints the result of each.
///
/// # Errors
/// Returns an error if no group has the name `group`.
pub fn run(job: &Job, group: &str, filter: &str) -> Result<()> {
    let mut groups = GROUPS.iter().chain([&WITHOUT_GRANTS]);
    let group = groups.find(|candidate| candidate.name == group).context("unknown group of tests")?;
    for test in group.tests.iter().filter(|test| test.name.contains(filter)) {
        // If a guest hangs or crashes, the log of the console ends with the test that ran.
        uart::print(format_args!("conformance: {}\n", test.name));
        match (test.run)() {
            Ok(()) => job.print(format_args!("{PASSED}{}", test.name)),
            Err(error) => job.print(format_args!("{FAILED}{} {error:#}", test.name)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    #[test]
    fn names_of_tests_are_unique() {
        let names = super::GROUPS
            .iter()
            .chain([&super::WITHOUT_GRANTS])
            .flat_map(|group| group.tests)
            .map(|test| test.name);
        assert_eq!(names.clone().collect::<BTreeSet<_>>().len(), names.count());
    }
}
