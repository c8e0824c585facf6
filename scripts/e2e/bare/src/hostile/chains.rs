// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Chains that loop, overlap, lie about lengths and flags, and point anywhere; available indices that jump; and another
//! CPU that changes all of it while the device reads it, and resets the device in the middle.
//!
//! Most chains begin as good ones, of which one or two things are changed then: what is wrong from the start is
//! refused at the first look and goes no further.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use anyhow::{Result, ensure};
use spin::Mutex;

use super::dice::{Dice, Pool};
use super::rings::{announce, disturb};
use super::works::EEPROM;
use crate::clock::Moment;
use crate::interrupts;
use crate::jobs::{self, Job};
use crate::virtio::device::{DEVICE_NEEDS_RESET, DRIVER_OK, Device, Kind, REQUIRED};
use crate::virtio::ring::{Descriptor, INDIRECT, NEXT, Ring, WRITE};
use crate::virtio::window::{QUEUE_NOTIFY, Window};

/// So long is waited for chains to be used. Many never are.
const LIMIT: Duration = Duration::from_millis(10);
/// So often the other CPU looks whether it has something to do.
const GLANCE: Duration = Duration::from_micros(200);
/// What a device copes with: each has a queue for so many.
const SIZES: [u16; 4] = [2, 4, 16, 64];

/// What the other CPU does meanwhile.
mod mode {
    /// Nothing: what happens is this CPU's doing.
    pub(super) const QUIET: usize = 0;
    /// It writes to the rings.
    pub(super) const WRITE: usize = 1;
    /// It kicks.
    pub(super) const KICK: usize = 2;
    /// It writes registers, STATUS among them.
    pub(super) const DISTURB: usize = 3;
    /// It is done.
    pub(super) const OVER: usize = 4;
}

/// What both CPUs know.
struct Stage {
    window: Window,
    pool: Pool,
    mode: AtomicUsize,
    ring: Mutex<Option<Arc<Ring>>>,
    device: Mutex<Option<Device>>,
    result: Mutex<Result<Report>>,
}

/// What became of the chains.
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
    let cpus = jobs::on_all_cpus(move |cpu| {
        let mut dice = Dice::new(seed, cpu);
        if cpu > 0 {
            return meddle(&mut dice, &shared);
        }
        if let Some(mut device) = shared.device.lock().take() {
            *shared.result.lock() = attack(&mut dice, &mut device, kind, &shared, count);
            *shared.ring.lock() = None;
        }
        shared.mode.store(mode::OVER, Ordering::Release);
    });
    ensure!(cpus == 2, "{cpus} CPUs, there are to be 2");
    let Report { offered, used, starts, needs_reset } =
        core::mem::replace(&mut *stage.result.lock(), Ok(Report::default()))?;
    job.say(format_args!("chains={offered} used={used} starts={starts} needs-reset={needs_reset}"));
    Ok(())
}

/// What the other CPU does.
fn meddle(dice: &mut Dice, stage: &Stage) {
    loop {
        let mode = stage.mode.load(Ordering::Acquire);
        let ring = stage.ring.lock().clone();
        match (mode, ring) {
            (mode::OVER, _) => return,
            (mode::WRITE, Some(ring)) => {
                let page = match dice.below(8) {
                    0 => &ring.used,
                    1..4 => &ring.available,
                    _ => &ring.descriptors,
                };
                let end = if dice.one_in(4) { 4096 } else { 16 * usize::from(ring.size) };
                page.page().write_u16(2 * dice.below(end / 2), dice.small());
                // An access that takes its time, so that not everything is nonsense at once.
                let _ = stage.window.read(0);
            }
            (mode::KICK, _) => {
                let _ = stage.window.write(QUEUE_NOTIFY, dice.pick(&[0, 1, 2]));
            }
            (mode::DISTURB, _) => disturb(dice, stage.window),
            // It leaves its processor to others, as far as an attack goes.
            _ => {
                interrupts::wait(Some(Moment::after(GLANCE)), || stage.mode.load(Ordering::Acquire) != mode);
            }
        }
    }
}

/// Starts the device, offers chains, resets it, again and again.
fn attack(dice: &mut Dice, device: &mut Device, kind: Kind, stage: &Stage, count: u64) -> Result<Report> {
    let mut report = Report::default();
    while report.offered < count {
        stage.mode.store(mode::QUIET, Ordering::Release);
        report.starts += u64::from(device.agree(REQUIRED | kind.feature())?);
        let mut rings = Vec::new();
        for number in 0..kind.queues() {
            let ring = Arc::new(Ring::new(dice.pick(&SIZES).max(2))?);
            let addresses = [&ring.descriptors, &ring.available, &ring.used].map(|page| page.address(0));
            announce(device.window, number, ring.size.into(), addresses)?;
            rings.push(ring);
        }
        device.advance(DRIVER_OK)?;
        let queue = dice.below(rings.len());
        if let Some(ring) = rings.get(queue) {
            *stage.ring.lock() = Some(Arc::clone(ring));
            let modes = [mode::QUIET, mode::QUIET, mode::WRITE, mode::KICK, mode::DISTURB];
            stage.mode.store(dice.pick(&modes), Ordering::Release);
            for _ in 0..=dice.below(6) {
                report.offered += batch(dice, &stage.pool, ring, kind, queue);
                device.window.write(QUEUE_NOTIFY, u32::try_from(queue)?)?;
                if dice.one_in(8) {
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

/// Offers some chains without waiting for any; returns how many.
fn batch(dice: &mut Dice, pool: &Pool, ring: &Ring, kind: Kind, queue: usize) -> u64 {
    let count = 1 + dice.below(usize::from(ring.size).min(8));
    for _ in 0..count {
        let head = chain(dice, pool, ring, kind, queue);
        ring.offer(if dice.one_in(32) { dice.small() } else { head });
    }
    if dice.one_in(32) {
        let jump = dice.pick(&[1, 2, ring.size, ring.size + 1, 1000, 0x7fff, 0x8000, 0xffff]);
        ring.set_available_index(ring.available_index().wrapping_add(jump));
    }
    u64::try_from(count).unwrap_or(0)
}

/// Writes one chain somewhere in the table, over whatever is there, and returns its head.
fn chain(dice: &mut Dice, pool: &Pool, ring: &Ring, kind: Kind, queue: usize) -> u16 {
    let size = ring.size;
    let mut parts = good(dice, pool, kind, queue);
    if dice.one_in(8) {
        let all = parts.clone();
        parts.extend(all);
    }
    parts.truncate(usize::from(size));
    let head = dice.small() % size;
    let mut index = head;
    let last = parts.len().saturating_sub(1);
    for (place, mut part) in parts.into_iter().enumerate() {
        part.next = (index + 1) % size;
        part.flags |= if place < last { NEXT } else { 0 };
        if dice.one_in(6) {
            spoil(dice, pool, &mut part, head, size);
        }
        ring.set(index, part);
        index = (index + 1) % size;
    }
    head
}

/// Changes one thing.
fn spoil(dice: &mut Dice, pool: &Pool, part: &mut Descriptor, head: u16, size: u16) {
    match dice.below(10) {
        0 | 1 => part.address = pool.any(dice),
        2 | 3 => part.length = dice.number(),
        4 => part.flags ^= NEXT,
        5 => part.flags ^= WRITE,
        6 => part.flags |= INDIRECT,
        7 => part.flags = dice.half(),
        8 => part.next = dice.pick(&[head, size, size - 1, 0xffff]),
        _ => {
            *part = Descriptor {
                address: pool.any(dice),
                length: dice.number(),
                flags: dice.half(),
                next: dice.small(),
            }
        }
    }
}

/// A chain as a driver makes it, but for what the device is asked for.
fn good(dice: &mut Dice, pool: &Pool, kind: Kind, queue: usize) -> Vec<Descriptor> {
    let (request, answer) = (pool.page(dice), pool.page(dice));
    let part = |address, length, flags| Descriptor { address, length, flags, next: 0 };
    let (Some(request), Some(answer)) = (request, answer) else { return Vec::new() };
    match (kind, queue) {
        (Kind::I2c, _) => {
            let is_read = dice.one_in(2);
            let address = if dice.one_in(4) { dice.small() } else { EEPROM };
            request.page().write(0, &i2c_header(address, is_read));
            if dice.one_in(4) {
                request.page().write(4, &dice.number().to_le_bytes());
            }
            let length = if dice.one_in(4) { dice.number() % 5000 } else { 1 + dice.number() % 8 };
            let buffer = part(answer.address(64), length, if is_read { WRITE } else { 0 });
            alloc::vec![part(request.address(0), 8, 0), buffer, part(answer.address(16), 1, WRITE)]
        }
        (Kind::Gpio, 0) => {
            let line = if dice.one_in(4) { dice.small() } else { dice.small() % 4 };
            let kind = if dice.one_in(8) { dice.small() } else { dice.small() % 7 };
            let value = if dice.one_in(4) { dice.number() } else { dice.number() % 4 };
            request.page().write(0, &gpio_request(kind, line, value));
            let length = if dice.one_in(4) { dice.number() } else { 2 };
            alloc::vec![part(request.address(0), 8, 0), part(answer.address(16), length, WRITE)]
        }
        (Kind::Gpio, _) => {
            request.page().write_u16(0, if dice.one_in(4) { dice.small() } else { dice.small() % 4 });
            alloc::vec![part(request.address(0), 4, 0), part(answer.address(16), 1, WRITE)]
        }
    }
}

/// `struct virtio_i2c_out_hdr` (virtio 1.3, 5.16.6): an address of seven bits, one bit up; flag bit 1 is a read.
pub(super) fn i2c_header(address: u16, is_read: bool) -> [u8; 8] {
    let [a, b] = (address << 1).to_le_bytes();
    [a, b, 0, 0, u8::from(is_read) << 1, 0, 0, 0]
}

/// `struct virtio_gpio_request` (virtio 1.3, 5.18.6).
pub(super) fn gpio_request(kind: u16, line: u16, value: u32) -> [u8; 8] {
    let ([a, b], [c, d], [e, f, g, h]) = (kind.to_le_bytes(), line.to_le_bytes(), value.to_le_bytes());
    [a, b, c, d, e, f, g, h]
}
