// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host can have this guest do, one function for each command.

use alloc::string::ToString;

use anyhow::{Result, bail};

use crate::jobs::{self, Job};
use crate::machine::{self, Width};
use crate::{conformance, hostile, platform, rogue, witness, xen};

/// Runs a command; the first word says which.
///
/// # Errors
/// It failed, or there is none of that name.
pub fn run(job: &Job, command: &[&str]) -> Result<()> {
    match *command {
        ["machine"] => machine(job),
        ["load", address, width] => load(job, number(address)?, width),
        ["conformance", group] => conformance::run(job, group, ""),
        ["conformance", group, filter] => conformance::run(job, group, filter),
        ["hostile", ref attack @ ..] => hostile::run(job, attack),
        ["rogue", ref attack @ ..] => rogue::run(job, attack),
        ["witness", ref command @ ..] => witness::run(job, command),
        ["power-off"] => xen::power_off(),
        ["crash"] => xen::crash(),
        _ => bail!("no command: {}", command.join(" ")),
    }
}

/// Says what there is.
fn machine(job: &Job) -> Result<()> {
    job.say(format_args!("cpus: {} of {}", jobs::on_all_cpus(|_| ()), platform::cpus()));
    job.say(format_args!("bootargs: {}", platform::bootargs()?));
    for window in platform::windows()? {
        let kind = window.read(crate::virtio::window::DEVICE_ID)?;
        job.say(format_args!("virtio: {:#x}, interrupt {}, device {kind}", window.base, window.interrupt));
    }
    Ok(())
}

/// Loads from an address, which may fault.
fn load(job: &Job, address: u64, width: &str) -> Result<()> {
    let found = Width::ALL.into_iter().find(|candidate| candidate.bytes().to_string() == width);
    match found.map(|width| machine::load(address, width)) {
        None => bail!("no width: {width}"),
        Some(Ok(value)) => job.say(format_args!("{value:#x}")),
        Some(Err(abort)) => {
            job.say(format_args!("abort: status {:#x}, address {:#x}", abort.status(), abort.address))
        }
    }
    Ok(())
}

/// A number as it is written in Rust.
///
/// # Errors
/// It is none.
pub fn number(text: &str) -> Result<u64> {
    Ok(match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16)?,
        None => text.parse()?,
    })
}
