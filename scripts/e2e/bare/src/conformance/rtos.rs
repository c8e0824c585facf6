// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest without grants, as real-time operating systems are: `memory-access = "all"` in its manifest. Its
//! drivers behave as Zephyr's do: of the feature bits 24 to 49 they accept VIRTIO_F_VERSION_1 only, their
//! rings have 2 or 16 entries, and their addresses are guest physical. The last tests use addresses outside
//! of RAM.

use anyhow::{Result, ensure};

use super::case::{Test, test};
use crate::grants::Granted;
use crate::machine;
use crate::virtio::device::{ACCESS_PLATFORM, DEVICE_NEEDS_RESET, DRIVER_OK, Device, Kind, VERSION_1};
use crate::virtio::gpio::{self, DIRECTION_IN, DIRECTION_OUT, GET_VALUE, SET_DIRECTION, SET_VALUE};
use crate::virtio::i2c;
use crate::virtio::queue::Buffer;
use crate::virtio::window::{QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_READY, QUEUE_SEL, QUEUE_SIZE};

pub(super) const TESTS: &[Test] = &[
    test("rtos-is-not-offered-access-platform", is_not_offered_access_platform),
    test("rtos-gpio-with-a-ring-of-2", || gpio(2)),
    test("rtos-gpio-with-a-ring-of-16", || gpio(16)),
    test("rtos-i2c-with-a-ring-of-16", || i2c(&mut started(16)?, 20)),
    test("rtos-i2c-request-of-length-0-fails-alone", zero_length),
    test("rtos-ring-outside-of-ram-needs-a-reset", rings_outside),
    test("rtos-ring-up-to-the-end-of-ram-is-used", ring_at_the_end),
    test("rtos-buffer-outside-of-ram-fails-its-request", buffers_outside),
];

/// The I2C address of this guest's EEPROM, and an offset in it.
const EEPROM: u16 = i2c::seven_bits(0x50);
const CELL: u8 = 0x20;
/// Lines that the board connects to each other.
const OUT: u16 = 0;
const IN: u16 = 1;
/// Offsets of data and status in a request's page.
const DATA: usize = 32;
const STATUS: usize = 16;
/// What a status field has before the device writes it.
const UNWRITTEN: u8 = 0xff;

fn is_not_offered_access_platform() -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        let offered = device.offered()?;
        ensure!(offered & (VERSION_1 | ACCESS_PLATFORM) == VERSION_1, "{kind:?} offers {offered:#x}");
        ensure!(!device.agree(VERSION_1 | ACCESS_PLATFORM)?, "{kind:?} accepts ACCESS_PLATFORM");
        ensure!(device.agree(VERSION_1)?, "{kind:?} does not agree with VERSION_1 alone");
    }
    Ok(())
}

/// Drives a line and reads it at the other end of the wire, so often that the ring wraps.
fn gpio(size: u16) -> Result<()> {
    let mut device = Device::find(Kind::Gpio)?;
    device.start(VERSION_1, size)?;
    let page = Granted::new()?;
    let mut send = |message, line, value| {
        page.page().write(0, &gpio::request(message, line, value));
        page.page().write(STATUS, &[UNWRITTEN; 2]);
        let buffers = [Buffer::within(&page, 0, 8, false)?, Buffer::within(&page, STATUS, 2, true)?];
        device.queue(0)?.transfer(&buffers)?;
        let status = page.page().read_u8(STATUS);
        ensure!(status == gpio::OK, "GPIO message {message} for line {line} ended with status {status}");
        Ok(page.page().read_u8(STATUS + 1))
    };
    send(SET_VALUE, OUT, 0)?;
    send(SET_DIRECTION, OUT, DIRECTION_OUT)?;
    send(SET_DIRECTION, IN, DIRECTION_IN)?;
    for value in [1, 0].into_iter().cycle().take(20) {
        send(SET_VALUE, OUT, value)?;
        let seen = send(GET_VALUE, IN, 0)?;
        ensure!(u32::from(seen) == value, "the line is {seen}, {value} was set");
    }
    Ok(())
}

/// Starts the adapter without VIRTIO_I2C_F_ZERO_LENGTH_REQUEST.
fn started(size: u16) -> Result<Device> {
    let mut device = Device::find(Kind::I2c)?;
    device.start(VERSION_1, size)?;
    Ok(device)
}

/// Writes to the EEPROM and reads it back.
fn i2c(device: &mut Device, rounds: u8) -> Result<()> {
    let page = Granted::new()?;
    for value in 0..rounds {
        page.page().write(DATA, &[CELL, value]);
        ensure!(message(device, &page, 0, 2)? == i2c::OK, "the write failed");
        ensure!(message(device, &page, 0, 1)? == i2c::OK, "setting the offset failed");
        page.page().write(DATA, &[!value]);
        ensure!(message(device, &page, i2c::READ, 1)? == i2c::OK, "the read failed");
        let read = page.page().read_u8(DATA);
        ensure!(read == value, "the EEPROM has {read:#x}, {value:#x} was written");
    }
    Ok(())
}

/// Sends a message with the data in the page. Returns its status.
fn message(device: &mut Device, page: &Granted, flags: u32, length: usize) -> Result<u8> {
    page.page().write(0, &i2c::header(EEPROM, flags));
    page.page().write_u8(STATUS, UNWRITTEN);
    let header = Buffer::within(page, 0, 8, false)?;
    let status = Buffer::within(page, STATUS, 1, true)?;
    if length == 0 {
        device.queue(0)?.transfer(&[header, status])?;
    } else {
        let data = Buffer::within(page, DATA, length, flags == i2c::READ)?;
        device.queue(0)?.transfer(&[header, data, status])?;
    }
    Ok(page.page().read_u8(STATUS))
}

fn zero_length() -> Result<()> {
    let mut device = started(16)?;
    let page = Granted::new()?;
    let status = message(&mut device, &page, 0, 0)?;
    ensure!(status == i2c::ERR, "a message of length 0 ended with status {status}");
    i2c(&mut device, 1)
}

/// Where no RAM of the guest is.
fn outside(ram: core::ops::Range<u64>) -> [u64; 7] {
    // Xen's interrupt controller and the device's own registers are below RAM.
    [0, 0x0200_0000, ram.start - 16, ram.end, 1 << 63 | 8 << 12, u64::MAX - 4095, u64::MAX - 15]
}

/// Gives the adapter a ring of 16 entries, and sets DRIVER_OK. Returns Status.
fn start_at(device: &mut Device, addresses: [u64; 3]) -> Result<u32> {
    ensure!(device.agree(VERSION_1)?, "the device does not agree");
    let window = device.window;
    window.write(QUEUE_SEL, 0)?;
    window.write(QUEUE_SIZE, 16)?;
    for (register, address) in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(addresses) {
        window.write_wide(register, address)?;
    }
    window.write(QUEUE_READY, 1)?;
    device.advance(DRIVER_OK)
}

/// Each part of a ring in turn is outside of RAM, or begins in RAM and ends outside.
fn rings_outside() -> Result<()> {
    let pages = [Granted::new()?, Granted::new()?, Granted::new()?];
    let good = [0, 1, 2].map(|part: usize| pages.get(part).map_or(0, |page| page.address(0)));
    let ram = machine::ram();
    let mut device = Device::find(Kind::I2c)?;
    for part in 0..3 {
        for address in outside(ram.clone()).into_iter().chain([ram.end - 16]) {
            let mut addresses = good;
            if let Some(place) = addresses.get_mut(part) {
                *place = address;
            }
            let status = start_at(&mut device, addresses)?;
            ensure!(
                status & DEVICE_NEEDS_RESET != 0,
                "part {part} of a ring is at {address:#x}, and Status is {status:#x}"
            );
        }
    }
    drop(device);
    i2c(&mut started(16)?, 1)
}

/// The descriptor table ends with RAM. Nothing is made available, so the device does not use what is there.
fn ring_at_the_end() -> Result<()> {
    let (available, used) = (Granted::new()?, Granted::new()?);
    let mut device = Device::find(Kind::I2c)?;
    let addresses = [machine::ram().end - 256, available.address(0), used.address(0)];
    let status = start_at(&mut device, addresses)?;
    ensure!(status & (DRIVER_OK | DEVICE_NEEDS_RESET) == DRIVER_OK, "Status is {status:#x}");
    Ok(())
}

/// The data of a message is outside of RAM, or begins in RAM and ends outside.
fn buffers_outside() -> Result<()> {
    let page = Granted::new()?;
    let ram = machine::ram();
    let mut device = started(16)?;
    for address in outside(ram.clone()).into_iter().chain([ram.end - 2, u64::MAX - 1]) {
        for flags in [0, i2c::READ] {
            page.page().write(0, &i2c::header(EEPROM, flags));
            page.page().write_u8(STATUS, UNWRITTEN);
            let buffers = [
                Buffer::within(&page, 0, 8, false)?,
                Buffer { address, length: 4, is_written: flags == i2c::READ },
                Buffer::within(&page, STATUS, 1, true)?,
            ];
            device.queue(0)?.transfer(&buffers)?;
            let status = page.page().read_u8(STATUS);
            ensure!(status != i2c::OK, "a buffer at {address:#x} was used");
        }
    }
    i2c(&mut device, 1)
}
