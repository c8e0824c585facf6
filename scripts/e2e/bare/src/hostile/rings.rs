// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Rings anywhere: addresses that wrap, that no grant is behind, that are not aligned, that lie in each other; sizes
//! that no ring has. Another CPU does to the device what comes to its mind meanwhile.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

use super::dice::{Dice, Pool};
use crate::jobs::{self, Job};
use crate::virtio::device::{ACKNOWLEDGE, DRIVER, DRIVER_OK, Device, FEATURES_OK, Kind, REQUIRED};
use crate::virtio::window::{
    CONFIG, INTERRUPT_ACK, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_READY, QUEUE_RESET,
    QUEUE_SEL, QUEUE_SIZE, STATUS, Window,
};

/// Sizes of rings, most of which are none.
const SIZES: [u32; 12] = [0, 1, 2, 3, 16, 64, 255, 256, 257, 32768, 65535, 0xffff_ffff];

/// All bits of a driver that is done.
const RUNNING: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

pub(super) fn run(job: &Job, kind: Kind, seed: u64, count: u64) -> Result<()> {
    let device = Device::find(kind)?;
    let (window, pool) = (device.window, Arc::new(Pool::new()?));
    let result = Arc::new((AtomicBool::new(false), spin::Mutex::new(Ok(0))));
    let (shared, outcome) = ((spin::Mutex::new(Some(device)), pool), Arc::clone(&result));
    let cpus = jobs::on_all_cpus(move |cpu| {
        let mut dice = Dice::new(seed, cpu);
        if cpu > 0 {
            while !outcome.0.load(Ordering::Acquire) {
                disturb(&mut dice, window);
            }
            return;
        }
        if let Some(mut device) = shared.0.lock().take() {
            *outcome.1.lock() = attack(&mut dice, &mut device, &shared.1, count);
        }
        outcome.0.store(true, Ordering::Release);
    });
    ensure!(cpus == 2, "{cpus} CPUs, there are to be 2");
    let started = core::mem::replace(&mut *result.1.lock(), Ok(0))?;
    job.say(format_args!("rings={count} started={started}"));
    Ok(())
}

/// Starts the device again and again with other rings; returns how often it let itself be started.
fn attack(dice: &mut Dice, device: &mut Device, pool: &Pool, count: u64) -> Result<u64> {
    let mut started = 0;
    for _ in 0..count {
        // The other CPU may have reset it since: that is no error here.
        device.agree(REQUIRED | kind_feature(dice))?;
        for number in 0..2 {
            let size = dice.pick(&SIZES);
            let first = pool.any(dice);
            let mut address = || match dice.below(4) {
                // All three in one place.
                0 => first,
                1 => pool.good(dice),
                _ => pool.any(dice),
            };
            let addresses = [address(), address(), address()];
            announce(device.window, number, size, addresses)?;
        }
        let status = device.advance(DRIVER_OK)?;
        started += u64::from(status & RUNNING == RUNNING);
        device.window.write(QUEUE_NOTIFY, 0)?;
        device.window.write(QUEUE_NOTIFY, 1)?;
        device.reset()?;
    }
    Ok(started)
}

fn kind_feature(dice: &mut Dice) -> u64 {
    u64::from(dice.pick(&[0_u32, 1, 1]))
}

/// Tells the device of a ring, whatever it thinks of it.
pub(super) fn announce(window: Window, number: u32, size: u32, addresses: [u64; 3]) -> Result<()> {
    window.write(QUEUE_SEL, number)?;
    window.write(QUEUE_SIZE, size)?;
    for (register, address) in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(addresses) {
        window.write_wide(register, address)?;
    }
    window.write(QUEUE_READY, 1)
}

/// Something that the other CPU does to a device while this one drives it.
pub(super) fn disturb(dice: &mut Dice, window: Window) {
    // What becomes of it is of no interest, as long as it comes back.
    let _ = match dice.below(16) {
        0 => window.write(STATUS, 0),
        1 => window.write(STATUS, dice.number()),
        2 => window.write(QUEUE_SEL, dice.number()),
        3 => window.write(QUEUE_RESET, 1),
        4 => window.write(QUEUE_READY, dice.pick(&[0, 1, 2])),
        5 => window.write(INTERRUPT_ACK, dice.number()),
        6 => window.write(QUEUE_SIZE, dice.pick(&SIZES)),
        7 => window.read(CONFIG).map(drop),
        8..12 => window.read(STATUS).map(drop),
        _ => window.write(QUEUE_NOTIFY, dice.pick(&[0, 1, 2, 0xffff, 0xffff_ffff])),
    };
}
