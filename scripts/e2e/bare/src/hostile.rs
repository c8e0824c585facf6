// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A hostile guest. Its attacks are random, reproducible by their seed, and end after a given number of
//! attempts.
//!
//! The other half is on the host (scripts/e2e/tests/hostile): it counts the resources that the driver domain
//! uses before and after an attack, and watches a well-behaved guest. Here an attack passes if every access
//! of this guest was answered, and [`works`] shows afterwards that its devices work as before.

mod busy;
mod chains;
mod early;
mod registers;
mod revoked;
mod rings;
mod storm;
mod works;

use core::time::Duration;

use anyhow::{Result, bail};
use storm::Flood;

use crate::jobs::Job;
use crate::number::number;
use crate::virtio::device::Kind;

/// Runs an attack, or the check after it.
///
/// # Errors
/// Returns an error if the command is unknown or fails.
pub fn run(job: &Job, command: &[&str]) -> Result<()> {
    match *command {
        ["registers", seed, count] => registers::run(job, number(seed)?, number(count)?),
        ["rings", kind, seed, count] => rings::run(job, self::kind(kind)?, number(seed)?, number(count)?),
        ["chains", kind, seed, count] => chains::run(job, self::kind(kind)?, number(seed)?, number(count)?),
        ["storm", seed, count] => storm::run(job, number(seed)?, number(count)?),
        ["kicks", time] => storm::flood(job, Flood::Kicks, Duration::from_millis(number(time)?)),
        ["reads", time] => storm::flood(job, Flood::Reads, Duration::from_millis(number(time)?)),
        ["revoked", seed, count] => revoked::run(job, number(seed)?, number(count)?),
        ["early", milliseconds] => early::run(job, Duration::from_millis(number(milliseconds)?)),
        ["busy", rounds] => busy::run(job, number(rounds)?),
        ["works"] => works::run(),
        _ => bail!("unknown attack: {}", command.join(" ")),
    }
}

fn kind(name: &str) -> Result<Kind> {
    match name {
        "i2c" => Ok(Kind::I2c),
        "gpio" => Ok(Kind::Gpio),
        _ => bail!("unknown type of device: {name}"),
    }
}
