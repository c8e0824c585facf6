// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The PL011 that Xen emulates as the guest's console (Arm DDI 0183). Its receive FIFO has 32 characters.

use core::fmt::{self, Write};

use crate::machine::{self, Width};
use crate::platform::places;

/// UARTDR.
const DATA: u64 = 0x00;
/// UARTFR, and its bits RXFE (nothing received) and TXFF (no room to transmit).
const FLAGS: u64 = 0x18;
const RECEIVE_EMPTY: u64 = 1 << 4;
const TRANSMIT_FULL: u64 = 1 << 5;
/// UARTIMSC, and its bits RXIM and RTIM: characters were received; the second after a time-out.
const INTERRUPT_MASK: u64 = 0x38;
const RECEIVE: u64 = 1 << 4 | 1 << 6;

fn read(register: u64) -> u64 {
    machine::load(places().console + register, Width::Word).unwrap_or(RECEIVE_EMPTY)
}

fn write(register: u64, value: u64) {
    // The console is the only place to report errors.
    let _ = machine::store(places().console + register, Width::Word, value);
}

/// Enables the receive interrupt, which is level-triggered.
pub fn unmask_interrupt() {
    write(INTERRUPT_MASK, RECEIVE);
}

/// Disables the receive interrupt until [`unmask_interrupt`].
pub fn mask_interrupt() {
    write(INTERRUPT_MASK, 0);
}

/// Returns whether a character can be read.
pub fn has_received() -> bool {
    read(FLAGS) & RECEIVE_EMPTY == 0
}

/// Takes the next received character.
pub fn receive() -> Option<u8> {
    has_received().then(|| {
        let [byte, ..] = read(DATA).to_le_bytes();
        byte
    })
}

struct Printer;

impl Write for Printer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while read(FLAGS) & TRANSMIT_FULL != 0 {}
            write(DATA, byte.into());
        }
        Ok(())
    }
}

/// Transmits text. Calls are not serialised: only the first CPU and the panic handler call this.
pub fn print(text: fmt::Arguments<'_>) {
    // `Printer` returns no errors.
    let _ = Printer.write_fmt(text);
}
