// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `backend gpio`, with lines that are wired to each other: so the guest makes its own edges.

use backend::device::Device;
use backend::gpio::device::Gpio;
use backend::gpio::safe::Safe;
use backend::gpio::sim::{Board, SimLines};
use backend::sim::board::GpioChip;
use backend::sim::journal::Journal;

use crate::Kind;

const NAMES: [&str; 5] = ["led", "mirror", "", "button", ""];
const SAFE: [Safe; 5] = [Safe::Level(false), Safe::Release, Safe::Stay, Safe::Release, Safe::Level(true)];

/// The device.
pub const DEVICE: Kind = Kind { queues: 2, tokens: 5, features: 1, make, sensible };

fn make() -> Box<dyn Device> {
    let lines = NAMES.map(str::to_owned).to_vec();
    let chip = GpioChip { lines, wires: vec![[0, 1], [2, 3]], ..GpioChip::default() };
    let board = Board::new(&chip, Journal::default()).expect("a board");
    let names = NAMES.map(|name| (!name.is_empty()).then(|| name.to_owned()));
    Box::new(Gpio::new(SimLines::new(board, None), &names, &SAFE).expect("a device"))
}

/// One line and one value beyond what there is, each.
fn sensible(queue: u16, [message, line, value]: [u8; 3], _data: &[u8]) -> Vec<u8> {
    let line = line % 6;
    match queue {
        1 => vec![line, 0],
        _ => vec![message % 8, 0, line, 0, value % 10, 0, 0, 0],
    }
}
