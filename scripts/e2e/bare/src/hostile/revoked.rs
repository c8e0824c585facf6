// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Grants that are revoked while a transfer uses them. The host delays the bus meanwhile, so that there is time.

use core::time::Duration;

use anyhow::{Result, ensure};

use super::chains::i2c_header;
use super::dice::Dice;
use super::works::EEPROM;
use crate::clock::Moment;
use crate::grants::Granted;
use crate::interrupts;
use crate::jobs::Job;
use crate::virtio::device::{Device, Kind, REQUIRED};
use crate::virtio::queue::Buffer;

/// So long the device has before the grants go: now it has not seen the chain yet, now it is on the bus with it.
const MOST: usize = 60;
/// How many of the pages are buffers of the request; the others are its ring.
const BUFFERS: usize = 3;

pub(super) fn run(job: &Job, seed: u64, count: u64) -> Result<()> {
    let mut dice = Dice::new(seed, 0);
    let (mut in_flight, mut rings) = (0, 0);
    for round in 0..count {
        let mut device = Device::find(Kind::I2c)?;
        device.start(REQUIRED | Kind::I2c.feature(), 16)?;
        let (header, bytes, status) = (Granted::new()?, Granted::new()?, Granted::new()?);
        let is_read = dice.one_in(2);
        header.page().write(0, &i2c_header(EEPROM, is_read));
        let part =
            |page: &Granted, length, is_written| Buffer { address: page.address(0), length, is_written };
        let queue = device.queue(0)?;
        queue.offer(&[part(&header, 8, false), part(&bytes, 2, is_read), part(&status, 1, true)])?;
        queue.kick()?;
        let pause = Duration::from_millis(u64::try_from(dice.below(MOST))?);
        interrupts::wait(Some(Moment::after(pause)), || false);
        // Each page in turn, and at last all of them.
        let ring = &queue.ring;
        let pages = [&header, &bytes, &status, &ring.descriptors, &ring.available, &ring.used];
        let turn = usize::try_from(round)? % (pages.len() + 1);
        for (number, page) in pages.iter().enumerate() {
            if turn == number || turn == pages.len() {
                // Buffers are copied: what shows is that the device has the chain, or is about to.
                match number < BUFFERS {
                    true => in_flight += u64::from(!ring.has_used()),
                    false => rings += u64::from(page.is_in_use()),
                }
                page.revoke();
            }
        }
        device.reset()?;
        for page in [header, bytes, status] {
            ensure!(!page.is_in_use(), "round {round}: a buffer is in use after a reset");
        }
    }
    job.say(format_args!("revoked={count} in-flight={in_flight} rings-in-use={rings}"));
    Ok(())
}
