// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The console: the PL011 that Xen emulates for a guest. It prints whole lines, and takes 32 characters.

use alloc::string::String;
use core::fmt::{self, Write};
use core::mem;

use crate::clock::Moment;
use crate::interrupts;
use crate::machine::{self, Width};
use crate::platform::places;

/// UARTDR. The registers are those of Arm's PL011 (DDI 0183).
const DATA: u64 = 0x00;
/// UARTFR, and in it: nothing to read, no room to write.
const FLAGS: u64 = 0x18;
const NOTHING: u64 = 1 << 4;
const FULL: u64 = 1 << 5;
/// UARTIMSC, and in it: characters have arrived, at once or some time ago.
const INTERRUPTS: u64 = 0x38;
const ARRIVED: u64 = 1 << 4 | 1 << 6;

/// Longer than any frame. A line without an end is not collected beyond it.
const LINE_LIMIT: usize = 256;

fn read(register: u64) -> u64 {
    machine::load(places().console + register, Width::Word).unwrap_or(NOTHING)
}

fn write(register: u64, value: u64) {
    // Without a console there is nobody to tell.
    let _ = machine::store(places().console + register, Width::Word, value);
}

/// Keeps the interrupt, which is a level, from coming again at once. [`Reader`] lets it come again.
pub fn mask_interrupt() {
    write(INTERRUPTS, 0);
}

struct Printer;

impl Write for Printer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while read(FLAGS) & FULL != 0 {}
            write(DATA, byte.into());
        }
        Ok(())
    }
}

/// Prints. Only the first CPU does, and whoever panics.
pub fn print(text: fmt::Arguments<'_>) {
    // The printer has no errors.
    let _ = Printer.write_fmt(text);
}

/// What is typed.
#[derive(Debug, Default)]
pub struct Reader {
    line: String,
}

impl Reader {
    /// Waits for a line until `end`.
    pub fn line(&mut self, end: Option<Moment>) -> Option<String> {
        loop {
            if let Some(line) = self.take() {
                return Some(line);
            }
            write(INTERRUPTS, ARRIVED);
            if !interrupts::wait(end, || read(FLAGS) & NOTHING == 0) {
                return None;
            }
        }
    }

    /// Takes what has arrived, up to the end of a line.
    fn take(&mut self) -> Option<String> {
        while read(FLAGS) & NOTHING == 0 {
            let [byte, ..] = read(DATA).to_le_bytes();
            match byte {
                b'\n' | b'\r' => return Some(mem::take(&mut self.line)),
                _ if self.line.len() < LINE_LIMIT => self.line.push(char::from(byte)),
                _ => {}
            }
        }
        None
    }
}
