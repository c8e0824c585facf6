// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that the fuzzer controls, in front of a real device, and the properties that must hold.
//!
//! ```text
//!   fuzzer ──▶ Input: a list of steps ──▶ guest (memory, rings) ──▶ session::DeviceServer ──▶ board
//!                                                 │                          │
//!                                                 └── checks ◀───────────────┘
//! ```
//!
//! The properties:
//! - nothing panics, and the daemon becomes idle;
//! - every chain that was taken is returned exactly once, also if the daemon dies and another one continues;
//! - of the guest's memory only the used rings and device-writable buffers are written;
//! - the in-flight record is empty when no chain is in flight.
//!
//! The second and third hold unless the guest has the device write to the rings themselves: then only the
//! first does.

pub mod gpio;
pub mod guest;
pub mod i2c;
pub mod memory;

use arbitrary::Arbitrary;
use backend::session::DeviceServer;
use backend::watch::Watcher;

use crate::guest::Guest;
use crate::memory::Place;

/// A kind of device to fuzz.
pub struct Kind {
    /// Number of queues.
    pub queues: u16,
    /// Number of tokens that it watches.
    pub tokens: u32,
    /// Feature bits of the device type.
    pub features: u64,
    /// Creates the device.
    pub make: fn() -> Box<dyn backend::device::Device>,
    /// Builds a well-formed request from arbitrary bytes.
    pub well_formed: fn(queue: u16, seed: [u8; 3], data: &[u8]) -> Vec<u8>,
}

impl Kind {
    /// Creates the server, before any frontend.
    pub fn start(&self) -> DeviceServer {
        let watcher = Watcher::new().expect("a watcher");
        DeviceServer::new((self.make)(), watcher).expect("a server")
    }
}

/// One run.
#[derive(Arbitrary, Debug)]
pub struct Input {
    /// VIRTIO_F_EVENT_IDX is accepted.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC is accepted.
    pub indirect: bool,
    /// The features of the device type are not accepted.
    pub plain: bool,
    /// The steps.
    pub steps: Vec<Step>,
}

/// A step.
#[derive(Arbitrary, Debug)]
pub enum Step {
    /// A well-formed request is made available.
    Request { queue: u8, seed: [u8; 3], data: Vec<u8>, cuts: u8, room: u16 },
    /// A request of any bytes is made available.
    Bytes { queue: u8, data: Vec<u8>, cuts: u8, room: u16 },
    /// A descriptor is overwritten.
    Descriptor { queue: u8, index: u8, at: Place, length: u32, flags: u16, next: u16 },
    /// A head is made available, valid or not.
    Offer { queue: u8, head: u16 },
    /// The available index is set, to a valid value or not.
    Index { queue: u8, index: u16 },
    /// The guest writes to its memory.
    Poke { at: Place, bytes: Vec<u8> },
    /// The guest kicks, and the daemon works until it is idle.
    Work,
    /// The queues are stopped and continue.
    Pause,
    /// The guest resets its device and starts again.
    Reset,
    /// The daemon dies, and another one takes over.
    Die,
}

/// The in-flight record.
pub enum Record {
    /// None.
    None,
    /// A new one.
    Fresh,
    /// One with this content.
    Found(Vec<u8>),
}

/// Executes all steps of `input`, then stops the device.
pub fn run(kind: &Kind, input: &Input, record: &Record) {
    let mut guest = Guest::new(kind, input, record);
    for step in &input.steps {
        guest.step(step);
    }
    guest.end();
}
