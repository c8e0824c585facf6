// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that means harm. All that it does is random, and the same again for the same seed; all of it ends
//! after a number of attempts that is given.
//!
//! The other half is the host's (scripts/e2e/tests/hostile): it counts what the driver domain holds before
//! and after, and watches a well-behaved guest beside this one. Here an attack passes if this guest got an
//! answer to every access, and [`works`] says afterwards that its devices serve it as if nothing had been.

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

/// Runs an attack, or what is between two.
///
/// # Errors
/// It failed, or there is none of that name.
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
        _ => bail!("no attack: {}", command.join(" ")),
    }
}

fn kind(name: &str) -> Result<Kind> {
    match name {
        "i2c" => Ok(Kind::I2c),
        "gpio" => Ok(Kind::Gpio),
        _ => bail!("no kind of device: {name}"),
    }
}
