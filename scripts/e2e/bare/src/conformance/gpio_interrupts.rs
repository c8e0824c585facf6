// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interrupts of the GPIO controller (virtio 1.3, 5.18.6.6 and 5.18.7). A type enables the interrupt of a
//! line, a buffer unmasks it, and the device uses the buffer when the event occurs. The first line drives the
//! second.

use alloc::vec::Vec;

use anyhow::{Context, Result, ensure};

use super::case::{Test, test};
use super::gpio::{IN, LINES, OUT, controller, refused, request};
use crate::grants::Granted;
use crate::virtio::device::Device;
use crate::virtio::gpio::{
    DIRECTION_IN, DIRECTION_NONE, DIRECTION_OUT, GET_VALUE, SET_DIRECTION, SET_IRQ_TYPE, SET_VALUE,
};
use crate::virtio::queue::Buffer;

/// The tests of this group.
pub(super) const TESTS: &[Test] = &[
    test("5.18.7-rising-edge", || edge(RISING, &[1])),
    test("5.18.7-falling-edge", || edge(FALLING, &[1, 0])),
    test("5.18.7-both-edges", both),
    test("5.18.7-only-the-configured-edge", only_that_edge),
    test("5.18.6.9-an-edge-is-latched-while-masked", latched),
    test("5.18.6.9-several-edges-while-masked-are-one-interrupt", latched_once),
    test("5.18.6.9-type-none-discards-a-latched-edge", none_discards),
    test("5.18.6.9-direction-none-discards-the-interrupt", direction_discards),
    test("5.18.7.1-an-active-level-interrupts-again", level),
    test("5.18.6.9-a-level-is-not-latched", level_not_latched),
    test("5.18.7.3-type-none-returns-the-buffer", none_returns),
    test("5.18.7-two-lines-with-a-buffer-each", two_lines),
    test("5.18.7.2-a-second-buffer-for-a-line-is-returned", second_buffer),
    test("5.18.7-buffers-for-unknown-lines-are-returned", no_line),
    test("5.18.7-buffers-of-another-size-are-returned", other_sizes),
    test("5.18.6.8-an-output-has-no-interrupts", output),
    test("2.4-reset-while-interrupts-are-unmasked", reset),
];

const NO_INTERRUPT: u32 = 0;
const RISING: u32 = 1;
const FALLING: u32 = 2;
const BOTH: u32 = 3;
const HIGH: u32 = 4;

const INVALID: u8 = 0;
const VALID: u8 = 1;
/// The value of a status that the device has not written.
const NONE: u8 = 0xaa;

/// The offset of the status in the page of a buffer.
const STATUS: usize = 64;
/// The event queue.
const EVENTS: usize = 1;

/// The buffers that the device has: head and page of each.
#[derive(Default)]
struct Lent(Vec<(u32, Granted)>);

impl Lent {
    /// Unmasks a line: offers a buffer for its next event.
    fn unmask(&mut self, device: &mut Device, line: u16) -> Result<()> {
        self.lend(device, &line.to_le_bytes(), 1)
    }

    fn lend(&mut self, device: &mut Device, bytes: &[u8], room: usize) -> Result<()> {
        let page = Granted::new()?;
        page.page().write(0, bytes);
        page.page().write_u8(STATUS, NONE);
        let mut chain = Vec::new();
        if !bytes.is_empty() {
            chain.push(Buffer::within(&page, 0, bytes.len(), false)?);
        }
        if room > 0 {
            chain.push(Buffer::within(&page, STATUS, room, true)?);
        }
        let queue = device.queue(EVENTS)?;
        let head = queue.offer(&chain)?;
        queue.kick()?;
        self.0.push((head.into(), page));
        Ok(())
    }

    /// Waits for the next used buffer. Returns its line and its status.
    fn next(&mut self, device: &mut Device) -> Result<(u16, u8)> {
        let used = device.queue(EVENTS)?.wait()?;
        let place =
            self.0.iter().position(|(head, _)| *head == used.head).context("an unknown buffer was used")?;
        let (_, page) = self.0.swap_remove(place);
        Ok((page.page().read_u16(0), page.page().read_u8(STATUS)))
    }

    /// Waits for the next used buffer, which must be that of the input, with this status.
    fn expect(&mut self, device: &mut Device, status: u8) -> Result<()> {
        let next = self.next(device)?;
        ensure!(next == (IN, status), "line and status {next:?}, not {:?}", (IN, status));
        Ok(())
    }

    /// Unmasks the input and disables its interrupt. The device must return the buffer as invalid: nothing
    /// was pending.
    fn expect_nothing(&mut self, device: &mut Device) -> Result<()> {
        self.unmask(device, IN)?;
        request(device, SET_IRQ_TYPE, IN, NO_INTERRUPT)?;
        self.expect(device, INVALID).context("an interrupt was pending")
    }
}

/// Starts the controller with an output at 0 and the connected input with interrupts of this type.
fn prepared(trigger: u32) -> Result<(Device, Lent)> {
    let mut device = controller()?;
    request(&mut device, SET_DIRECTION, OUT, DIRECTION_OUT)?;
    request(&mut device, SET_DIRECTION, IN, DIRECTION_IN)?;
    request(&mut device, SET_IRQ_TYPE, IN, trigger)?;
    Ok((device, Lent::default()))
}

/// Sets the output, and so the input.
fn drive(device: &mut Device, value: u32) -> Result<()> {
    request(device, SET_VALUE, OUT, value)?;
    let seen = request(device, GET_VALUE, IN, 0)?;
    ensure!(u32::from(seen) == value, "the input is {seen}, but the output is {value}");
    Ok(())
}

fn edge(trigger: u32, values: &[u32]) -> Result<()> {
    let (mut device, mut lent) = prepared(trigger)?;
    lent.unmask(&mut device, IN)?;
    for &value in values {
        drive(&mut device, value)?;
    }
    lent.expect(&mut device, VALID)?;
    lent.expect_nothing(&mut device)
}

fn both() -> Result<()> {
    let (mut device, mut lent) = prepared(BOTH)?;
    for value in [1, 0, 1, 0] {
        lent.unmask(&mut device, IN)?;
        drive(&mut device, value)?;
        lent.expect(&mut device, VALID)?;
    }
    lent.expect_nothing(&mut device)
}

fn only_that_edge() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    for _ in 0..3 {
        lent.unmask(&mut device, IN)?;
        drive(&mut device, 1)?;
        lent.expect(&mut device, VALID)?;
        // The line is masked now: this edge would be latched if it were of the configured type.
        drive(&mut device, 0)?;
    }
    lent.expect_nothing(&mut device)
}

fn latched() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    drive(&mut device, 1)?;
    drive(&mut device, 0)?;
    lent.unmask(&mut device, IN)?;
    lent.expect(&mut device, VALID)
}

/// Several edges between two buffers cause one interrupt.
fn latched_once() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    for value in [1, 0, 1, 0, 1, 0] {
        drive(&mut device, value)?;
    }
    // A later interrupt of the same line, and then no more.
    lent.unmask(&mut device, IN)?;
    lent.expect(&mut device, VALID)?;
    request(&mut device, SET_IRQ_TYPE, IN, NO_INTERRUPT)?;
    request(&mut device, SET_IRQ_TYPE, IN, RISING)?;
    lent.expect_nothing(&mut device)
}

fn none_discards() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    drive(&mut device, 1)?;
    request(&mut device, SET_IRQ_TYPE, IN, NO_INTERRUPT)?;
    request(&mut device, SET_IRQ_TYPE, IN, RISING)?;
    lent.expect_nothing(&mut device)
}

fn direction_discards() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    drive(&mut device, 1)?;
    request(&mut device, SET_DIRECTION, IN, DIRECTION_NONE)?;
    request(&mut device, SET_DIRECTION, IN, DIRECTION_IN)?;
    request(&mut device, SET_IRQ_TYPE, IN, RISING)?;
    lent.expect_nothing(&mut device)
}

fn level() -> Result<()> {
    let (mut device, mut lent) = prepared(HIGH)?;
    lent.unmask(&mut device, IN)?;
    drive(&mut device, 1)?;
    lent.expect(&mut device, VALID)?;
    for _ in 0..5 {
        lent.unmask(&mut device, IN)?;
        lent.expect(&mut device, VALID)?;
    }
    drive(&mut device, 0)?;
    lent.expect_nothing(&mut device)
}

fn level_not_latched() -> Result<()> {
    let (mut device, mut lent) = prepared(HIGH)?;
    drive(&mut device, 1)?;
    drive(&mut device, 0)?;
    lent.expect_nothing(&mut device)
}

fn none_returns() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    lent.expect_nothing(&mut device)?;
    // Enabled and unmasked again.
    request(&mut device, SET_IRQ_TYPE, IN, FALLING)?;
    lent.expect_nothing(&mut device)
}

fn two_lines() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    request(&mut device, SET_DIRECTION, 2, DIRECTION_IN)?;
    request(&mut device, SET_IRQ_TYPE, 2, RISING)?;
    lent.unmask(&mut device, 2)?;
    lent.unmask(&mut device, IN)?;
    drive(&mut device, 1)?;
    // The second buffer is used first; that of the other line remains.
    lent.expect(&mut device, VALID)?;
    request(&mut device, SET_IRQ_TYPE, 2, NO_INTERRUPT)?;
    let next = lent.next(&mut device)?;
    ensure!(next == (2, INVALID), "line and status {next:?}");
    Ok(())
}

/// A driver must not offer it. The first buffer remains and is used at the edge.
fn second_buffer() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    lent.unmask(&mut device, IN)?;
    lent.unmask(&mut device, IN)?;
    lent.expect(&mut device, INVALID)?;
    drive(&mut device, 1)?;
    lent.expect(&mut device, VALID)
}

fn no_line() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    for line in [LINES, 255, 256, u16::MAX] {
        lent.unmask(&mut device, line)?;
        let next = lent.next(&mut device)?;
        ensure!(next == (line, INVALID), "line and status {next:?}");
    }
    lent.expect_nothing(&mut device)
}

fn other_sizes() -> Result<()> {
    let (mut device, mut lent) = prepared(RISING)?;
    for (length, room) in [(0, 1), (1, 1), (3, 1), (8, 1), (2, 0)] {
        lent.lend(&mut device, [1; 8].get(..length).unwrap_or_default(), room)?;
        let (_, status) = lent.next(&mut device)?;
        ensure!(
            status == if room == 0 { NONE } else { INVALID },
            "{length} bytes, room for {room}: {status}"
        );
    }
    lent.expect_nothing(&mut device)
}

fn output() -> Result<()> {
    let (mut device, _) = prepared(RISING)?;
    refused(&mut device, SET_IRQ_TYPE, OUT, RISING)?;
    refused(&mut device, SET_DIRECTION, IN, DIRECTION_OUT)
}

/// After a reset, the device does not use an offered buffer, and writes no ring.
fn reset() -> Result<()> {
    let (mut device, mut lent) = prepared(BOTH)?;
    lent.unmask(&mut device, IN)?;
    device.reset()?;
    ensure!(!lent.0.iter().any(|(_, page)| page.is_in_use()), "the buffer is in use after the reset");
    let (mut device, mut lent) = prepared(RISING)?;
    lent.unmask(&mut device, IN)?;
    drive(&mut device, 1)?;
    lent.expect(&mut device, VALID)
}
