// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Features (virtio 1.3, 2.2, 3.1.1 and 6): offered, written, accepted or refused.

use anyhow::{Result, ensure};

use super::case::{Test, test};
use super::devices::each;
use crate::virtio::device::{
    ACCESS_PLATFORM, ACKNOWLEDGE, DRIVER, DRIVER_OK, Device, FEATURES_OK, Kind, REQUIRED, RING_RESET, USUAL,
    VERSION_1,
};
use crate::virtio::window::{
    DEVICE_FEATURES, DEVICE_FEATURES_SEL, DRIVER_FEATURES, DRIVER_FEATURES_SEL, STATUS,
};

/// The tests of this group.
pub(super) const TESTS: &[Test] = &[
    test("2.2-feature-words-are-read-in-any-order", any_order),
    test("2.2-feature-words-beyond-64-bits-read-zero", beyond),
    test("6.2-version-1-and-access-platform-are-offered", offered),
    test("2.7.5.3-no-indirect-descriptors-are-offered", no_indirect),
    test("3.1.1-feature-words-are-written-in-any-order", taken_in_any_order),
    test("3.1.1-refused-without-version-1", || refused(|offered| offered & !VERSION_1)),
    test("3.1.1-refused-without-access-platform", || refused(|offered| offered & !ACCESS_PLATFORM)),
    test("3.1.1-refused-without-features", || refused(|_| 0)),
    test("2.2.1-each-feature-that-was-not-offered-is-refused", not_offered),
    test("2.2.1-features-are-accepted-after-a-refusal", second_attempt),
    test("5.16.6.4-i2c-refused-without-zero-length-requests", zero_length),
    test("2.2.1-features-do-not-change-after-features-ok", stand),
    test("5.18.3-gpio-without-interrupts", without_interrupts),
];

fn word(device: &Device, number: u32) -> Result<u32> {
    device.window.write(DEVICE_FEATURES_SEL, number)?;
    device.window.read(DEVICE_FEATURES)
}

fn any_order() -> Result<()> {
    each(|device| {
        let (low, high) = (word(device, 0)?, word(device, 1)?);
        for number in [1, 0, 0, 1, 1] {
            let seen = word(device, number)?;
            ensure!(seen == if number == 0 { low } else { high }, "word {number} is {seen:#x}");
        }
        ensure!(low != high, "both words are {low:#x}");
        Ok(())
    })
}

fn beyond() -> Result<()> {
    each(|device| {
        for number in [2, 3, 4, 0x100, 0x8000_0000, u32::MAX] {
            let seen = word(device, number)?;
            ensure!(seen == 0, "word {number} is {seen:#x}");
        }
        Ok(())
    })
}

fn offered() -> Result<()> {
    for kind in Kind::ALL {
        let offered = Device::find(kind)?.offered()?;
        let needed = USUAL | RING_RESET;
        ensure!(offered & needed == needed, "{kind:?} offers {offered:#x}");
    }
    Ok(())
}

fn no_indirect() -> Result<()> {
    each(|device| {
        let offered = device.offered()?;
        ensure!(offered & 1 << 28 == 0, "{offered:#x}");
        Ok(())
    })
}

fn taken_in_any_order() -> Result<()> {
    each(|device| {
        device.advance(ACKNOWLEDGE)?;
        device.advance(DRIVER)?;
        let high = u32::try_from(REQUIRED >> 32)?;
        // The last write of a word counts, and words beyond the second are ignored.
        for (number, word) in [(1, u32::MAX), (0, 1), (7, u32::MAX), (1, high), (u32::MAX, 0)] {
            device.window.write(DRIVER_FEATURES_SEL, number)?;
            device.window.write(DRIVER_FEATURES, word)?;
        }
        ensure!(device.advance(FEATURES_OK)? & FEATURES_OK != 0, "the device does not accept the features");
        Ok(())
    })
}

fn refused(choose: impl Fn(u64) -> u64) -> Result<()> {
    each(|device| {
        let features = choose(device.offered()?);
        ensure!(!device.agree(features)?, "the device accepts {features:#x}");
        // DRIVER_OK has no effect either.
        let status = device.advance(DRIVER_OK)?;
        ensure!(status == ACKNOWLEDGE | DRIVER, "Status is {status:#x} after a refusal");
        Ok(())
    })
}

fn not_offered() -> Result<()> {
    each(|device| {
        let offered = device.offered()?;
        for bit in (0..64).filter(|bit| offered & 1 << bit == 0) {
            ensure!(!device.agree(offered | 1 << bit)?, "the device accepts bit {bit} without offering it");
        }
        ensure!(device.agree(offered)?, "the device does not accept all features that it offers");
        Ok(())
    })
}

fn second_attempt() -> Result<()> {
    each(|device| {
        ensure!(!device.agree(0)?, "the device accepts an empty set of features");
        device.take(USUAL)?;
        ensure!(device.advance(FEATURES_OK)? & FEATURES_OK != 0, "the device refuses the second attempt");
        Ok(())
    })
}

fn zero_length() -> Result<()> {
    let mut device = Device::find(Kind::I2c)?;
    ensure!(!device.agree(REQUIRED)?, "the device accepts features without zero-length requests");
    ensure!(device.agree(USUAL)?, "the device does not accept the features");
    Ok(())
}

fn stand() -> Result<()> {
    each(|device| {
        ensure!(device.agree(USUAL)?, "the device does not accept the features");
        device.take(0)?;
        let status = device.status()?;
        device.window.write(STATUS, status | FEATURES_OK)?;
        ensure!(device.status()? == status, "Status is {:#x}", device.status()?);
        Ok(())
    })
}

/// Without VIRTIO_GPIO_F_IRQ, requests are served as usual.
fn without_interrupts() -> Result<()> {
    let mut device = Device::find(Kind::Gpio)?;
    device.start(REQUIRED, 8)?;
    super::gpio::reads_a_line(&mut device)
}
