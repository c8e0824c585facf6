// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests of the GPIO controller (virtio 1.3, 5.18). It has four lines; the board connects the first to the
//! second.

use alloc::vec;
use alloc::vec::Vec;

use anyhow::{Context, Result, ensure};

use super::case::{Test, test};
use crate::grants::Granted;
use crate::machine::Width;
use crate::virtio::device::{Device, Kind, USUAL};
use crate::virtio::gpio::{
    self, DIRECTION_IN, DIRECTION_NONE, DIRECTION_OUT, ERR, GET_DIRECTION, GET_LINE_NAMES, GET_VALUE, OK,
    SET_DIRECTION, SET_IRQ_TYPE, SET_VALUE,
};
use crate::virtio::queue::{Buffer, Chain};
use crate::virtio::window::CONFIG;

/// The tests of this group.
pub(super) const TESTS: &[Test] = &[
    test("5.18.4-configuration", configuration),
    test("5.18.4-configuration-cannot-be-written", configuration_is_read_only),
    test("5.18.6.1-line-names", line_names),
    test("5.18.6.1-line-names-without-room", line_names_without_room),
    test("5.18.6.2-direction", direction),
    test("5.18.6.4-value-of-an-input", value_of_an_input),
    test("5.18.6.5-value-set-before-the-direction", value_before_direction),
    test("5.18.6.5-value-of-an-output", value_of_an_output),
    test("5.18.6.9-direction-none-discards-the-value", discard),
    test("5.18.6.9-unknown-lines-are-refused", no_line),
    test("5.18.6.9-unknown-messages-are-refused", no_message),
    test("5.18.6.9-invalid-values-are-refused", no_meaning),
    test("5.18.6.9-all-fields-are-set", all_fields),
    test("5.18.6.8-two-requests-for-a-line", two_for_a_line),
    test("5.18.6-requests-for-all-lines-at-once", all_at_once),
    test("5.18.6-requests-of-another-size-are-refused", other_sizes),
    test("5.18.6-a-chain-without-room-for-an-answer-is-used", no_answer),
    test("2.7.4.1-gpio-any-framing", any_framing),
];

pub(super) const LINES: u16 = 4;
/// Two lines that the board connects to each other.
pub(super) const OUT: u16 = 0;
pub(super) const IN: u16 = 1;
/// A line that is not connected.
const SPARE: u16 = 2;
/// The names of the lines, each with its NUL.
const NAMES: &[u8] = b"loop-out\0loop-in\0spare\0relay\0";

/// The value of an answer that the device has not written.
const NONE: u8 = 0xaa;

/// The offset of the answer in the page of a request.
const ANSWER: usize = 64;

/// Sends a request of any bytes with a buffer of `room` bytes for the answer. Returns this buffer.
fn send(device: &mut Device, request: &[u8], room: usize) -> Result<Vec<u8>> {
    let page = Granted::new()?;
    page.page().fill(NONE);
    page.page().write(0, request);
    let mut chain = Vec::new();
    if !request.is_empty() {
        chain.push(Buffer::within(&page, 0, request.len(), false)?);
    }
    if room > 0 {
        chain.push(Buffer::within(&page, ANSWER, room, true)?);
    }
    let written = device.queue(0)?.transfer(&chain)?;
    ensure!(usize::try_from(written)? <= room, "{written} bytes were written to a buffer of {room}");
    let mut answer = vec![0; room];
    page.page().read(ANSWER, &mut answer);
    Ok(answer)
}

/// Sends a request. Returns status and value.
pub(super) fn ask(device: &mut Device, message: u16, line: u16, value: u32) -> Result<[u8; 2]> {
    let answer = send(device, &gpio::request(message, line, value), 2)?;
    <[u8; 2]>::try_from(answer).ok().context("the answer does not have two bytes")
}

/// Sends a request that must succeed. Returns the value.
pub(super) fn request(device: &mut Device, message: u16, line: u16, value: u32) -> Result<u8> {
    let [status, answer] = ask(device, message, line, value)?;
    ensure!(status == OK, "message {message} for line {line}, value {value}: status {status}");
    Ok(answer)
}

/// Sends a request that must fail with value 0.
pub(super) fn refused(device: &mut Device, message: u16, line: u16, value: u32) -> Result<()> {
    let answer = ask(device, message, line, value)?;
    ensure!(answer == [ERR, 0], "message {message} for line {line}, value {value:#x}: {answer:?}");
    Ok(())
}

fn expect(device: &mut Device, message: u16, line: u16, expected: u8) -> Result<()> {
    let seen = request(device, message, line, 0)?;
    ensure!(seen == expected, "message {message} for line {line}: {seen}, not {expected}");
    Ok(())
}

/// Starts the controller with all lines unused.
pub(super) fn controller() -> Result<Device> {
    let mut device = Device::started(Kind::Gpio, 64)?;
    for line in 0..LINES {
        request(&mut device, SET_DIRECTION, line, DIRECTION_NONE)?;
    }
    Ok(device)
}

/// Returns a chain with one request without effect.
pub(super) fn harmless(page: Granted) -> Result<Chain> {
    page.page().write(0, &gpio::request(GET_DIRECTION, 0, 0));
    let buffers = vec![Buffer::within(&page, 0, 8, false)?, Buffer::within(&page, ANSWER, 2, true)?];
    Ok(Chain { page, buffers })
}

/// Starts the controller and sends a request.
pub(super) fn works(device: &mut Device) -> Result<()> {
    device.start(USUAL, 16)?;
    reads_a_line(device)
}

/// Sends a request that every driver sends.
pub(super) fn reads_a_line(device: &mut Device) -> Result<()> {
    request(device, GET_VALUE, SPARE, 0).map(drop)
}

fn load(device: &Device, offset: u64, width: Width) -> Result<u64> {
    device.window.load(CONFIG + offset, width).ok().context("abort")
}

fn configuration() -> Result<()> {
    let device = Device::find(Kind::Gpio)?;
    ensure!(load(&device, 0, Width::Half)? == u64::from(LINES), "ngpio");
    ensure!(load(&device, 2, Width::Half)? == 0, "padding");
    ensure!(load(&device, 4, Width::Word)? == u64::try_from(NAMES.len())?, "gpio_names_size");
    Ok(())
}

fn configuration_is_read_only() -> Result<()> {
    let device = Device::find(Kind::Gpio)?;
    for width in [Width::Byte, Width::Half, Width::Word] {
        for offset in (0..8).filter(|offset| u64::is_multiple_of(*offset, width.bytes())) {
            // An abort also means that nothing was written.
            let _ = device.window.store(CONFIG + offset, width, u64::MAX);
        }
    }
    configuration()
}

fn line_names() -> Result<()> {
    let mut device = controller()?;
    let answer = send(&mut device, &gpio::request(GET_LINE_NAMES, 0, 0), 1 + NAMES.len())?;
    ensure!(answer.split_first() == Some((&OK, NAMES)), "{answer:?}");
    Ok(())
}

fn line_names_without_room() -> Result<()> {
    let mut device = controller()?;
    for room in [1, 2, NAMES.len()] {
        let answer = send(&mut device, &gpio::request(GET_LINE_NAMES, 0, 0), room)?;
        ensure!(answer.first() == Some(&ERR), "with a buffer of {room} bytes: {answer:?}");
    }
    Ok(())
}

fn direction() -> Result<()> {
    let mut device = controller()?;
    expect(&mut device, GET_DIRECTION, SPARE, 0)?;
    for (direction, expected) in
        [(DIRECTION_IN, 2), (DIRECTION_OUT, 1), (DIRECTION_IN, 2), (DIRECTION_NONE, 0)]
    {
        request(&mut device, SET_DIRECTION, SPARE, direction)?;
        expect(&mut device, GET_DIRECTION, SPARE, expected)?;
        // The direction of another line has not changed.
        expect(&mut device, GET_DIRECTION, SPARE + 1, 0)?;
    }
    Ok(())
}

fn value_of_an_input() -> Result<()> {
    let mut device = controller()?;
    request(&mut device, SET_DIRECTION, IN, DIRECTION_IN)?;
    request(&mut device, SET_DIRECTION, OUT, DIRECTION_OUT)?;
    for value in [1, 0, 1, 1, 0] {
        request(&mut device, SET_VALUE, OUT, value)?;
        expect(&mut device, GET_VALUE, IN, u8::try_from(value)?)?;
    }
    Ok(())
}

/// The value takes effect when the line becomes an output.
fn value_before_direction() -> Result<()> {
    let mut device = controller()?;
    request(&mut device, SET_DIRECTION, IN, DIRECTION_IN)?;
    for value in [1, 0] {
        request(&mut device, SET_VALUE, OUT, value)?;
        request(&mut device, SET_DIRECTION, OUT, DIRECTION_OUT)?;
        expect(&mut device, GET_VALUE, IN, u8::try_from(value)?)?;
        request(&mut device, SET_DIRECTION, OUT, DIRECTION_NONE)?;
    }
    Ok(())
}

fn value_of_an_output() -> Result<()> {
    let mut device = controller()?;
    request(&mut device, SET_DIRECTION, OUT, DIRECTION_OUT)?;
    for value in [1, 0] {
        request(&mut device, SET_VALUE, OUT, value)?;
        expect(&mut device, GET_VALUE, OUT, u8::try_from(value)?)?;
    }
    Ok(())
}

fn discard() -> Result<()> {
    let mut device = controller()?;
    request(&mut device, SET_DIRECTION, IN, DIRECTION_IN)?;
    request(&mut device, SET_VALUE, OUT, 1)?;
    request(&mut device, SET_DIRECTION, OUT, DIRECTION_OUT)?;
    expect(&mut device, GET_VALUE, IN, 1)?;
    request(&mut device, SET_DIRECTION, OUT, DIRECTION_NONE)?;
    expect(&mut device, GET_DIRECTION, OUT, 0)?;
    request(&mut device, SET_DIRECTION, OUT, DIRECTION_OUT)?;
    expect(&mut device, GET_VALUE, IN, 0)
}

fn no_line() -> Result<()> {
    let mut device = controller()?;
    for line in [LINES, LINES + 1, 15, 255, 256, 0x7fff, u16::MAX] {
        for message in [GET_DIRECTION, SET_DIRECTION, GET_VALUE, SET_VALUE, SET_IRQ_TYPE] {
            refused(&mut device, message, line, 1)?;
        }
    }
    Ok(())
}

fn no_message() -> Result<()> {
    let mut device = controller()?;
    for message in [0, 7, 8, 0x101, 0x400, u16::MAX] {
        refused(&mut device, message, SPARE, 0)?;
    }
    Ok(())
}

fn no_meaning() -> Result<()> {
    let mut device = controller()?;
    let values = [
        (SET_DIRECTION, 3),
        (SET_DIRECTION, 0x101),
        (SET_VALUE, 2),
        (SET_VALUE, 0x1_0001),
        (SET_VALUE, u32::MAX),
    ];
    for (message, value) in values {
        refused(&mut device, message, SPARE, value)?;
    }
    for value in [5, 6, 7, 9, 0x10, 0x100, u32::MAX] {
        refused(&mut device, SET_IRQ_TYPE, SPARE, value)?;
    }
    expect(&mut device, GET_DIRECTION, SPARE, 0)
}

/// The device writes both bytes of an answer for every message.
fn all_fields() -> Result<()> {
    let mut device = controller()?;
    for (message, value) in [(SET_DIRECTION, 2), (SET_VALUE, 0), (SET_IRQ_TYPE, 1), (SET_IRQ_TYPE, 0)] {
        let answer = ask(&mut device, message, SPARE, value)?;
        ensure!(answer == [OK, 0], "message {message}: {answer:?}");
    }
    Ok(())
}

/// Offers requests with one kick. Returns the answer to each, and the order in which the chains were used.
fn at_once(device: &mut Device, requests: &[[u8; 8]]) -> Result<(Vec<[u8; 2]>, Vec<usize>)> {
    let queue = device.queue(0)?;
    let mut sent = Vec::new();
    for request in requests {
        let page = Granted::new()?;
        page.page().fill(NONE);
        page.page().write(0, request);
        let head =
            queue.offer(&[Buffer::within(&page, 0, 8, false)?, Buffer::within(&page, ANSWER, 2, true)?])?;
        sent.push((u32::from(head), page));
    }
    queue.kick()?;
    let mut order = Vec::new();
    for _ in requests {
        let used = queue.wait()?;
        let chain = sent.iter().position(|(head, _)| *head == used.head);
        let chain = chain.context("an unknown chain was used")?;
        ensure!(!order.contains(&chain), "chain {} was used twice", used.head);
        order.push(chain);
    }
    let answer = |(_, page): &(u32, Granted)| [page.page().read_u8(ANSWER), page.page().read_u8(ANSWER + 1)];
    Ok((sent.iter().map(answer).collect(), order))
}

/// A driver may send them (5.18.6.8), and the device handles them in order (5.18.6.9).
fn two_for_a_line() -> Result<()> {
    let mut device = controller()?;
    let set = |value| gpio::request(SET_DIRECTION, SPARE, value);
    let get = gpio::request(GET_DIRECTION, SPARE, 0);
    let (answers, order) = at_once(&mut device, &[set(DIRECTION_IN), get, set(DIRECTION_OUT), get])?;
    ensure!(answers == [[OK, 0], [OK, 2], [OK, 0], [OK, 1]], "{answers:?}");
    ensure!(order == [0, 1, 2, 3], "the requests were used in the order {order:?}");
    expect(&mut device, GET_DIRECTION, SPARE, 1)
}

/// Requests for different lines may be used in any order (5.18.6).
fn all_at_once() -> Result<()> {
    let mut device = controller()?;
    let requests: Vec<[u8; 8]> =
        (0..LINES).map(|line| gpio::request(SET_DIRECTION, line, DIRECTION_IN)).collect();
    let (answers, _) = at_once(&mut device, &requests)?;
    ensure!(answers.iter().all(|answer| *answer == [OK, 0]), "{answers:?}");
    for line in 0..LINES {
        expect(&mut device, GET_DIRECTION, line, 2)?;
    }
    Ok(())
}

fn other_sizes() -> Result<()> {
    let mut device = controller()?;
    let request = [gpio::request(SET_DIRECTION, SPARE, DIRECTION_IN), [0; 8]].concat();
    for length in [0, 1, 2, 4, 7, 9, 16] {
        let answer = send(&mut device, request.get(..length).unwrap_or_default(), 2)?;
        ensure!(answer == [ERR, 0], "a request of {length} bytes: {answer:?}");
    }
    expect(&mut device, GET_DIRECTION, SPARE, 0)
}

/// The device uses the chain although it cannot write a status, and the queue continues.
fn no_answer() -> Result<()> {
    let mut device = controller()?;
    for room in [0, 1] {
        send(&mut device, &gpio::request(GET_DIRECTION, SPARE, 0), room)?;
        expect(&mut device, GET_DIRECTION, SPARE, 0)?;
    }
    Ok(())
}

fn any_framing() -> Result<()> {
    let mut device = controller()?;
    request(&mut device, SET_DIRECTION, SPARE, DIRECTION_IN)?;
    let page = Granted::new()?;
    page.page().write(0, &gpio::request(GET_DIRECTION, SPARE, 0));
    let chain = [
        Buffer::within(&page, 0, 1, false)?,
        Buffer::within(&page, 1, 5, false)?,
        Buffer::within(&page, 6, 2, false)?,
        Buffer::within(&page, 100, 1, true)?,
        Buffer::within(&page, 200, 1, true)?,
    ];
    device.queue(0)?.transfer(&chain)?;
    let answer = [page.page().read_u8(100), page.page().read_u8(200)];
    ensure!(answer == [OK, 2], "{answer:?}");
    Ok(())
}
