// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Virtqueues (virtio 1.3, 2.6, 2.7 and 4.2.2), their notifications, and queue reset.

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

/// The tests of this group.
pub(super) const TESTS: &[Test] = &[
    test("2.7-queue-sizes-that-are-powers-of-two", sizes),
    test("2.7-other-queue-sizes-need-a-reset", no_size),
    test("2.1.2-a-ring-without-a-grant-needs-a-reset", no_grant),
    test("2.1.2-an-available-index-too-far-ahead-needs-a-reset", runs_ahead),
    test("2.1.2-a-head-beyond-the-descriptor-table-needs-a-reset", no_head),
    test("4.2.2.2-writes-to-registers-of-a-ready-queue-have-no-effect", stays),
    test("2.7.8-each-chain-of-a-batch-is-used-once", batch),
    test("4.2.2.1-interrupt-status-has-used-buffers", interrupt_status),
    test("2.7.7.2-no-interrupt-if-suppressed", no_interrupt),
    test("4.2.3.3-kicks-without-buffers", idle_kicks),
    test("4.2.3.3-kicks-of-unknown-queues", kicks_of_no_queue),
    test("2.6.1-no-queue-reset-unless-negotiated", no_queue_reset),
    test("2.6.1-queue-reset", queue_reset),
    test("2.6.1-queue-reset-does-not-affect-the-other-queue", other_queue),
    test("2.7.13-indices-wrap", around),
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

/// Negotiates features, so that queues can be set up.
fn agreed(device: &mut Device, features: u64) -> Result<()> {
    ensure!(device.agree(features)?, "the device does not accept the features");
    Ok(())
}

/// Starts the device, and checks that it needs a reset.
fn expect_needs_reset(device: &mut Device, why: &str) -> Result<()> {
    let before = device.window.interrupts();
    device.advance(DRIVER_OK)?;
    wait_needs_reset(device, before, why)
}

/// Waits until the device needs a reset, by DEVICE_NEEDS_RESET and an interrupt after the first `before`
/// (2.1.2).
fn wait_needs_reset(device: &mut Device, before: u32, why: &str) -> Result<()> {
    let needs_reset = || device.status().is_ok_and(|status| status & DEVICE_NEEDS_RESET != 0);
    // The interrupt for buffers that were used earlier may arrive late.
    let is_announced = || device.window.interrupts() != before && needs_reset();
    let is_done = interrupts::wait(Some(Moment::after(LIMIT)), is_announced);
    ensure!(is_done, "{why}: Status is {:#x}, no interrupt", device.status()?);
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

/// Writes the registers of a queue except QueueReady.
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
        // An address that is not a grant; an unused reference; a reference beyond the table.
        let places =
            [(QUEUE_DESC, 0x4000_0000), (QUEUE_DRIVER, 1 << 63 | 1999 << 12), (QUEUE_DEVICE, !0xfff)];
        for (register, address) in places {
            agreed(device, USUAL)?;
            let ring = Ring::new(8)?;
            describe(device, 0, &ring, 8)?;
            device.window.write_wide(register, address)?;
            device.window.write(QUEUE_READY, 1)?;
            expect_needs_reset(device, &alloc::format!("register {register:#x} at {address:#x}"))?;
            ensure!(!ring.is_in_use(), "the other parts of the ring are mapped");
        }
        Ok(())
    })
}

/// Makes a ring in use invalid, and checks that the device needs a reset.
fn spoiled(spoil: fn(&Ring)) -> Result<()> {
    each(|device| {
        device.start(USUAL, 16)?;
        let _page = offer_one(device)?;
        device.queue(0)?.kick()?;
        device.queue(0)?.wait()?;
        let before = device.window.interrupts();
        spoil(&device.queue(0)?.ring);
        device.queue(0)?.kick()?;
        wait_needs_reset(device, before, "an invalid ring")?;
        for queue in &device.queues {
            ensure!(!queue.ring.is_in_use(), "queue {} is still mapped", queue.number);
        }
        Ok(())
    })
}

/// 2.7.13.3: the index is that of the next entry that the driver writes.
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

/// As [`offer_many`], for a device of any type.
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
        ensure!(!queue.ring.has_used(), "more chains were used than were available");
    }
    Ok(())
}

fn interrupt_status() -> Result<()> {
    each(|device| {
        device.start(USUAL, 16)?;
        let window = device.window;
        ensure!(window.read(INTERRUPT_STATUS)? == 0, "InterruptStatus is not 0 at DRIVER_OK");
        let _page = offer_one(device)?;
        let before = window.interrupts();
        window.write(QUEUE_NOTIFY, 0)?;
        ensure!(window.wait_for_interrupt(before, LIMIT), "no interrupt");
        ensure!(window.read(INTERRUPT_STATUS)? == 1, "InterruptStatus is not 1 after an interrupt");
        ensure!(device.queue(0)?.ring.has_used(), "there was an interrupt, but no used buffer");
        // Acknowledging another reason does not clear this one.
        window.write(INTERRUPT_ACK, 2)?;
        ensure!(window.read(INTERRUPT_STATUS)? == 1, "InterruptStatus is not 1 after InterruptACK 2");
        window.write(INTERRUPT_ACK, 1)?;
        ensure!(window.read(INTERRUPT_STATUS)? == 0, "InterruptStatus is not 0 after InterruptACK 1");
        Ok(())
    })
}

/// With VIRTQ_AVAIL_F_NO_INTERRUPT a device should not interrupt. The next request, without this flag, shows
/// that an interrupt would have arrived.
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
            ensure!(!end.has_come(), "no buffer was used within {LIMIT:?}");
            window.read(INTERRUPT_STATUS)?;
        }
        ensure!(window.interrupts() == before, "there was an interrupt despite VIRTQ_AVAIL_F_NO_INTERRUPT");
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
        ensure!(device.queue(0)?.ring.is_in_use(), "the ring was unmapped without RING_RESET");
        Ok(())
    })
}

/// Resets a queue and enables it with another ring.
fn replace(device: &mut Device, number: u32) -> Result<Queue> {
    let window = device.window;
    window.write(QUEUE_SEL, number)?;
    window.write(QUEUE_RESET, 1)?;
    let end = Moment::after(LIMIT);
    while window.read(QUEUE_RESET)? != 0 {
        ensure!(!end.has_come(), "the reset of the queue did not end within {LIMIT:?}");
    }
    ensure!(window.read(QUEUE_READY)? == 0, "the queue is ready after its reset");
    let old = device.queue(usize::try_from(number)?)?;
    ensure!(!old.ring.is_in_use(), "the ring is mapped after the reset of the queue");
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

/// Requests continue while the event queue is reset.
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

/// More requests than a small ring has entries, several times over.
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
