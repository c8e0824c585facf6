// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kicks without buffers, by all CPUs at once, of queues that there are and of others, and resets between them.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};

use super::dice::Dice;
use crate::jobs::{self, Job};
use crate::virtio::device::{Device, Kind, REQUIRED};
use crate::virtio::window::{QUEUE_NOTIFY, STATUS};

/// So many kicks, then the devices are reset and started again.
const ROUND: u64 = 500;

pub(super) fn run(job: &Job, seed: u64, count: u64) -> Result<()> {
    let used = Arc::new(AtomicU64::new(0));
    for round in 0..count.div_ceil(ROUND) {
        let mut devices = alloc::vec::Vec::new();
        for kind in Kind::ALL {
            let mut device = Device::find(kind)?;
            device.start(REQUIRED | kind.feature(), 4)?;
            devices.push(device);
        }
        let windows: alloc::vec::Vec<_> = devices.iter().map(|device| device.window).collect();
        let cpus = jobs::on_all_cpus(move |cpu| {
            let mut dice = Dice::new(seed.wrapping_add(round), cpu);
            for _ in 0..ROUND / 2 {
                let Some(window) = windows.get(dice.below(windows.len())) else { return };
                let queue = if dice.one_in(16) { dice.number() } else { dice.pick(&[0, 1]) };
                // The device is there: it was started. Whether it says so, `works` finds out.
                let _ = window.write(QUEUE_NOTIFY, queue);
            }
            // Resets come in the middle of the other CPU's kicks.
            if cpu > 0 && dice.one_in(2) {
                let _ = windows.get(dice.below(windows.len())).map(|window| window.write(STATUS, 0));
            }
        });
        ensure!(cpus == 2, "{cpus} CPUs, there are to be 2");
        let queues = devices.iter().flat_map(|device| &device.queues);
        used.fetch_add(queues.map(|queue| u64::from(queue.ring.used_index())).sum(), Ordering::AcqRel);
    }
    let used = used.load(Ordering::Acquire);
    ensure!(used == 0, "{used} buffers were used, none was offered");
    job.say(format_args!("kicks={count}"));
    Ok(())
}
