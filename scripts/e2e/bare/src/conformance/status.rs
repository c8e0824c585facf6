// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The Status register (virtio 1.3, 2.1, 2.4 and 3.1.1), and resets.

use anyhow::{Result, ensure};

use super::case::{Test, test};
use super::devices::{each, offer_many, works};
use crate::grants::Granted;
use crate::virtio::device::{
    ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, Device, FAILED, FEATURES_OK, Kind, USUAL,
};
use crate::virtio::queue::Queue;
use crate::virtio::window::{INTERRUPT_STATUS, QUEUE_NOTIFY, QUEUE_READY, QUEUE_SEL, STATUS};

/// The tests of this group.
pub(super) const TESTS: &[Test] = &[
    test("3.1.1-status-follows-the-steps-of-the-driver", steps),
    test("3.1.1-no-step-can-be-skipped", left_out),
    test("2.1.1-only-a-reset-clears-bits", cleared),
    test("2.1-failed-remains-until-a-reset", failed),
    test("2.1-the-driver-cannot-set-device-needs-reset", needs_reset),
    test("2.1-reserved-bits-are-ignored", reserved),
    test("4.2.2-only-writing-0-resets", no_reset),
    test("2.4-reset-from-every-state", reset_from_every_state),
    test("2.4-reset-clears-queues-features-and-interrupts", reset_forgets),
    test("2.4-reset-unmaps-the-rings", reset_lets_go),
    test("2.4-reset-during-requests", reset_in_the_middle),
    test("3.1.1-nothing-is-used-before-driver-ok", before_driver_ok),
    test("3.1.1-started-and-reset-repeatedly", again_and_again),
];

/// Status of a device in use.
const ALL: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

/// Writes Status, and checks its value afterwards.
fn leads_to(device: &Device, written: u32, expected: u32) -> Result<()> {
    let before = device.status()?;
    device.window.write(STATUS, written)?;
    let after = device.status()?;
    ensure!(after == expected, "Status {before:#x}, {written:#x} written: {after:#x}, not {expected:#x}");
    Ok(())
}

/// Writes the features without which a device does not accept FEATURES_OK.
fn take_required(device: &Device) -> Result<()> {
    device.take(USUAL)
}

fn steps() -> Result<()> {
    each(|device| {
        leads_to(device, 1, 1)?;
        leads_to(device, 3, 3)?;
        take_required(device)?;
        leads_to(device, 11, 11)
    })
}

fn left_out() -> Result<()> {
    each(|device| {
        leads_to(device, DRIVER, 0)?;
        leads_to(device, FEATURES_OK, 0)?;
        leads_to(device, DRIVER_OK, 0)?;
        leads_to(device, ACKNOWLEDGE, 1)?;
        take_required(device)?;
        leads_to(device, ACKNOWLEDGE | FEATURES_OK, 1)?;
        leads_to(device, ACKNOWLEDGE | DRIVER, 3)?;
        leads_to(device, ACKNOWLEDGE | DRIVER | DRIVER_OK, 3)
    })
}

fn cleared() -> Result<()> {
    each(|device| {
        device.start(USUAL, 8)?;
        for written in [1, 2, 3, 4, 8, 11, 7] {
            leads_to(device, written, ALL)?;
        }
        Ok(())
    })
}

fn failed() -> Result<()> {
    each(|device| {
        device.start(USUAL, 8)?;
        leads_to(device, ALL | FAILED, ALL | FAILED)?;
        leads_to(device, ALL, ALL | FAILED)?;
        device.reset()?;
        leads_to(device, FAILED, FAILED)?;
        leads_to(device, FAILED | ACKNOWLEDGE, FAILED)
    })
}

fn needs_reset() -> Result<()> {
    each(|device| {
        leads_to(device, DEVICE_NEEDS_RESET, 0)?;
        device.start(USUAL, 8)?;
        leads_to(device, ALL | DEVICE_NEEDS_RESET, ALL)
    })
}

fn reserved() -> Result<()> {
    each(|device| {
        leads_to(device, 0x31, 1)?;
        leads_to(device, 0xffff_ff33, 3)
    })
}

fn no_reset() -> Result<()> {
    each(|device| {
        device.start(USUAL, 8)?;
        for written in [0x100, 0x8000_0000, 0xffff_ff00, DEVICE_NEEDS_RESET] {
            leads_to(device, written, ALL)?;
        }
        Ok(())
    })
}

fn reset_from_every_state() -> Result<()> {
    each(|device| {
        for last in 0..=5 {
            let mut way = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, FAILED].into_iter();
            take_required(device)?;
            for step in way.by_ref().take(last) {
                if step == DRIVER_OK {
                    attach_all(device)?;
                }
                device.advance(step)?;
            }
            device.reset()?;
        }
        Ok(())
    })
}

fn attach_all(device: &mut Device) -> Result<()> {
    for number in 0..2 {
        if device.queue_size_max(number)? > 0 {
            let queue = Queue::attach(device.window, number, 8)?;
            device.queues.push(queue);
        }
    }
    Ok(())
}

fn reset_forgets() -> Result<()> {
    each(|device| {
        device.start(USUAL, 8)?;
        device.window.write(QUEUE_SEL, 0)?;
        ensure!(device.window.read(QUEUE_READY)? == 1, "the queue is not ready");
        device.reset()?;
        ensure!(device.window.read(INTERRUPT_STATUS)? == 0, "InterruptStatus is not 0 after a reset");
        for queue in 0..2 {
            device.window.write(QUEUE_SEL, queue)?;
            ensure!(device.window.read(QUEUE_READY)? == 0, "queue {queue} is ready after a reset");
        }
        // The features are cleared too: without new ones the device refuses FEATURES_OK.
        device.advance(ACKNOWLEDGE)?;
        device.advance(DRIVER)?;
        leads_to(device, ACKNOWLEDGE | DRIVER | FEATURES_OK, ACKNOWLEDGE | DRIVER)
    })
}

fn reset_lets_go() -> Result<()> {
    each(|device| {
        device.start(USUAL, 8)?;
        let is_mapped = |device: &Device| device.queues.iter().any(|queue| queue.ring.is_in_use());
        ensure!(is_mapped(device), "the rings were not mapped");
        device.window.write(STATUS, 0)?;
        // When Status reads 0, the rings are unmapped already.
        ensure!(device.status()? == 0, "the first read of Status after a reset is not 0");
        ensure!(!is_mapped(device), "a ring is mapped after the reset");
        Ok(())
    })
}

fn reset_in_the_middle() -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        for round in 0..6 {
            device.start(USUAL, 64)?;
            let pages = offer_many(&mut device, kind, 20)?;
            device.window.write(QUEUE_NOTIFY, 0)?;
            if round % 2 == 0 {
                device.queue(0)?.wait()?;
            }
            device.window.write(STATUS, 0)?;
            ensure!(device.status()? == 0, "the first read of Status after a reset is not 0");
            ensure!(!pages.iter().any(Granted::is_in_use), "a buffer is in use after the reset");
            let rings = device.queues.iter().filter(|queue| queue.ring.is_in_use()).count();
            ensure!(rings == 0, "{rings} rings are mapped after the reset");
            device.reset()?;
        }
        works(&mut device, kind)?;
    }
    Ok(())
}

/// Our I2C adapter starts at the first kick, because Linux's driver kicks before DRIVER_OK. The GPIO
/// controller does not.
fn before_driver_ok() -> Result<()> {
    let mut device = Device::find(Kind::Gpio)?;
    ensure!(device.agree(USUAL)?, "the device does not accept the features");
    attach_all(&mut device)?;
    let _pages = offer_many(&mut device, Kind::Gpio, 1)?;
    let queue = device.queue(0)?;
    queue.kick()?;
    ensure!(!queue.ring.is_in_use(), "the ring is mapped before DRIVER_OK");
    ensure!(!queue.ring.has_used(), "a request was served before DRIVER_OK");
    // The early kick does not count: a driver has to kick again.
    device.advance(DRIVER_OK)?;
    let queue = device.queue(0)?;
    queue.kick()?;
    queue.wait().map(drop)
}

fn again_and_again() -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        for _ in 0..5 {
            works(&mut device, kind)?;
            device.reset()?;
        }
    }
    Ok(())
}
