// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the core needs of a device, and all a device needs of the core.
//!
//! A device sees no ring, no descriptor and no guest address: it gets [`Chain`]s, whose bytes were already copied from
//! the guest, and gives each back with its answer. It may keep a chain as long as it likes (a GPIO event has no
//! deadline); a chain that it drops without giving it back is lost to the guest until the device is reset. A request
//! shorter than its header has is an error of the guest's, answered as far as there is room: [`Chain`] says when it is
//! empty.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::chain::{Chain, Limits};
use crate::inflight::Tail;
use crate::watch::Watcher;

/// One virtio device, served to one frontend after another.
///
/// One method is called at a time, and none may wait for the hardware of others, as a bus that they share:
/// that is [`Work`], beside which the methods are called. None may fail for what a guest wrote: a bad request
/// is answered with an error in its chain.
pub trait Device: Send {
    /// The limits of each queue; their number is the number of queues.
    fn queues(&self) -> &'static [QueueLimits];

    /// Feature bits of the device type (bits 0 to 23 of virtio 1.3, 2.2). The core adds the transport's.
    fn features(&self) -> u64;

    /// Takes what the driver accepted.
    ///
    /// # Errors
    /// When the device cannot work with a driver that left a mandatory feature out: the frontend is refused.
    fn accept_features(&mut self, features: u64) -> Result<(), Refused>;

    /// The whole configuration space, empty where the device type has none.
    fn config(&self) -> &[u8];

    /// Works on requests in the order in which the guest made them available. The chains are moved out of `requests`:
    /// into `finished`, in the order in which the guest shall see them used, or into the device.
    fn process(&mut self, queue: usize, requests: &mut Vec<Chain>, finished: &mut Vec<Chain>);

    /// What is to be done next for the requests that the device has, if that may be kept waiting: the core
    /// does it while the device serves others, and then says so by [`worked`](Self::worked).
    fn work(&mut self) -> Option<Arc<dyn Work>>;

    /// The work that was given out last is done.
    fn worked(&mut self, finished: &mut Vec<Chain>);

    /// When work that is under way is taken to never come to its end. Waiting for others is no reason.
    fn deadline(&self) -> Option<Instant>;

    /// Something happened on a descriptor that the device watches as `token`.
    fn event(&mut self, token: u32, finished: &mut Vec<Chain>);

    /// The frontend starts `queue`.
    fn start(&mut self, queue: usize, start: Start);

    /// The frontend stops `queue`: chains that the device keeps of it are given back, or dropped where
    /// virtio has no answer for them.
    fn stop(&mut self, queue: usize, meaning: Stop, finished: &mut Vec<Chain>);

    /// Back to the state after start-up: the guest reset its device. Chains that the device still keeps are dropped.
    fn reset(&mut self);

    /// Bytes in which the device can write down what it knows, for a daemon that takes over.
    fn record_bytes(&self) -> usize;

    /// The frontend gave memory for that, with what a former daemon wrote there, or zeros. From now on the device
    /// keeps it up to date. It may become zero at any time when no queue runs: then the driver has reset the device.
    fn take_over(&mut self, tail: Tail);

    /// Whether what the device has set up of its hardware survives this daemon: whoever started the daemon holds it, and will
    /// start another.
    fn survives(&self) -> bool;

    /// The frontend is gone. Chains that the device still keeps are dropped, and the memory for its record is let go, as it is.
    fn leave(&mut self, left: Left);

    /// Called once, before the first frontend: the place to register descriptors. The watcher may be kept, to
    /// register others later; tokens are the device's own.
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    fn watch(&mut self, watcher: &Watcher) -> io::Result<()>;
}

/// Something that may be kept waiting.
pub trait Work: Send + Sync {
    /// Does it, or nothing if the device has given it up.
    fn run(&self);
}

/// What it means that a queue is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing but that: if the driver resets the device, the frontend will say so.
    Queue,
    /// The driver may have reset the device, or be paused: the frontend stops all queues, and has no word for either.
    PerhapsReset,
}

/// Whose queue is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// That of a driver which has just set its device up, after start-up or a reset.
    Anew,
    /// That of a driver which goes on, with a device that was paused.
    Again,
    /// The record says it, of which the frontend makes zeros when the driver resets the device.
    AsRecorded,
}

/// What a frontend leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A driver that goes on, and hardware that is to stay as it is: another daemon will take over.
    Driver,
    /// Nothing: it is gone for good, for all that is known here. The device goes back to the state after start-up.
    Nothing,
}

/// Entries that a ring of ours may have. QEMU's virtio-mmio offers the driver 1024 whatever a device asks for, and
/// Linux takes what is offered.
pub const RING_SIZE: u16 = 1024;

/// What the guest may ask of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Entries of the ring at most, a power of two.
    pub size: u16,
    /// How long a request and its answer may be.
    pub chain: Limits,
}

/// A driver that this device cannot serve.
#[derive(Debug, thiserror::Error)]
#[error("the driver did not accept {missing}, which {clause} makes mandatory")]
pub struct Refused {
    /// Name of the missing feature.
    pub missing: &'static str,
    /// The clause of the specification.
    pub clause: &'static str,
}
