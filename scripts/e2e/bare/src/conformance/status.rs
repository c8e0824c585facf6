// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The status register as a state machine (virtio 1.3, 2.1, 2.4 and 3.1.1), and resets.

use anyhow::{Result, ensure};

use super::case::{Test, test};
use super::devices::{each, offer_many, works};
use crate::grants::Granted;
use crate::virtio::device::{
    ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, Device, FAILED, FEATURES_OK, Kind, USUAL,
};
use crate::virtio::queue::Queue;
use crate::virtio::window::{INTERRUPT_STATUS, QUEUE_NOTIFY, QUEUE_READY, QUEUE_SEL, STATUS};

/// See the names.
pub(super) const TESTS: &[Test] = &[
    test("3.1.1-one-step-after-the-other", steps),
    test("3.1.1-no-step-is-left-out", left_out),
    test("2.1.1-no-bit-is-cleared-but-by-a-reset", cleared),
    test("2.1-failed-until-a-reset", failed),
    test("2.1-only-the-device-says-that-it-needs-a-reset", needs_reset),
    test("2.1-reserved-bits-are-no-state", reserved),
    test("4.2.2-only-0-is-a-reset", no_reset),
    test("2.4-reset-from-every-state", reset_from_every_state),
    test("2.4-reset-forgets-everything", reset_forgets),
    test("2.4-reset-lets-go-of-the-rings", reset_lets_go),
    test("2.4-reset-in-the-middle-of-requests", reset_in_the_middle),
    test("3.1.1-nothing-is-used-before-driver-ok", before_driver_ok),
    test("3.1.1-driven-again-and-again", again_and_again),
];

/// The whole way.
const ALL: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

/// Writes Status and fails unless it then reads so.
fn leads_to(device: &Device, written: u32, expected: u32) -> Result<()> {
    let before = device.status()?;
    device.window.write(STATUS, written)?;
    let after = device.status()?;
    ensure!(after == expected, "Status {before:#x}, {written:#x} written: {after:#x}, not {expected:#x}");
    Ok(())
}

/// The features without which no device agrees.
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
        ensure!(device.window.read(INTERRUPT_STATUS)? == 0, "InterruptStatus after a reset");
        for queue in 0..2 {
            device.window.write(QUEUE_SEL, queue)?;
            ensure!(device.window.read(QUEUE_READY)? == 0, "queue {queue} is ready after a reset");
        }
        // The features are forgotten too: without new ones the device does not agree.
        device.advance(ACKNOWLEDGE)?;
        device.advance(DRIVER)?;
        leads_to(device, ACKNOWLEDGE | DRIVER | FEATURES_OK, ACKNOWLEDGE | DRIVER)
    })
}

fn reset_lets_go() -> Result<()> {
    each(|device| {
        device.start(USUAL, 8)?;
        let is_mapped = |device: &Device| device.queues.iter().any(|queue| queue.ring.is_in_use());
        ensure!(is_mapped(device), "the rings were never in use");
        device.window.write(STATUS, 0)?;
        // Not a moment later: what reads 0 has let go.
        ensure!(device.status()? == 0, "the reset did not end at once");
        ensure!(!is_mapped(device), "a ring is in use after the reset");
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
            ensure!(device.status()? == 0, "the reset did not end at once");
            ensure!(!pages.iter().any(Granted::is_in_use), "a buffer is in use after the reset");
            let rings = device.queues.iter().filter(|queue| queue.ring.is_in_use()).count();
            ensure!(rings == 0, "{rings} rings are in use after the reset");
            device.reset()?;
        }
        works(&mut device, kind)?;
    }
    Ok(())
}

/// An I2C adapter of ours starts at the first kick, for Linux's driver, which is early. A GPIO controller
/// does not.
fn before_driver_ok() -> Result<()> {
    let mut device = Device::find(Kind::Gpio)?;
    ensure!(device.agree(USUAL)?, "the device does not agree");
    attach_all(&mut device)?;
    let _pages = offer_many(&mut device, Kind::Gpio, 1)?;
    let queue = device.queue(0)?;
    queue.kick()?;
    ensure!(!queue.ring.is_in_use(), "the ring is in use before DRIVER_OK");
    ensure!(!queue.ring.has_used(), "a request was served before DRIVER_OK");
    // The kick that came too early is none: a driver would give another.
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
