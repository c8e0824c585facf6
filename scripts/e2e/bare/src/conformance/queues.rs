// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Virtqueues (virtio 1.3, 2.6, 2.7 and 4.2.2), their notifications, and the reset of one of them.

use alloc::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::case::{Test, test};
use super::devices::{each, offer_many, works};
use crate::clock::Moment;
use crate::interrupts;
use crate::virtio::device::{
    ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, Device, FEATURES_OK, Kind, RING_RESET, USUAL,
};
use crate::virtio::queue::{LIMIT, Queue};
use crate::virtio::ring::Ring;
use crate::virtio::window::{
    INTERRUPT_ACK, INTERRUPT_STATUS, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_READY,
    QUEUE_RESET, QUEUE_SEL, QUEUE_SIZE,
};

/// See the names.
pub(super) const TESTS: &[Test] = &[
    test("2.7-any-power-of-two", sizes),
    test("2.7-no-other-size", no_size),
    test("2.1.2-a-ring-without-a-grant-needs-a-reset", no_grant),
    test("2.1.2-an-index-that-runs-ahead-needs-a-reset", runs_ahead),
    test("2.1.2-a-head-that-is-no-descriptor-needs-a-reset", no_head),
    test("4.2.2.2-a-ready-queue-stays-as-it-is", stays),
    test("2.7.8-each-chain-of-a-batch-is-used-once", batch),
    test("4.2.2.1-interrupt-status-tells-of-used-buffers", interrupt_status),
    test("2.7.7.2-no-interrupt-if-none-is-wanted", no_interrupt),
    test("4.2.3.3-kicks-without-buffers", idle_kicks),
    test("4.2.3.3-kicks-of-no-queue", kicks_of_no_queue),
    test("2.6.1-no-queue-reset-unless-agreed-on", no_queue_reset),
    test("2.6.1-queue-reset", queue_reset),
    test("2.6.1-queue-reset-leaves-the-other-alone", other_queue),
    test("2.7.13-around-the-ring", around),
];

const ALL: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

fn sizes() -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        ensure!(device.queue_size_max(0)? == 256, "QueueSizeMax");
        for size in [4, 32, 256] {
            device.start(USUAL, size)?;
            let _pages = offer_many(&mut device, kind, 1)?;
            device.queue(0)?.kick()?;
            device.queue(0)?.wait()?;
            device.reset()?;
        }
    }
    Ok(())
}

/// Agrees on features, so that queues can be set up.
fn agreed(device: &mut Device, features: u64) -> Result<()> {
    ensure!(device.agree(features)?, "the device does not agree");
    Ok(())
}

/// Fails unless the device says that it needs a reset when it becomes live.
fn expect_needs_reset(device: &mut Device, why: &str) -> Result<()> {
    let before = device.window.interrupts();
    device.advance(DRIVER_OK)?;
    wait_needs_reset(device, before, why)
}

/// Fails unless the device says that it needs a reset, by an interrupt after those `before` and by Status
/// (2.1.2). It does not use any page then.
fn wait_needs_reset(device: &mut Device, before: u32, why: &str) -> Result<()> {
    let needs_reset = || device.status().is_ok_and(|status| status & DEVICE_NEEDS_RESET != 0);
    // The interrupt of buffers that were used before may come late.
    let is_told = || device.window.interrupts() != before && needs_reset();
    let is_told = interrupts::wait(Some(Moment::after(LIMIT)), is_told);
    ensure!(is_told, "{why}: Status is {:#x}, no interrupt", device.status()?);
    let reason = device.window.read(INTERRUPT_STATUS)?;
    ensure!(reason & 2 != 0, "{why}: InterruptStatus is {reason:#x}");
    device.reset()
}

fn no_size() -> Result<()> {
    each(|device| {
        for size in [0, 3, 6, 255, 257, 512, 0x1_0000, 0x1_0008, u32::MAX] {
            agreed(device, USUAL)?;
            let ring = Ring::new(8)?;
            describe(device, 0, &ring, size)?;
            device.window.write(QUEUE_READY, 1)?;
            expect_needs_reset(device, &alloc::format!("a queue of {size}"))?;
        }
        Ok(())
    })
}

/// Writes a queue's registers, but for QueueReady.
fn describe(device: &Device, queue: u32, ring: &Ring, size: u32) -> Result<()> {
    let window = device.window;
    window.write(QUEUE_SEL, queue)?;
    window.write(QUEUE_SIZE, size)?;
    window.write_wide(QUEUE_DESC, ring.descriptors.address(0))?;
    window.write_wide(QUEUE_DRIVER, ring.available.address(0))?;
    window.write_wide(QUEUE_DEVICE, ring.used.address(0))
}

fn no_grant() -> Result<()> {
    each(|device| {
        // Not a grant; an unused reference; a reference beyond the table.
        let places =
            [(QUEUE_DESC, 0x4000_0000), (QUEUE_DRIVER, 1 << 63 | 1999 << 12), (QUEUE_DEVICE, !0xfff)];
        for (register, address) in places {
            agreed(device, USUAL)?;
            let ring = Ring::new(8)?;
            describe(device, 0, &ring, 8)?;
            device.window.write_wide(register, address)?;
            device.window.write(QUEUE_READY, 1)?;
            expect_needs_reset(device, &alloc::format!("register {register:#x} at {address:#x}"))?;
            ensure!(!ring.is_in_use(), "the rest of the ring is in use");
        }
        Ok(())
    })
}

/// Spoils a ring that is in use, and fails unless that costs a reset.
fn spoiled(spoil: fn(&Ring)) -> Result<()> {
    each(|device| {
        device.start(USUAL, 16)?;
        let _page = offer_one(device)?;
        device.queue(0)?.kick()?;
        device.queue(0)?.wait()?;
        let before = device.window.interrupts();
        spoil(&device.queue(0)?.ring);
        device.queue(0)?.kick()?;
        wait_needs_reset(device, before, "a ring that was spoiled")?;
        for queue in &device.queues {
            ensure!(!queue.ring.is_in_use(), "queue {} is in use", queue.number);
        }
        Ok(())
    })
}

/// 2.7.13.3: the index is that of the next entry that the driver will write.
fn runs_ahead() -> Result<()> {
    spoiled(|ring| ring.set_available_index(ring.available_index() + ring.size + 1))?;
    spoiled(|ring| ring.set_available_index(ring.available_index() - 1))
}

/// 2.7.13.2: an entry is the index of a chain's first descriptor.
fn no_head() -> Result<()> {
    spoiled(|ring| ring.offer(ring.size))?;
    spoiled(|ring| ring.offer(0xffff))
}

fn stays() -> Result<()> {
    each(|device| {
        device.start(USUAL, 16)?;
        device.window.write(QUEUE_SEL, 0)?;
        for register in [QUEUE_SIZE, QUEUE_DESC, QUEUE_DESC + 4, QUEUE_DRIVER, QUEUE_DEVICE, QUEUE_DEVICE + 4]
        {
            device.window.write(register, 0)?;
        }
        device.window.write(QUEUE_READY, 1)?;
        ensure!(device.status()? == ALL, "Status is {:#x}", device.status()?);
        let _page = offer_one(device)?;
        let queue = device.queue(0)?;
        queue.kick()?;
        queue.wait().map(drop)
    })
}

/// As [`offer_many`], for whatever the device is.
fn offer_one(device: &mut Device) -> Result<alloc::vec::Vec<crate::grants::Granted>> {
    let kind = if device.queues.len() == 1 { Kind::I2c } else { Kind::Gpio };
    offer_many(device, kind, 1)
}

fn batch() -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        device.start(USUAL, 64)?;
        let _pages = offer_many(&mut device, kind, 20)?;
        let queue = device.queue(0)?;
        queue.kick()?;
        let mut heads = BTreeSet::new();
        for _ in 0..20 {
            let used = queue.wait()?;
            ensure!(heads.insert(used.head), "chain {} was used twice", used.head);
        }
        ensure!(!queue.ring.has_used(), "more was used than was available");
    }
    Ok(())
}

fn interrupt_status() -> Result<()> {
    each(|device| {
        device.start(USUAL, 16)?;
        let window = device.window;
        ensure!(window.read(INTERRUPT_STATUS)? == 0, "InterruptStatus at DRIVER_OK");
        let _page = offer_one(device)?;
        let before = window.interrupts();
        window.write(QUEUE_NOTIFY, 0)?;
        ensure!(window.wait_for_interrupt(before, LIMIT), "no interrupt");
        ensure!(window.read(INTERRUPT_STATUS)? == 1, "InterruptStatus after an interrupt");
        ensure!(device.queue(0)?.ring.has_used(), "an interrupt, and nothing used");
        // Acknowledging something else is not acknowledging this.
        window.write(INTERRUPT_ACK, 2)?;
        ensure!(window.read(INTERRUPT_STATUS)? == 1, "InterruptStatus after another acknowledgement");
        window.write(INTERRUPT_ACK, 1)?;
        ensure!(window.read(INTERRUPT_STATUS)? == 0, "InterruptStatus after the acknowledgement");
        Ok(())
    })
}

/// With VIRTQ_AVAIL_F_NO_INTERRUPT a device should not. The request after it, without, shows that it has had
/// its chance.
fn no_interrupt() -> Result<()> {
    each(|device| {
        device.start(USUAL, 16)?;
        let window = device.window;
        let before = window.interrupts();
        device.queue(0)?.ring.set_no_interrupt(true);
        let _page = offer_one(device)?;
        device.queue(0)?.kick()?;
        let end = Moment::after(LIMIT);
        while !device.queue(0)?.ring.has_used() {
            ensure!(!end.has_come(), "nothing was used");
            window.read(INTERRUPT_STATUS)?;
        }
        ensure!(window.interrupts() == before, "an interrupt despite VIRTQ_AVAIL_F_NO_INTERRUPT");
        device.queue(0)?.ring.set_no_interrupt(false);
        let _page = offer_one(device)?;
        device.queue(0)?.kick()?;
        ensure!(interrupts::wait(Some(end), || window.interrupts() != before), "no interrupt");
        Ok(())
    })
}

fn idle_kicks() -> Result<()> {
    each(|device| {
        device.start(USUAL, 16)?;
        for _ in 0..100 {
            device.queue(0)?.kick()?;
        }
        let _page = offer_one(device)?;
        let queue = device.queue(0)?;
        queue.kick()?;
        queue.wait()?;
        ensure!(queue.ring.used_index() == 1, "{} chains were used", queue.ring.used_index());
        Ok(())
    })
}

fn kicks_of_no_queue() -> Result<()> {
    each(|device| {
        device.start(USUAL, 16)?;
        for value in [2, 3, 255, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX] {
            device.window.write(QUEUE_NOTIFY, value)?;
        }
        ensure!(device.status()? == ALL, "Status is {:#x}", device.status()?);
        Ok(())
    })
}

fn no_queue_reset() -> Result<()> {
    each(|device| {
        device.start(USUAL, 16)?;
        device.window.write(QUEUE_SEL, 0)?;
        device.window.write(QUEUE_RESET, 1)?;
        ensure!(device.window.read(QUEUE_READY)? == 1, "the queue was reset without RING_RESET");
        ensure!(device.queue(0)?.ring.is_in_use(), "the ring was let go without RING_RESET");
        Ok(())
    })
}

/// Resets a queue and puts another ring into its place.
fn replace(device: &mut Device, number: u32) -> Result<Queue> {
    let window = device.window;
    window.write(QUEUE_SEL, number)?;
    window.write(QUEUE_RESET, 1)?;
    let end = Moment::after(LIMIT);
    while window.read(QUEUE_RESET)? != 0 {
        ensure!(!end.has_come(), "the queue is still being reset");
    }
    ensure!(window.read(QUEUE_READY)? == 0, "the queue is ready after its reset");
    let old = device.queue(usize::try_from(number)?)?;
    ensure!(!old.ring.is_in_use(), "the ring is in use after the queue's reset");
    Queue::attach(window, number, 32)
}

fn queue_reset() -> Result<()> {
    each(|device| {
        device.start(USUAL | RING_RESET, 16)?;
        for _ in 0..5 {
            let fresh = replace(device, 0)?;
            *device.queue(0)? = fresh;
            let _page = offer_one(device)?;
            let queue = device.queue(0)?;
            queue.kick()?;
            queue.wait()?;
        }
        ensure!(device.status()? == ALL, "Status is {:#x}", device.status()?);
        Ok(())
    })
}

/// Requests go on while the queue of events is reset.
fn other_queue() -> Result<()> {
    let mut device = Device::find(Kind::Gpio)?;
    device.start(USUAL | RING_RESET, 16)?;
    for _ in 0..5 {
        let fresh = replace(&mut device, 1)?;
        *device.queue(1)? = fresh;
        ensure!(device.queue(0)?.ring.is_in_use(), "the other queue was reset too");
        super::gpio::reads_a_line(&mut device)?;
    }
    Ok(())
}

/// Often enough for every slot of a small ring to be used many times.
fn around() -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        device.start(USUAL, 8)?;
        for _ in 0..50 {
            let _pages = offer_many(&mut device, kind, 2)?;
            let queue = device.queue(0)?;
            queue.kick()?;
            queue.wait()?;
            queue.wait()?;
        }
        device.reset()?;
        works(&mut device, kind)?;
    }
    Ok(())
}
