// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether all is well after an attack: all CPUs answer, both devices come up after a reset, and a transfer does what it
//! is to do.

use anyhow::{Result, ensure};

use super::chains::{gpio_request, i2c_header};
use crate::grants::Granted;
use crate::jobs;
use crate::platform;
use crate::virtio::device::{Device, Kind, REQUIRED};
use crate::virtio::queue::Buffer;

/// The EEPROM that this guest has, and a place in it.
pub(super) const EEPROM: u16 = 0x50;
const PLACE: u8 = 0x10;
/// Two lines that the board wires to each other.
const OUT: u16 = 0;
const IN: u16 = 1;
/// VIRTIO_GPIO_MSG_SET_DIRECTION, GET_VALUE, SET_VALUE (virtio 1.3, 5.18.6), and directions.
pub(super) const SET_DIRECTION: u16 = 3;
pub(super) const GET_VALUE: u16 = 4;
const SET_VALUE: u16 = 5;
const OUTPUT: u32 = 1;
pub(super) const INPUT: u32 = 2;

pub(super) fn run() -> Result<()> {
    let (cpus, expected) = (jobs::on_all_cpus(|_| ()), platform::cpus());
    ensure!(cpus == expected, "only {cpus} CPUs of {expected} answer");
    i2c()?;
    gpio()
}

/// Writes to the EEPROM and reads it back.
fn i2c() -> Result<()> {
    let page = Granted::new()?;
    let mut device = started(Kind::I2c)?;
    for value in [0x5a, 0xa5] {
        page.page().write(32, &[PLACE, value]);
        message(&mut device, &page, false, 2)?;
        message(&mut device, &page, false, 1)?;
        page.page().write(32, &[0]);
        message(&mut device, &page, true, 1)?;
        let read = page.page().read_u8(32);
        ensure!(read == value, "the EEPROM has {read:#x}, {value:#x} was written");
    }
    Ok(())
}

/// One message, whose bytes are at 32 in the page.
fn message(device: &mut Device, page: &Granted, is_read: bool, length: u32) -> Result<()> {
    page.page().write(0, &i2c_header(EEPROM, is_read));
    page.page().write_u8(16, 0xff);
    let part = |offset, length, is_written| Buffer { address: page.address(offset), length, is_written };
    device.queue(0)?.transfer(&[part(0, 8, false), part(32, length, is_read), part(16, 1, true)])?;
    let status = page.page().read_u8(16);
    ensure!(status == 0, "the I2C message ended with {status}");
    Ok(())
}

/// Drives a line and sees it at the other end of the wire.
fn gpio() -> Result<()> {
    let page = Granted::new()?;
    let mut device = started(Kind::Gpio)?;
    let mut ask = |kind, line, value| {
        page.page().write(0, &gpio_request(kind, line, value));
        page.page().write(16, &[0xff, 0xff]);
        let part = |offset, length, is_written| Buffer { address: page.address(offset), length, is_written };
        device.queue(0)?.transfer(&[part(0, 8, false), part(16, 2, true)])?;
        let status = page.page().read_u8(16);
        ensure!(status == 0, "GPIO request {kind} of line {line} ended with {status}");
        Ok(page.page().read_u8(17))
    };
    for (kind, line, value) in [(SET_VALUE, OUT, 0), (SET_DIRECTION, OUT, OUTPUT), (SET_DIRECTION, IN, INPUT)]
    {
        ask(kind, line, value)?;
    }
    for value in [1, 0, 1] {
        ask(SET_VALUE, OUT, value)?;
        let seen = ask(GET_VALUE, IN, 0)?;
        ensure!(u32::from(seen) == value, "the line is {seen}, {value} was set");
    }
    Ok(())
}

pub(super) fn started(kind: Kind) -> Result<Device> {
    let mut device = Device::find(kind)?;
    device.start(REQUIRED | kind.feature(), 16)?;
    Ok(device)
}
