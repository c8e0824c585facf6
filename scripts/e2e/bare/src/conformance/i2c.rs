// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests of the I2C adapter (virtio 1.3, 5.16). The bus has an EEPROM at 0x50. This guest may also access
//! 0x51, where there is no target, and no other address.

use alloc::vec;
use alloc::vec::Vec;

use anyhow::{Context, Result, ensure};

use super::case::{Test, test};
use crate::grants::{Granted, PERMIT, READ_ONLY};
use crate::virtio::device::{Device, Kind, USUAL};
use crate::virtio::i2c::{self, ERR, FAIL_NEXT, OK, READ, seven_bits};
use crate::virtio::queue::{Buffer, Chain};

/// The tests of this group.
pub(super) const TESTS: &[Test] = &[
    test("5.16.6.1-write-and-read", write_and_read),
    test("5.16.6.1-used-length", used_length),
    test("5.16.6.1-zero-length", zero_length),
    test("5.16.6.4-an-address-without-a-target-fails", absent_target),
    test("5.16.6.4-an-address-of-another-guest-fails", addresses_of_others),
    test("5.16.6.1-10-bit-addresses", ten_bits),
    test("5.16.6.1-malformed-addresses-are-refused", no_address),
    test("5.16.6.1-reserved-flags-are-refused", reserved_flags),
    test("5.16.6.1-a-buffer-of-the-wrong-direction-is-refused", wrong_direction),
    test("2.7.4.1-i2c-any-framing", any_framing),
    test("5.16.6.4-fail-next-after-a-failure", fail_next),
    test("5.16.6.4-fail-next-ends-with-its-group", next_group),
    test("5.16.6.4-fail-next-with-an-address-of-another-guest", foreign_in_group),
    test("5.16.6.4-answers-in-order", order),
    test("5.16.6-a-request-shorter-than-a-header-is-refused", short),
    test("5.16.6-a-chain-without-room-for-a-status-is-used", no_status),
    test("5.16.6-a-read-only-page-is-not-written", read_only_buffer),
    test("5.16.6-the-longest-message", longest),
];

/// The address field of the EEPROM: a 7-bit address (5.16.6.1).
const EEPROM: u16 = seven_bits(0x50);
/// The address field of an address without a target.
const ABSENT: u16 = seven_bits(0x51);

/// The value of a status that the device has not written.
const NONE: u8 = 0xaa;

/// The offsets of data and status in the page of a message.
const DATA: usize = 16;
const STATUS: usize = 4095;

/// An I2C message.
#[derive(Clone, Debug)]
struct Message {
    address: u16,
    flags: u32,
    data: Vec<u8>,
}

fn write(address: u16, flags: u32, data: &[u8]) -> Message {
    Message { address, flags, data: data.to_vec() }
}

fn read(address: u16, flags: u32, length: usize) -> Message {
    Message { address, flags: flags | READ, data: vec![0; length] }
}

impl Message {
    fn header(&self) -> [u8; 8] {
        i2c::header(self.address, self.flags)
    }

    /// Builds the chain in a page: header, data if there is any, status (5.16.6.1).
    fn chain(&self, page: Granted) -> Result<Chain> {
        let reads = self.flags & READ != 0;
        page.page().write(0, &self.header());
        if !reads {
            page.page().write(DATA, &self.data);
        }
        page.page().write_u8(STATUS, NONE);
        let mut buffers = vec![Buffer::within(&page, 0, 8, false)?];
        if !self.data.is_empty() {
            buffers.push(Buffer::within(&page, DATA, self.data.len(), reads)?);
        }
        buffers.push(Buffer::within(&page, STATUS, 1, true)?);
        Ok(Chain { page, buffers })
    }
}

/// The result of a message.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u8,
    written: u32,
    data: Vec<u8>,
}

/// Sends messages with one kick, and waits for all of them.
fn exchange(device: &mut Device, messages: &[Message]) -> Result<Vec<Answer>> {
    let queue = device.queue(0)?;
    let mut sent = Vec::new();
    for message in messages {
        let chain = message.chain(Granted::new()?)?;
        sent.push((queue.offer(&chain.buffers)?, chain.page));
    }
    queue.kick()?;
    let mut answers = Vec::new();
    for (message, (head, page)) in messages.iter().zip(&sent) {
        let used = queue.wait()?;
        ensure!(used.head == u32::from(*head), "chain {} was used before chain {head}", used.head);
        let mut data = vec![0; message.data.len()];
        page.page().read(DATA, &mut data);
        answers.push(Answer { status: page.page().read_u8(STATUS), written: used.written, data });
    }
    Ok(answers)
}

fn statuses(device: &mut Device, messages: &[Message]) -> Result<Vec<u8>> {
    Ok(exchange(device, messages)?.iter().map(|answer| answer.status).collect())
}

/// Checks the statuses of messages.
fn expect(device: &mut Device, messages: &[Message], expected: &[u8]) -> Result<()> {
    let seen = statuses(device, messages)?;
    ensure!(seen == expected, "statuses {seen:?}, not {expected:?}, of {messages:x?}");
    Ok(())
}

fn adapter() -> Result<Device> {
    Device::started(Kind::I2c, 64)
}

/// Reads the EEPROM from offset `place` on.
fn eeprom(device: &mut Device, place: u8, length: usize) -> Result<Vec<u8>> {
    let answers = exchange(device, &[write(EEPROM, FAIL_NEXT, &[place]), read(EEPROM, 0, length)])?;
    ensure!(answers.iter().all(|answer| answer.status == OK), "the EEPROM cannot be read: {answers:?}");
    answers.into_iter().next_back().map(|answer| answer.data).context("there is no answer")
}

/// Returns a chain with one request without effect.
pub(super) fn harmless(page: Granted) -> Result<Chain> {
    write(EEPROM, 0, &[0]).chain(page)
}

/// Starts the adapter and sends a request.
pub(super) fn works(device: &mut Device) -> Result<()> {
    device.start(USUAL, 16)?;
    eeprom(device, 0, 1).map(drop)
}

fn write_and_read() -> Result<()> {
    let mut device = adapter()?;
    for seed in [0x11, 0x5a] {
        let bytes: Vec<u8> = (0..8).map(|place| place ^ seed).collect();
        let written = [&[0x40], bytes.as_slice()].concat();
        expect(&mut device, &[write(EEPROM, 0, &written)], &[OK])?;
        let back = eeprom(&mut device, 0x40, 8)?;
        ensure!(back == bytes, "{bytes:x?} was written, but {back:x?} was read");
    }
    Ok(())
}

/// 2.7.8: the number of bytes that the device has written, for an I2C write one byte of status.
fn used_length() -> Result<()> {
    let mut device = adapter()?;
    let answers = exchange(&mut device, &[write(EEPROM, FAIL_NEXT, &[0]), read(EEPROM, 0, 5)])?;
    let written: Vec<u32> = answers.iter().map(|answer| answer.written).collect();
    ensure!(written == [1, 6], "used lengths {written:?}");
    Ok(())
}

fn zero_length() -> Result<()> {
    let mut device = adapter()?;
    expect(&mut device, &[write(EEPROM, 0, &[])], &[OK])?;
    expect(&mut device, &[read(EEPROM, 0, 0)], &[OK])?;
    expect(&mut device, &[write(ABSENT, 0, &[])], &[ERR])?;
    expect(&mut device, &[read(ABSENT, 0, 0)], &[ERR])
}

fn absent_target() -> Result<()> {
    let mut device = adapter()?;
    expect(&mut device, &[write(ABSENT, 0, &[1, 2])], &[ERR])?;
    let answers = exchange(&mut device, &[read(ABSENT, 0, 4)])?;
    ensure!(answers.iter().all(|answer| answer.status == ERR), "{answers:?}");
    eeprom(&mut device, 0, 4).map(drop)
}

fn addresses_of_others() -> Result<()> {
    let mut device = adapter()?;
    for address in (0..0x80).filter(|address| ![EEPROM >> 1, ABSENT >> 1].contains(address)) {
        expect(&mut device, &[write(address << 1, 0, &[0])], &[ERR])?;
        expect(&mut device, &[read(address << 1, 0, 1)], &[ERR])?;
    }
    Ok(())
}

/// 5.16.6.1, figure of the 10-bit address: 11110, A9 and A8 in bits 7 to 1, A7 to A0 in bits 15 to 8.
fn ten_bits() -> Result<()> {
    let mut device = adapter()?;
    for address in [0x000, 0x050, 0x051, 0x148, 0x3ff_u16] {
        let wire = 0xf0 | (address >> 8) << 1 | (address & 0xff) << 8;
        // No target has a 10-bit address: 0x50 is not the EEPROM here.
        expect(&mut device, &[write(wire, 0, &[0])], &[ERR])?;
        expect(&mut device, &[read(wire, 0, 1)], &[ERR])?;
    }
    Ok(())
}

fn no_address() -> Result<()> {
    let mut device = adapter()?;
    for wire in [EEPROM | 1, EEPROM | 0x100, 0x50a0, 0xffff, 0x1f0 | 1] {
        expect(&mut device, &[read(wire, 0, 1)], &[ERR])?;
    }
    Ok(())
}

fn reserved_flags() -> Result<()> {
    let mut device = adapter()?;
    let before = eeprom(&mut device, 0x60, 1)?;
    for bit in 2..32 {
        expect(&mut device, &[write(EEPROM, 1 << bit, &[0x60, 0x99])], &[ERR])?;
    }
    ensure!(eeprom(&mut device, 0x60, 1)? == before, "a request with reserved flags was carried out");
    Ok(())
}

fn wrong_direction() -> Result<()> {
    let mut device = adapter()?;
    let page = Granted::new()?;
    for (flags, is_written) in [(READ, false), (0, true)] {
        page.page().write(0, &Message { address: EEPROM, flags, data: Vec::new() }.header());
        page.page().write_u8(STATUS, NONE);
        let chain = [
            Buffer::within(&page, 0, 8, false)?,
            Buffer::within(&page, DATA, 4, is_written)?,
            Buffer::within(&page, STATUS, 1, true)?,
        ];
        device.queue(0)?.transfer(&chain)?;
        ensure!(
            page.page().read_u8(STATUS) == ERR,
            "flags {flags}, buffer written by the device: {is_written}"
        );
    }
    Ok(())
}

/// The header in three buffers, the data in pieces, and one buffer with the end of the data and the status.
fn any_framing() -> Result<()> {
    let mut device = adapter()?;
    let expected = eeprom(&mut device, 0x40, 6)?;
    let page = Granted::new()?;
    let pointer = write(EEPROM, FAIL_NEXT, &[0x40]);
    page.page().write(0, &pointer.header());
    page.page().write_u8(8, 0x40);
    let in_pieces = [
        Buffer::within(&page, 0, 1, false)?,
        Buffer::within(&page, 1, 4, false)?,
        // The end of the header, and the data.
        Buffer::within(&page, 5, 4, false)?,
        Buffer::within(&page, STATUS, 1, true)?,
    ];
    let second = Granted::new()?;
    second.page().write(0, &read(EEPROM, 0, 6).header());
    let answer = [
        Buffer::within(&second, 0, 8, false)?,
        Buffer::within(&second, DATA, 2, true)?,
        Buffer::within(&second, 100, 5, true)?,
    ];
    let queue = device.queue(0)?;
    queue.offer(&in_pieces)?;
    queue.offer(&answer)?;
    queue.kick()?;
    queue.wait()?;
    queue.wait()?;
    let mut data = [0; 7];
    second.page().read(DATA, &mut data[..2]);
    second.page().read(100, &mut data[2..]);
    ensure!(page.page().read_u8(STATUS) == OK, "the request with a divided header failed");
    ensure!(data[6] == OK && data[..6] == expected, "{data:x?} was read, not {expected:x?}");
    Ok(())
}

/// The failed message and the following ones of its group fail, and are not carried out.
fn fail_next() -> Result<()> {
    let mut device = adapter()?;
    expect(&mut device, &[write(EEPROM, 0, &[0x70, 0x12])], &[OK])?;
    let group = [
        write(EEPROM, FAIL_NEXT, &[0x70]),
        write(ABSENT, FAIL_NEXT, &[0x70]),
        write(EEPROM, FAIL_NEXT, &[0x70, 0x34]),
        read(EEPROM, 0, 1),
    ];
    let seen = statuses(&mut device, &group)?;
    ensure!(seen.get(1..) == Some(&[ERR, ERR, ERR]), "statuses {seen:?}");
    ensure!(eeprom(&mut device, 0x70, 1)? == [0x12], "a message after the failure was carried out");
    Ok(())
}

fn next_group() -> Result<()> {
    let mut device = adapter()?;
    let messages = [
        write(ABSENT, FAIL_NEXT, &[0]),
        read(ABSENT, 0, 1),
        // A second group in the same kick.
        write(EEPROM, FAIL_NEXT, &[0x70]),
        read(EEPROM, 0, 1),
        // Two messages without a group.
        read(ABSENT, 0, 1),
        write(EEPROM, 0, &[0]),
    ];
    expect(&mut device, &messages, &[ERR, ERR, OK, OK, ERR, OK])
}

/// A group with an address that is not allowed is not carried out at all.
fn foreign_in_group() -> Result<()> {
    let mut device = adapter()?;
    expect(&mut device, &[write(EEPROM, 0, &[0x78, 0x56])], &[OK])?;
    let own = |flags| write(EEPROM, flags, &[0x78, 0x99]);
    let foreign = |flags| write(seven_bits(0x48), flags, &[0]);
    expect(&mut device, &[foreign(FAIL_NEXT), own(0)], &[ERR, ERR])?;
    expect(&mut device, &[own(FAIL_NEXT), foreign(0)], &[ERR, ERR])?;
    expect(&mut device, &[own(FAIL_NEXT), foreign(FAIL_NEXT), own(0)], &[ERR, ERR, ERR])?;
    ensure!(eeprom(&mut device, 0x78, 1)? == [0x56], "a part of the group was carried out");
    Ok(())
}

/// Sends eight groups with one kick. [`exchange`] checks their order.
fn order() -> Result<()> {
    let mut device = adapter()?;
    let one = |place: u8| [write(EEPROM, FAIL_NEXT, &[place]), read(EEPROM, 0, 1)];
    let messages: Vec<Message> = (0..8).flat_map(one).collect();
    let answers = exchange(&mut device, &messages)?;
    ensure!(answers.iter().all(|answer| answer.status == OK), "{answers:?}");
    Ok(())
}

/// Requests that are too short fail with a status, if there is room for it.
fn short() -> Result<()> {
    let mut device = adapter()?;
    let page = Granted::new()?;
    page.page().write(0, &write(EEPROM, 0, &[]).header());
    for length in 1..8 {
        page.page().write_u8(STATUS, NONE);
        let chain = [Buffer::within(&page, 0, length, false)?, Buffer::within(&page, STATUS, 1, true)?];
        device.queue(0)?.transfer(&chain)?;
        ensure!(page.page().read_u8(STATUS) == ERR, "a header of {length} bytes was accepted");
    }
    page.page().write_u8(STATUS, NONE);
    device.queue(0)?.transfer(&[Buffer::within(&page, STATUS, 1, true)?])?;
    ensure!(page.page().read_u8(STATUS) == ERR, "a request without a header was accepted");
    eeprom(&mut device, 0, 1).map(drop)
}

fn no_status() -> Result<()> {
    let mut device = adapter()?;
    let before = eeprom(&mut device, 0x60, 1)?;
    let page = Granted::new()?;
    page.page().write(0, &write(EEPROM, 0, &[]).header());
    page.page().write(8, &[0x60, 0x77]);
    let written = device.queue(0)?.transfer(&[Buffer::within(&page, 0, 10, false)?])?;
    ensure!(written == 0, "{written} bytes were written, but there is no room for any");
    ensure!(eeprom(&mut device, 0x60, 1)? == before, "a request without room for a status was carried out");
    Ok(())
}

/// The descriptor lets the device write the page, but the grant does not. The page is not written, and the
/// queue continues.
fn read_only_buffer() -> Result<()> {
    let mut device = adapter()?;
    let page = Granted::with_flags(PERMIT | READ_ONLY)?;
    let chain = read(EEPROM, 0, 4).chain(page)?;
    device.queue(0)?.transfer(&chain.buffers)?;
    ensure!(chain.page.page().read_u8(STATUS) == NONE, "a page that is granted read-only was written");
    eeprom(&mut device, 0, 1).map(drop)
}

fn longest() -> Result<()> {
    let mut device = adapter()?;
    let answers = exchange(&mut device, &[read(EEPROM, 0, 2048)])?;
    let statuses: Vec<u8> = answers.iter().map(|answer| answer.status).collect();
    ensure!(statuses == [OK], "reading 2048 bytes: {statuses:?}");
    Ok(())
}
