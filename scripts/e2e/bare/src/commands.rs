// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The commands that the host can request.

use alloc::string::ToString;

use anyhow::{Result, bail};

use crate::jobs::Job;
use crate::machine::{self, Width};
use crate::number::number;
use crate::virtio::window::{DEVICE_ID, Window};
use crate::{conformance, cpus, hostile, platform, rogue, witness, xen};

/// Runs the command that the first word names.
///
/// # Errors
/// Returns an error if the command is unknown or fails.
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
        _ => bail!("unknown command: {}", command.join(" ")),
    }
}

/// Prints the CPUs, the boot arguments and the virtio devices.
fn machine(job: &Job) -> Result<()> {
    job.print(format_args!("cpus: {} of {}", cpus::on_all(|_| ()), platform::cpus()));
    job.print(format_args!("bootargs: {}", platform::bootargs()?));
    for window in Window::all()? {
        let kind = window.read(DEVICE_ID)?;
        job.print(format_args!("virtio: {:#x}, interrupt {}, device {kind}", window.base, window.interrupt));
    }
    Ok(())
}

/// Loads from an address and prints the value or the abort.
fn load(job: &Job, address: u64, width: &str) -> Result<()> {
    let found = Width::ALL.into_iter().find(|candidate| candidate.bytes().to_string() == width);
    match found.map(|width| machine::load(address, width)) {
        None => bail!("invalid width: {width}"),
        Some(Ok(value)) => job.print(format_args!("{value:#x}")),
        Some(Err(abort)) => {
            job.print(format_args!("abort: status {:#x}, address {:#x}", abort.status(), abort.address))
        }
    }
    Ok(())
}
