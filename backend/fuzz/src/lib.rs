// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that does as the fuzzer says, in front of a real device, and what must hold whatever it does.
//!
//! ```text
//!   fuzzer ──▶ Input: a list of operations ──▶ guest (memory, rings) ──▶ backend::session::Backend ──▶ simulated board
//!                                                 │                          │
//!                                                 └── checks ◀───────────────┘
//! ```
//!
//! The checks:
//! - nothing panics, and the daemon comes to rest;
//! - every chain that was taken comes back exactly once, also if the daemon died and another one went on;
//! - of the guest's memory only the used rings and what device-writable descriptors name is written;
//! - a record of chains in flight is empty when nothing is in flight.
//!
//! The second and third hold as long as the guest keeps its hands from the rings themselves: a guest that has
//! the device write to its own rings is not owed anything but that the daemon goes on.

pub mod gpio;
pub mod guest;
pub mod i2c;
pub mod memory;

use arbitrary::Arbitrary;
use backend::session::Backend;
use backend::watch::Watcher;

use crate::guest::Guest;
use crate::memory::Place;

/// What is fuzzed: a kind of device.
pub struct Kind {
    /// Its queues.
    pub queues: u16,
    /// Tokens of descriptors that it watches.
    pub tokens: u32,
    /// Feature bits of the device type.
    pub features: u64,
    /// A device as new.
    pub make: fn() -> Box<dyn backend::device::Device>,
    /// A request that makes sense, of a few arbitrary bytes.
    pub sensible: fn(queue: u16, seed: [u8; 3], data: &[u8]) -> Vec<u8>,
}

impl Kind {
    /// The daemon, before any frontend.
    pub fn start(&self) -> Backend {
        let watcher = Watcher::new().expect("a watcher");
        Backend::new((self.make)(), watcher).expect("a backend")
    }
}

/// One run.
#[derive(Arbitrary, Debug)]
pub struct Input {
    /// VIRTIO_F_EVENT_IDX is accepted.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC is accepted.
    pub indirect: bool,
    /// The device's own features are not accepted.
    pub plain: bool,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Arbitrary, Debug)]
pub enum Step {
    /// A request that makes sense is made available.
    Request { queue: u8, seed: [u8; 3], data: Vec<u8>, cuts: u8, room: u16 },
    /// As before, with any bytes at all.
    Bytes { queue: u8, data: Vec<u8>, cuts: u8, room: u16 },
    /// A descriptor is overwritten.
    Descriptor { queue: u8, index: u8, at: Place, length: u32, flags: u16, next: u16 },
    /// A head is made available, whatever it is.
    Offer { queue: u8, head: u16 },
    /// The available index is set, whatever to.
    Index { queue: u8, index: u16 },
    /// The guest writes to its memory.
    Poke { at: Place, bytes: Vec<u8> },
    /// The guest kicks and the daemon works until it has nothing to do.
    Work,
    /// The queues are stopped and go on where they were.
    Pause,
    /// The guest resets its device and begins anew.
    Reset,
    /// The daemon dies, and another one takes over.
    Die,
}

/// The record of chains in flight.
pub enum Region {
    /// There is none.
    None,
    /// A new one.
    Fresh,
    /// What somebody has left.
    Found(Vec<u8>),
}

/// Does all of `input`, then stops the device.
pub fn run(kind: &Kind, input: &Input, region: &Region) {
    let mut guest = Guest::new(kind, input, region);
    for step in &input.steps {
        guest.step(step);
    }
    guest.end();
}
