// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `backend i2c`, with a target of each model.

use std::sync::LazyLock;

use backend::device::Device;
use backend::i2c::device::I2c;
use backend::i2c::sim::SimulatedBus;
use backend::sim::Simulation;
use backend::sim::board::Board;

use crate::Kind;

const BOARD: &str = r#"
    [[i2c.target]]
    address = 0x48
    model = "lm75"
    temperature = 23.5
    [[i2c.target]]
    address = 0x50
    model = "at24c02"
    [[i2c.target]]
    address = 0x68
    model = "ds1307"
    [[i2c.target]]
    address = 0xa150
    model = "lm75"
    temperature = -1.0
"#;

/// Addresses on the wire: the targets, one without a target, and one that the guest may not reach.
const ADDRESSES: [u16; 6] = [0x48 << 1, 0x50 << 1, 0x68 << 1, 0x50f2, 0x49 << 1, 0x10 << 1];

/// The device.
pub const DEVICE: Kind = Kind { queues: 1, tokens: 1, features: 1, make, well_formed };

static PARSED: LazyLock<Board> = LazyLock::new(|| toml::from_str(BOARD).expect("a board"));

fn make() -> Box<dyn Device> {
    let board = PARSED.clone();
    let bus = SimulatedBus::new(Simulation { board, ..Simulation::default() }).expect("a bus");
    let policy = "0x48-0x68,0xa000-0xa3ff".parse().expect("a list");
    Box::new(I2c::new(Box::new(bus), policy, None).expect("a device"))
}

fn well_formed(_queue: u16, [address, flags, _]: [u8; 3], data: &[u8]) -> Vec<u8> {
    let [low, high] = ADDRESSES[usize::from(address) % ADDRESSES.len()].to_le_bytes();
    let reads = flags & 2 != 0;
    let data = if reads { &[] } else { data };
    [&[low, high, 0, 0, flags & 3, 0, 0, 0], data].concat()
}
