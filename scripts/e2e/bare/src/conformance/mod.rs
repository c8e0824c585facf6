// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Conformance: what virtio 1.3 asks of a device, each test named by its clause.
//!
//! They run against the real shim and daemons, one after the other, each from a reset on and back to it. Where the
//! specification binds the driver alone, the test is what a device must survive: the access is answered, nothing
//! happens, and the device can be driven as before.

mod features;
mod gpio;
mod gpio_interrupts;
mod i2c;
mod queues;
mod registers;
mod status;

use alloc::vec::Vec;

use anyhow::{Context, Result};

use crate::console;
use crate::grants::Granted;
use crate::jobs::Job;
use crate::virtio::device::{Device, Kind};
use crate::virtio::queue::Buffer;

/// A test: it passes if it has no error. There is no space in its name.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// The clause, and what of it.
    pub name: &'static str,
    run: fn() -> Result<()>,
}

const fn test(name: &'static str, run: fn() -> Result<()>) -> Test {
    Test { name, run }
}

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

/// What stands before the name of a test that passed, and of one that failed, with the reason behind the name.
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
        // For whoever reads the console's log, if this is the last that the guest does.
        console::print(format_args!("conformance: {}\n", test.name));
        match (test.run)() {
            Ok(()) => job.say(format_args!("{PASSED}{}", test.name)),
            Err(error) => job.say(format_args!("{FAILED}{} {error:#}", test.name)),
        }
    }
    Ok(())
}

/// Tries the same with a device of each kind, from a reset on, and makes sure that it can be driven after it.
fn each(attempt: impl Fn(&mut Device) -> Result<()>) -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        attempt(&mut device).with_context(|| alloc::format!("{kind:?}"))?;
        device.reset()?;
        works(&mut device, kind).with_context(|| alloc::format!("{kind:?}, driven as usual after it"))?;
    }
    Ok(())
}

/// Drives the device as a driver does: one request, and its answer.
fn works(device: &mut Device, kind: Kind) -> Result<()> {
    match kind {
        Kind::I2c => i2c::works(device),
        Kind::Gpio => gpio::works(device),
    }
}

/// Offers requests that change nothing, without a kick; returns the pages that they are in.
fn offer_many(device: &mut Device, kind: Kind, count: usize) -> Result<Vec<Granted>> {
    let mut pages = Vec::new();
    for _ in 0..count {
        let page = Granted::new()?;
        let chain = match kind {
            Kind::I2c => i2c::harmless(page)?,
            Kind::Gpio => gpio::harmless(page)?,
        };
        device.queue(0)?.offer(&chain.buffers)?;
        pages.push(chain.page);
    }
    Ok(pages)
}

/// A request in a page.
struct Chain {
    page: Granted,
    buffers: Vec<Buffer>,
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
