// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Invalid chains: loops, overlaps, wrong lengths and flags, any addresses; available indices that jump.
//! Another CPU changes all of it while the device reads it, and resets the device at any time.
//!
//! Most chains are valid but for one or two changes: a device refuses a chain that is invalid throughout at
//! its first check.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use anyhow::{Result, ensure};
use spin::Mutex;

use super::rings::{announce, disturb};
use super::works::EEPROM;
use crate::clock::Moment;
use crate::cpus;
use crate::interrupts;
use crate::jobs::Job;
use crate::random::{Pool, Random};
use crate::virtio::device::{DEVICE_NEEDS_RESET, DRIVER_OK, Device, Kind, USUAL};
use crate::virtio::ring::{Descriptor, INDIRECT, NEXT, Ring, WRITE};
use crate::virtio::window::{QUEUE_NOTIFY, Window};
use crate::virtio::{gpio, i2c};

/// The time to wait for used chains. Many are never used.
const LIMIT: Duration = Duration::from_millis(10);
/// The interval at which the other CPU checks for work.
const GLANCE: Duration = Duration::from_micros(200);
/// Sizes of rings that a device can serve: each has a queue with 64 entries.
const SIZES: [u16; 4] = [2, 4, 16, 64];

/// What the other CPU does during the attack.
mod mode {
    /// Nothing.
    pub(super) const QUIET: usize = 0;
    /// It writes to the rings.
    pub(super) const WRITE: usize = 1;
    /// It kicks.
    pub(super) const KICK: usize = 2;
    /// It writes registers, STATUS among them.
    pub(super) const DISTURB: usize = 3;
    /// It ends.
    pub(super) const OVER: usize = 4;
}

/// The state that both CPUs share.
struct Stage {
    window: Window,
    pool: Pool,
    mode: AtomicUsize,
    ring: Mutex<Option<Arc<Ring>>>,
    device: Mutex<Option<Device>>,
    result: Mutex<Result<Report>>,
}

/// What happened to the chains.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    offered: u64,
    used: u64,
    starts: u64,
    needs_reset: u64,
}

pub(super) fn run(job: &Job, kind: Kind, seed: u64, count: u64) -> Result<()> {
    let device = Device::find(kind)?;
    let stage = Arc::new(Stage {
        window: device.window,
        pool: Pool::new()?,
        mode: AtomicUsize::new(mode::QUIET),
        ring: Mutex::new(None),
        device: Mutex::new(Some(device)),
        result: Mutex::new(Ok(Report::default())),
    });
    let shared = Arc::clone(&stage);
    let cpus = cpus::on_all(move |cpu| {
        let mut random = Random::new(seed, cpu);
        if cpu > 0 {
            return meddle(&mut random, &shared);
        }
        if let Some(mut device) = shared.device.lock().take() {
            *shared.result.lock() = attack(&mut random, &mut device, kind, &shared, count);
            *shared.ring.lock() = None;
        }
        shared.mode.store(mode::OVER, Ordering::Release);
    });
    ensure!(cpus == 2, "{cpus} CPUs run, not 2");
    let Report { offered, used, starts, needs_reset } =
        core::mem::replace(&mut *stage.result.lock(), Ok(Report::default()))?;
    job.print(format_args!("chains={offered} used={used} starts={starts} needs-reset={needs_reset}"));
    Ok(())
}

/// The loop of the other CPU.
fn meddle(random: &mut Random, stage: &Stage) {
    loop {
        let mode = stage.mode.load(Ordering::Acquire);
        let ring = stage.ring.lock().clone();
        match (mode, ring) {
            (mode::OVER, _) => return,
            (mode::WRITE, Some(ring)) => {
                let page = match random.below(8) {
                    0 => &ring.used,
                    1..4 => &ring.available,
                    _ => &ring.descriptors,
                };
                let end = if random.one_in(4) { 4096 } else { 16 * usize::from(ring.size) };
                page.page().write_u16(2 * random.below(end / 2), random.small());
                // An access to the device takes time, so that some writes come while the device reads the
                // ring.
                let _ = stage.window.read(0);
            }
            (mode::KICK, _) => {
                let _ = stage.window.write(QUEUE_NOTIFY, random.pick(&[0, 1, 2]));
            }
            (mode::DISTURB, _) => disturb(random, stage.window),
            // This CPU waits, so that the other guests get its processor time.
            _ => {
                interrupts::wait(Some(Moment::after(GLANCE)), || stage.mode.load(Ordering::Acquire) != mode);
            }
        }
    }
}

/// Starts the device, offers chains and resets it, repeatedly.
fn attack(random: &mut Random, device: &mut Device, kind: Kind, stage: &Stage, count: u64) -> Result<Report> {
    let mut report = Report::default();
    while report.offered < count {
        stage.mode.store(mode::QUIET, Ordering::Release);
        report.starts += u64::from(device.agree(USUAL)?);
        let mut rings = Vec::new();
        for number in 0..kind.queues() {
            let ring = Arc::new(Ring::new(random.pick(&SIZES).max(2))?);
            let addresses = [&ring.descriptors, &ring.available, &ring.used].map(|page| page.address(0));
            announce(device.window, number, ring.size.into(), addresses)?;
            rings.push(ring);
        }
        device.advance(DRIVER_OK)?;
        let queue = random.below(rings.len());
        if let Some(ring) = rings.get(queue) {
            *stage.ring.lock() = Some(Arc::clone(ring));
            let modes = [mode::QUIET, mode::QUIET, mode::WRITE, mode::KICK, mode::DISTURB];
            stage.mode.store(random.pick(&modes), Ordering::Release);
            for _ in 0..=random.below(6) {
                report.offered += batch(random, &stage.pool, ring, kind, queue);
                device.window.write(QUEUE_NOTIFY, u32::try_from(queue)?)?;
                if random.one_in(8) {
                    break;
                }
                let is_done = || ring.used_index() == ring.available_index();
                interrupts::wait(Some(Moment::after(LIMIT)), is_done);
            }
            report.needs_reset += u64::from(device.status()? & DEVICE_NEEDS_RESET != 0);
            *stage.ring.lock() = None;
        }
        stage.mode.store(mode::QUIET, Ordering::Release);
        device.reset()?;
        report.used += rings.iter().map(|ring| u64::from(ring.used_index().min(ring.size * 6))).sum::<u64>();
    }
    device.reset()?;
    Ok(report)
}

/// Offers some chains without waiting for them. Returns their number.
fn batch(random: &mut Random, pool: &Pool, ring: &Ring, kind: Kind, queue: usize) -> u64 {
    let count = 1 + random.below(usize::from(ring.size).min(8));
    for _ in 0..count {
        let head = chain(random, pool, ring, kind, queue);
        ring.offer(if random.one_in(32) { random.small() } else { head });
    }
    if random.one_in(32) {
        let jump = random.pick(&[1, 2, ring.size, ring.size + 1, 1000, 0x7fff, 0x8000, 0xffff]);
        ring.set_available_index(ring.available_index().wrapping_add(jump));
    }
    u64::try_from(count).unwrap_or(0)
}

/// Writes a chain to any place of the table, over other chains, and returns its head.
fn chain(random: &mut Random, pool: &Pool, ring: &Ring, kind: Kind, queue: usize) -> u16 {
    let size = ring.size;
    let mut parts = good(random, pool, kind, queue);
    if random.one_in(8) {
        let all = parts.clone();
        parts.extend(all);
    }
    parts.truncate(usize::from(size));
    let head = random.small() % size;
    let mut index = head;
    let last = parts.len().saturating_sub(1);
    for (place, mut part) in parts.into_iter().enumerate() {
        part.next = (index + 1) % size;
        part.flags |= if place < last { NEXT } else { 0 };
        if random.one_in(6) {
            spoil(random, pool, &mut part, head, size);
        }
        ring.set(index, part);
        index = (index + 1) % size;
    }
    head
}

/// Changes one descriptor.
fn spoil(random: &mut Random, pool: &Pool, part: &mut Descriptor, head: u16, size: u16) {
    match random.below(10) {
        0 | 1 => part.address = pool.any(random),
        2 | 3 => part.length = random.number(),
        4 => part.flags ^= NEXT,
        5 => part.flags ^= WRITE,
        6 => part.flags |= INDIRECT,
        7 => part.flags = random.half(),
        8 => part.next = random.pick(&[head, size, size - 1, 0xffff]),
        _ => {
            *part = Descriptor {
                address: pool.any(random),
                length: random.number(),
                flags: random.half(),
                next: random.small(),
            }
        }
    }
}

/// Returns a valid chain. The request in it may be invalid.
fn good(random: &mut Random, pool: &Pool, kind: Kind, queue: usize) -> Vec<Descriptor> {
    let (request, answer) = (pool.page(random), pool.page(random));
    let part = |address, length, flags| Descriptor { address, length, flags, next: 0 };
    let (Some(request), Some(answer)) = (request, answer) else { return Vec::new() };
    match (kind, queue) {
        (Kind::I2c, _) => {
            let is_read = random.one_in(2);
            let address = if random.one_in(4) { random.small() } else { EEPROM };
            request
                .page()
                .write(0, &i2c::header(i2c::seven_bits(address), if is_read { i2c::READ } else { 0 }));
            if random.one_in(4) {
                request.page().write(4, &random.number().to_le_bytes());
            }
            let length = if random.one_in(4) { random.number() % 5000 } else { 1 + random.number() % 8 };
            let buffer = part(answer.address(64), length, if is_read { WRITE } else { 0 });
            alloc::vec![part(request.address(0), 8, 0), buffer, part(answer.address(16), 1, WRITE)]
        }
        (Kind::Gpio, 0) => {
            let line = if random.one_in(4) { random.small() } else { random.small() % 4 };
            let kind = if random.one_in(8) { random.small() } else { random.small() % 7 };
            let value = if random.one_in(4) { random.number() } else { random.number() % 4 };
            request.page().write(0, &gpio::request(kind, line, value));
            let length = if random.one_in(4) { random.number() } else { 2 };
            alloc::vec![part(request.address(0), 8, 0), part(answer.address(16), length, WRITE)]
        }
        (Kind::Gpio, _) => {
            request.page().write_u16(0, if random.one_in(4) { random.small() } else { random.small() % 4 });
            alloc::vec![part(request.address(0), 4, 0), part(answer.address(16), 1, WRITE)]
        }
    }
}
