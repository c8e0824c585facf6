// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that means no harm and is as busy as it can be: what an attack is compared with. It keeps both devices at
//! work, with as many requests at a time as a driver may have, all of them in order.

use alloc::vec::Vec;

use anyhow::{Result, ensure};

use super::chains::{gpio_request, i2c_header};
use super::works::{EEPROM, GET_VALUE, INPUT, SET_DIRECTION, started};
use crate::clock::Moment;
use crate::grants::Granted;
use crate::interrupts;
use crate::jobs::Job;
use crate::virtio::device::{Device, Kind};
use crate::virtio::queue::{Buffer, LIMIT};
use crate::virtio::window::{INTERRUPT_ACK, INTERRUPT_STATUS};

/// I2C messages at a time: what a ring has room for.
const MESSAGES: usize = 5;
/// The lines that this guest has.
const LINES: u16 = 4;
/// Where in its page a request has its buffer and its status.
const BUFFER: usize = 32;
const STATUS: usize = 16;

/// A request that is made again and again.
struct Request {
    page: Granted,
    parts: Vec<Buffer>,
}

impl Request {
    fn new(header: &[u8], buffer: Option<u32>, status: u32) -> Result<Self> {
        let page = Granted::new()?;
        page.page().write(0, header);
        let part = |offset, length, is_written| Buffer { address: page.address(offset), length, is_written };
        let mut parts = alloc::vec![part(0, 8, false)];
        parts.extend(buffer.map(|length| part(BUFFER as u64, length, true)));
        parts.push(part(STATUS as u64, status, true));
        Ok(Self { page, parts })
    }
}

/// A device at work.
struct Working {
    device: Device,
    requests: Vec<Request>,
}

impl Working {
    fn i2c() -> Result<Self> {
        let message = |_| Request::new(&i2c_header(EEPROM, true), Some(1), 1);
        Ok(Self { device: started(Kind::I2c)?, requests: (0..MESSAGES).map(message).collect::<Result<_>>()? })
    }

    fn gpio() -> Result<Self> {
        // One request for a line at a time, as Linux's driver does.
        let of_all_lines = |kind, value| {
            let request = |line| Request::new(&gpio_request(kind, line, value), None, 2);
            (0..LINES).map(request).collect::<Result<Vec<_>>>()
        };
        let mut working =
            Self { device: started(Kind::Gpio)?, requests: of_all_lines(SET_DIRECTION, INPUT)? };
        working.ask()?;
        working.take()?;
        working.requests = of_all_lines(GET_VALUE, 0)?;
        Ok(working)
    }

    fn ask(&mut self) -> Result<()> {
        let queue = self.device.queue(0)?;
        for Request { page, parts } in &self.requests {
            page.page().write_u8(STATUS, 0xff);
            queue.offer(parts)?;
        }
        queue.kick()
    }

    fn take(&mut self) -> Result<()> {
        let queue = self.device.queue(0)?;
        let is_done = || queue.ring.used_index() == queue.ring.available_index();
        ensure!(interrupts::wait(Some(Moment::after(LIMIT)), is_done), "a device does not answer");
        while queue.ring.take().is_some() {}
        let status = queue.window.read(INTERRUPT_STATUS)?;
        queue.window.write(INTERRUPT_ACK, status)?;
        for Request { page, .. } in &self.requests {
            let status = page.page().read_u8(STATUS);
            ensure!(status == 0, "a request ended with {status}");
        }
        Ok(())
    }
}

pub(super) fn run(job: &Job, rounds: u64) -> Result<()> {
    let mut devices = [Working::i2c()?, Working::gpio()?];
    super::begin();
    for _ in 0..rounds {
        devices.iter_mut().try_for_each(Working::ask)?;
        devices.iter_mut().try_for_each(Working::take)?;
    }
    job.say(format_args!("rounds={rounds}"));
    Ok(())
}
