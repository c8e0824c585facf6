// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `backend gpio`, with lines that are wired to each other, so that the guest causes edges.

use backend::device::Device;
use backend::gpio::device::Gpio;
use backend::gpio::safe::SafeValue;
use backend::gpio::sim::{SimulatedChip, SimulatedLines};
use backend::sim::board::GpioChip;
use backend::sim::journal::Journal;

use crate::Kind;

const NAMES: [&str; 5] = ["led", "mirror", "", "button", ""];
const SAFE: [SafeValue; 5] = [
    SafeValue::Level(false),
    SafeValue::Release,
    SafeValue::Stay,
    SafeValue::Release,
    SafeValue::Level(true),
];

/// The device.
pub const DEVICE: Kind = Kind { queues: 2, tokens: 5, features: 1, make, well_formed };

fn make() -> Box<dyn Device> {
    let lines = NAMES.map(str::to_owned).to_vec();
    let chip = GpioChip { lines, wires: vec![[0, 1], [2, 3]], ..GpioChip::default() };
    let chip = SimulatedChip::new(&chip, Journal::default()).expect("a chip");
    let names = NAMES.map(|name| (!name.is_empty()).then(|| name.to_owned()));
    Box::new(Gpio::new(SimulatedLines::new(chip, None), &names, &SAFE).expect("a device"))
}

/// Builds a request. The line and the value may be one beyond the last valid one.
fn well_formed(queue: u16, [message, line, value]: [u8; 3], _data: &[u8]) -> Vec<u8> {
    let line = line % 6;
    match queue {
        1 => vec![line, 0],
        _ => vec![message % 8, 0, line, 0, value % 10, 0, 0, 0],
    }
}
