// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Conformance: what virtio 1.3 asks of a device, each test named by its clause.
//!
//! They run against the real shim and daemons, one after the other, each from a reset on and back to it.
//! Where the specification binds the driver alone, the test is what a device must survive: the access is
//! answered, nothing happens, and the device can be driven as before.

mod case;
mod devices;
mod features;
mod gpio;
mod gpio_interrupts;
mod i2c;
mod queues;
mod registers;
mod status;

use anyhow::{Context, Result};
pub use case::Test;

use crate::jobs::Job;
use crate::uart;

/// Tests that are run in one go, since every request takes its time on the way to the guest.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What they are about.
    pub name: &'static str,
    /// The tests, in the order in which they are run.
    pub tests: &'static [Test],
}

/// All tests.
pub const GROUPS: &[Group] = &[
    Group { name: "registers", tests: registers::TESTS },
    Group { name: "status", tests: status::TESTS },
    Group { name: "features", tests: features::TESTS },
    Group { name: "queues", tests: queues::TESTS },
    Group { name: "i2c", tests: i2c::TESTS },
    Group { name: "gpio", tests: gpio::TESTS },
    Group { name: "irq", tests: gpio_interrupts::TESTS },
];

/// What stands before the name of a test that passed, and of one that failed, with the reason behind the
/// name.
pub const PASSED: &str = "passed ";
/// See [`PASSED`].
pub const FAILED: &str = "failed ";

/// Runs a group, or only the tests of it with `filter` in their names, and says of each how it ended.
///
/// # Errors
/// There is no group of that name.
pub fn run(job: &Job, group: &str, filter: &str) -> Result<()> {
    let group = GROUPS.iter().find(|candidate| candidate.name == group).context("no group has this name")?;
    for test in group.tests.iter().filter(|test| test.name.contains(filter)) {
        // The console's log shows the test in which a guest hangs or crashes.
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
    fn each_test_has_a_name_of_its_own() {
        let names = super::GROUPS.iter().flat_map(|group| group.tests).map(|test| test.name);
        assert_eq!(names.clone().collect::<BTreeSet<_>>().len(), names.count());
    }
}
