// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Grants that are revoked during a request. The host slows the bus down meanwhile, so that the request takes
//! long enough.

use alloc::vec::Vec;
use core::time::Duration;

use anyhow::{Result, ensure};

use super::works::{EEPROM, QUEUE_SIZE};
use crate::clock::Moment;
use crate::grants::Granted;
use crate::interrupts;
use crate::jobs::Job;
use crate::random::Random;
use crate::virtio::device::{Device, Kind};
use crate::virtio::i2c;
use crate::virtio::queue::{Buffer, Queue};

/// The maximum time in milliseconds before grants are revoked. The device has not read the chain yet, or the
/// request is on the bus.
const MAX_DELAY: usize = 60;
/// The number of pages with buffers. The other pages are the ring.
const BUFFERS: usize = 3;

/// The state of the device when grants were revoked.
#[derive(Default)]
struct Found {
    in_flight: u64,
    rings_in_use: u64,
}

pub(super) fn run(job: &Job, seed: u64, count: u64) -> Result<()> {
    let mut random = Random::new(seed, 0);
    let mut found = Found::default();
    for round in 0..count {
        let mut device = Device::started(Kind::I2c, QUEUE_SIZE)?;
        let buffers = [Granted::new()?, Granted::new()?, Granted::new()?];
        let queue = device.queue(0)?;
        offer(queue, &buffers, random.one_in(2))?;
        queue.kick()?;
        let delay = Duration::from_millis(u64::try_from(random.below(MAX_DELAY))?);
        interrupts::wait(Some(Moment::after(delay)), || false);
        revoke(queue, &buffers, usize::try_from(round)?, &mut found);
        device.reset()?;
        ensure!(!buffers.iter().any(Granted::is_in_use), "round {round}: a buffer is in use after a reset");
    }
    let Found { in_flight, rings_in_use } = found;
    job.print(format_args!("revoked={count} in-flight={in_flight} rings-in-use={rings_in_use}"));
    Ok(())
}

/// Offers a message with header, data and status each in their own page.
fn offer(queue: &mut Queue, buffers: &[Granted; BUFFERS], is_read: bool) -> Result<()> {
    let [header, data, status] = buffers;
    header.page().write(0, &i2c::header(EEPROM, if is_read { i2c::READ } else { 0 }));
    let chain = [
        Buffer::within(header, 0, 8, false)?,
        Buffer::within(data, 0, 2, is_read)?,
        Buffer::within(status, 0, 1, true)?,
    ];
    queue.offer(&chain).map(drop)
}

/// Revokes the grant of one page of request or ring, another one each round, and of all pages every seventh
/// round.
fn revoke(queue: &Queue, buffers: &[Granted; BUFFERS], round: usize, found: &mut Found) {
    let ring = &queue.ring;
    let pages: Vec<&Granted> =
        buffers.iter().chain([&ring.descriptors, &ring.available, &ring.used]).collect();
    let chosen = round % (pages.len() + 1);
    for (number, page) in pages.iter().enumerate() {
        if chosen == number || chosen == pages.len() {
            if number < BUFFERS {
                // The device copies buffers and does not map them: a chain that is not used yet is in flight.
                found.in_flight += u64::from(!ring.has_used());
            } else {
                found.rings_in_use += u64::from(page.is_in_use());
            }
            page.revoke();
        }
    }
}
