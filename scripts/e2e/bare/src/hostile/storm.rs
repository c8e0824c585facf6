// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kicks without buffers by all CPUs at once, of queues that exist and others, with resets in between; or
//! kicks, or reads of a register, without pause.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use anyhow::{Result, ensure};

use crate::clock::Moment;
use crate::cpus;
use crate::jobs::{self, Job};
use crate::platform;
use crate::random::Random;
use crate::virtio::device::{Device, Kind};
use crate::virtio::window::{INTERRUPT_STATUS, QUEUE_NOTIFY, STATUS, Window};

/// The number of kicks after which the devices are reset and started again.
const ROUND: u64 = 500;

pub(super) fn run(job: &Job, seed: u64, count: u64) -> Result<()> {
    let used = Arc::new(AtomicU64::new(0));
    for round in 0..count.div_ceil(ROUND) {
        let devices = started()?;
        let windows: Vec<_> = devices.iter().map(|device| device.window).collect();
        let cpus = cpus::on_all(move |cpu| {
            let mut random = Random::new(seed.wrapping_add(round), cpu);
            for _ in 0..ROUND / 2 {
                let Some(window) = windows.get(random.below(windows.len())) else { return };
                let queue = if random.one_in(16) { random.number() } else { random.pick(&[0, 1]) };
                // The device has started, so the access does not fault; `works` checks the device afterwards.
                let _ = window.write(QUEUE_NOTIFY, queue);
            }
            // A reset during the kicks of the other CPU.
            if cpu > 0 && random.one_in(2) {
                let _ = windows.get(random.below(windows.len())).map(|window| window.write(STATUS, 0));
            }
        });
        require_all(cpus)?;
        let queues = devices.iter().flat_map(|device| &device.queues);
        used.fetch_add(queues.map(|queue| u64::from(queue.ring.used_index())).sum(), Ordering::AcqRel);
    }
    let used = used.load(Ordering::Acquire);
    ensure!(used == 0, "{used} buffers were used, but none was offered");
    job.print(format_args!("kicks={count}"));
    Ok(())
}

/// An access that is repeated without pause.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flood {
    /// Each CPU kicks one queue after another.
    Kicks,
    /// Each CPU reads a register of one device after another.
    Reads,
}

/// Makes all CPUs repeat an access as fast as they can for `time`.
pub(super) fn flood(job: &Job, flood: Flood, time: Duration) -> Result<()> {
    let devices = started()?;
    let queues =
        |device: &Device, kind: Kind| (0..kind.queues()).map(|queue| (device.window, queue)).collect();
    let queues: Vec<Vec<(Window, u32)>> =
        devices.iter().zip(Kind::ALL).map(|(device, kind)| queues(device, kind)).collect();
    let queues = queues.concat();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    jobs::announce_begin();
    let end = Moment::after(time);
    let cpus = cpus::on_all(move |cpu| {
        for &(window, queue) in queues.iter().cycle().skip(cpu) {
            if end.has_come() {
                break;
            }
            let done = match flood {
                Flood::Kicks => window.write(QUEUE_NOTIFY, queue),
                Flood::Reads => window.read(INTERRUPT_STATUS).map(drop),
            };
            // The device has started, so the access does not fault; `works` checks the device afterwards.
            counted.fetch_add(u64::from(done.is_ok()), Ordering::AcqRel);
        }
    });
    require_all(cpus)?;
    job.print(format_args!("accesses={}", count.load(Ordering::Acquire)));
    Ok(())
}

/// Starts both devices.
fn started() -> Result<Vec<Device>> {
    Kind::ALL.into_iter().map(|kind| Device::started(kind, 4)).collect()
}

fn require_all(cpus: usize) -> Result<()> {
    let expected = platform::cpus();
    ensure!(cpus == expected, "{cpus} CPUs run, not {expected}");
    Ok(())
}
