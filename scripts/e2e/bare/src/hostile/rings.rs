// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Invalid rings: addresses that wrap, that are not granted, not aligned, or overlap; invalid sizes. Another
//! CPU accesses the device at random meanwhile.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

use crate::cpus;
use crate::jobs::Job;
use crate::random::{Pool, Random};
use crate::virtio::device::{ACKNOWLEDGE, DRIVER, DRIVER_OK, Device, FEATURES_OK, Kind, REQUIRED};
use crate::virtio::window::{
    CONFIG, INTERRUPT_ACK, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_READY, QUEUE_RESET,
    QUEUE_SEL, QUEUE_SIZE, STATUS, Window,
};

/// Sizes of rings, most of them invalid.
const SIZES: [u32; 12] = [0, 1, 2, 3, 16, 64, 255, 256, 257, 32768, 65535, 0xffff_ffff];

/// Status of a device that is in use.
const RUNNING: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

pub(super) fn run(job: &Job, kind: Kind, seed: u64, count: u64) -> Result<()> {
    let device = Device::find(kind)?;
    let (window, pool) = (device.window, Arc::new(Pool::new()?));
    let result = Arc::new((AtomicBool::new(false), spin::Mutex::new(Ok(0))));
    let (shared, outcome) = ((spin::Mutex::new(Some(device)), pool), Arc::clone(&result));
    let cpus = cpus::on_all(move |cpu| {
        let mut random = Random::new(seed, cpu);
        if cpu > 0 {
            while !outcome.0.load(Ordering::Acquire) {
                disturb(&mut random, window);
            }
            return;
        }
        if let Some(mut device) = shared.0.lock().take() {
            *outcome.1.lock() = attack(&mut random, &mut device, &shared.1, count);
        }
        outcome.0.store(true, Ordering::Release);
    });
    ensure!(cpus == 2, "{cpus} CPUs run, not 2");
    let started = core::mem::replace(&mut *result.1.lock(), Ok(0))?;
    job.print(format_args!("rings={count} started={started}"));
    Ok(())
}

/// Starts the device repeatedly with other rings. Returns how often it has started.
fn attack(random: &mut Random, device: &mut Device, pool: &Pool, count: u64) -> Result<u64> {
    let mut started = 0;
    for _ in 0..count {
        // The other CPU may reset the device meanwhile. That is no error.
        device.agree(REQUIRED | kind_feature(random))?;
        for number in 0..2 {
            let size = random.pick(&SIZES);
            let first = pool.any(random);
            let mut address = || match random.below(4) {
                // All three at the same address.
                0 => first,
                1 => pool.good(random),
                _ => pool.any(random),
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

fn kind_feature(random: &mut Random) -> u64 {
    u64::from(random.pick(&[0_u32, 1, 1]))
}

/// Writes the registers of a queue without any check.
pub(super) fn announce(window: Window, number: u32, size: u32, addresses: [u64; 3]) -> Result<()> {
    window.write(QUEUE_SEL, number)?;
    window.write(QUEUE_SIZE, size)?;
    for (register, address) in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(addresses) {
        window.write_wide(register, address)?;
    }
    window.write(QUEUE_READY, 1)
}

/// Accesses a device at random while another CPU drives it.
pub(super) fn disturb(random: &mut Random, window: Window) {
    // The result does not matter: the access was answered.
    let _ = match random.below(16) {
        0 => window.write(STATUS, 0),
        1 => window.write(STATUS, random.number()),
        2 => window.write(QUEUE_SEL, random.number()),
        3 => window.write(QUEUE_RESET, 1),
        4 => window.write(QUEUE_READY, random.pick(&[0, 1, 2])),
        5 => window.write(INTERRUPT_ACK, random.number()),
        6 => window.write(QUEUE_SIZE, random.pick(&SIZES)),
        7 => window.read(CONFIG).map(drop),
        8..12 => window.read(STATUS).map(drop),
        _ => window.write(QUEUE_NOTIFY, random.pick(&[0, 1, 2, 0xffff, 0xffff_ffff])),
    };
}
