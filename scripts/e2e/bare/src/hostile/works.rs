// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The check after an attack: all CPUs run, both devices start after a reset, and their requests have the
//! right effect.

use anyhow::{Result, ensure};

use crate::grants::Granted;
use crate::virtio::device::{Device, Kind};
use crate::virtio::gpio::{self, DIRECTION_IN, DIRECTION_OUT, GET_VALUE, SET_DIRECTION, SET_VALUE};
use crate::virtio::i2c;
use crate::virtio::queue::Buffer;
use crate::{cpus, platform};

/// The address field of this guest's EEPROM.
pub(super) const EEPROM: u16 = i2c::seven_bits(0x50);
/// The offset of the byte that is written in the EEPROM.
const BYTE: u8 = 0x10;
/// Two lines that the board connects to each other.
const OUT: u16 = 0;
const IN: u16 = 1;
/// Offsets of data and status in a request's page.
const DATA: usize = 32;
const STATUS: usize = 16;
/// Entries of each queue.
pub(super) const QUEUE_SIZE: u16 = 16;

pub(super) fn run() -> Result<()> {
    let (cpus, expected) = (cpus::on_all(|_| ()), platform::cpus());
    ensure!(cpus == expected, "{cpus} CPUs run, not {expected}");
    i2c()?;
    gpio()
}

/// Writes to the EEPROM and reads it back.
fn i2c() -> Result<()> {
    let page = Granted::new()?;
    let mut device = Device::started(Kind::I2c, QUEUE_SIZE)?;
    for value in [0x5a, 0xa5] {
        page.page().write(DATA, &[BYTE, value]);
        message(&mut device, &page, 0, 2)?;
        message(&mut device, &page, 0, 1)?;
        page.page().write(DATA, &[0]);
        message(&mut device, &page, i2c::READ, 1)?;
        let read = page.page().read_u8(DATA);
        ensure!(read == value, "the EEPROM reads {read:#x}, but {value:#x} was written");
    }
    Ok(())
}

/// Sends a message with the data in the page.
fn message(device: &mut Device, page: &Granted, flags: u32, length: usize) -> Result<()> {
    page.page().write(0, &i2c::header(EEPROM, flags));
    page.page().write_u8(STATUS, 0xff);
    let buffers = [
        Buffer::within(page, 0, 8, false)?,
        Buffer::within(page, DATA, length, flags == i2c::READ)?,
        Buffer::within(page, STATUS, 1, true)?,
    ];
    device.queue(0)?.transfer(&buffers)?;
    let status = page.page().read_u8(STATUS);
    ensure!(status == i2c::OK, "the I2C message ended with status {status}");
    Ok(())
}

/// Sets a line and reads the line that it is connected to.
fn gpio() -> Result<()> {
    let page = Granted::new()?;
    let mut device = Device::started(Kind::Gpio, QUEUE_SIZE)?;
    let mut send = |message, line, value| {
        page.page().write(0, &gpio::request(message, line, value));
        page.page().write(STATUS, &[0xff, 0xff]);
        let buffers = [Buffer::within(&page, 0, 8, false)?, Buffer::within(&page, STATUS, 2, true)?];
        device.queue(0)?.transfer(&buffers)?;
        let status = page.page().read_u8(STATUS);
        ensure!(status == gpio::OK, "GPIO message {message} for line {line} ended with status {status}");
        Ok(page.page().read_u8(STATUS + 1))
    };
    send(SET_VALUE, OUT, 0)?;
    send(SET_DIRECTION, OUT, DIRECTION_OUT)?;
    send(SET_DIRECTION, IN, DIRECTION_IN)?;
    for value in [1, 0, 1] {
        send(SET_VALUE, OUT, value)?;
        let seen = send(GET_VALUE, IN, 0)?;
        ensure!(u32::from(seen) == value, "the line reads {seen}, but {value} was set");
    }
    Ok(())
}
