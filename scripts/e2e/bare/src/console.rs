// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reading lines from the console.

use alloc::string::String;
use core::mem;

use crate::clock::Moment;
use crate::{interrupts, uart};

/// The length of a line from which characters are dropped. No frame is as long.
const LINE_LIMIT: usize = 256;

/// Collects the characters of a line.
#[derive(Debug, Default)]
pub struct Reader {
    line: String,
}

impl Reader {
    /// Waits for a line, until `end` at most.
    pub fn line(&mut self, end: Option<Moment>) -> Option<String> {
        loop {
            if let Some(line) = self.take() {
                return Some(line);
            }
            uart::unmask_interrupt();
            if !interrupts::wait(end, uart::has_received) {
                return None;
            }
        }
    }

    /// Takes the received characters up to the end of a line.
    fn take(&mut self) -> Option<String> {
        while let Some(byte) = uart::receive() {
            match byte {
                b'\n' | b'\r' => return Some(mem::take(&mut self.line)),
                _ if self.line.len() < LINE_LIMIT => self.line.push(char::from(byte)),
                _ => {}
            }
        }
        None
    }
}
