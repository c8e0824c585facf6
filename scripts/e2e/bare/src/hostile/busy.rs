// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The busiest well-behaved guest, the reference for attacks: it keeps as many requests in flight on both
//! devices as a driver may.

use alloc::vec;
use alloc::vec::Vec;

use anyhow::{Result, ensure};

use super::works::{EEPROM, QUEUE_SIZE};
use crate::clock::Moment;
use crate::grants::Granted;
use crate::interrupts;
use crate::jobs::{self, Job};
use crate::virtio::device::{Device, Kind};
use crate::virtio::gpio::{self, DIRECTION_IN, GET_VALUE, SET_DIRECTION};
use crate::virtio::i2c;
use crate::virtio::queue::{Buffer, Chain, LIMIT};
use crate::virtio::window::{INTERRUPT_ACK, INTERRUPT_STATUS};

/// The number of I2C messages at a time: what the queue has room for.
const MESSAGES: usize = 5;
/// The number of lines of this guest.
const LINES: u16 = 4;
/// Offsets of data and status in a request's page.
const DATA: usize = 32;
const STATUS: usize = 16;

/// A request that is sent repeatedly.
fn request(header: &[u8], data: Option<usize>, answer: usize) -> Result<Chain> {
    let page = Granted::new()?;
    page.page().write(0, header);
    let mut buffers = vec![Buffer::within(&page, 0, 8, false)?];
    if let Some(length) = data {
        buffers.push(Buffer::within(&page, DATA, length, true)?);
    }
    buffers.push(Buffer::within(&page, STATUS, answer, true)?);
    Ok(Chain { page, buffers })
}

/// A device and the requests that it gets.
struct Busy {
    device: Device,
    requests: Vec<Chain>,
}

impl Busy {
    fn i2c() -> Result<Self> {
        let message = |_| request(&i2c::header(EEPROM, i2c::READ), Some(1), 1);
        let requests = (0..MESSAGES).map(message).collect::<Result<_>>()?;
        Ok(Self { device: Device::started(Kind::I2c, QUEUE_SIZE)?, requests })
    }

    /// Sends one request at a time for each line, as Linux's driver does.
    fn gpio() -> Result<Self> {
        let for_all_lines = |message, value| {
            let request = |line| request(&gpio::request(message, line, value), None, 2);
            (0..LINES).map(request).collect::<Result<Vec<_>>>()
        };
        let requests = for_all_lines(SET_DIRECTION, DIRECTION_IN)?;
        let mut busy = Self { device: Device::started(Kind::Gpio, QUEUE_SIZE)?, requests };
        busy.send()?;
        busy.receive()?;
        busy.requests = for_all_lines(GET_VALUE, 0)?;
        Ok(busy)
    }

    fn send(&mut self) -> Result<()> {
        let queue = self.device.queue(0)?;
        for Chain { page, buffers } in &self.requests {
            page.page().write_u8(STATUS, 0xff);
            queue.offer(buffers)?;
        }
        queue.kick()
    }

    /// Waits for all requests. Returns an error unless all succeeded.
    fn receive(&mut self) -> Result<()> {
        let queue = self.device.queue(0)?;
        let is_done = || queue.ring.used_index() == queue.ring.available_index();
        ensure!(interrupts::wait(Some(Moment::after(LIMIT)), is_done), "no answer within {LIMIT:?}");
        while queue.ring.take().is_some() {}
        let status = queue.window.read(INTERRUPT_STATUS)?;
        queue.window.write(INTERRUPT_ACK, status)?;
        for Chain { page, .. } in &self.requests {
            let status = page.page().read_u8(STATUS);
            ensure!(status == 0, "a request ended with status {status}");
        }
        Ok(())
    }
}

pub(super) fn run(job: &Job, rounds: u64) -> Result<()> {
    let mut devices = [Busy::i2c()?, Busy::gpio()?];
    jobs::announce_begin();
    for _ in 0..rounds {
        devices.iter_mut().try_for_each(Busy::send)?;
        devices.iter_mut().try_for_each(Busy::receive)?;
    }
    job.print(format_args!("rounds={rounds}"));
    Ok(())
}
