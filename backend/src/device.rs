// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interface between the core and a device.
//!
//! A device sees neither rings nor descriptors nor guest addresses: it receives [`Chain`]s, whose bytes were
//! already copied from the guest, and returns each with its answer. It may keep a chain for any time (a GPIO
//! event has no deadline). A chain that it drops without returning it is lost to the guest until the device
//! is reset. A request that is shorter than its header is an error of the guest, and is answered as far as
//! there is room.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::chain::{Chain, Limits};
use crate::inflight::DeviceRecord;
use crate::watch::Watcher;

#[cfg(test)]
pub(crate) mod fake;

/// A virtio device, served to one frontend after the other.
///
/// One method is called at a time. None may wait for hardware that others use, such as a shared bus: that is
/// [`BlockingWork`], during which the methods are called. None fails because of a guest's request: the answer
/// in the chain is the error.
pub trait Device: Send {
    /// Returns the limits of each queue; their number is the number of queues.
    fn queues(&self) -> &'static [QueueLimits];

    /// Processes requests in the order in which the guest made them available. Moves each chain out of
    /// `requests`: into `finished`, in the order of the used ring, or into the device.
    fn process(&mut self, queue: usize, requests: &mut Vec<Chain>, finished: &mut Vec<Chain>);

    /// Returns the feature bits of the device type (bits 0 to 23, virtio 1.3, 2.2). The core adds the
    /// transport's.
    fn features(&self) -> u64 {
        0
    }

    /// Takes the feature bits that the driver accepted.
    ///
    /// # Errors
    /// When a mandatory feature is missing: the driver is refused.
    fn accept_features(&mut self, _features: u64) -> Result<(), MissingFeature> {
        Ok(())
    }

    /// Returns the whole configuration space, empty if the device type has none.
    fn config(&self) -> &[u8] {
        &[]
    }

    /// The frontend starts `queue`.
    fn start(&mut self, _queue: usize, _start: QueueStart) {}

    /// The frontend stops `queue`. Returns the chains of it that the device keeps, or drops those for which
    /// virtio has no answer.
    fn stop(&mut self, _queue: usize, _stop: QueueStop, _finished: &mut Vec<Chain>) {}

    /// Restores the state after start-up, when the guest resets its device. Drops all chains.
    fn reset(&mut self) {}

    /// Returns the next blocking work. The core runs it while the device serves other calls, and then calls
    /// [`finish_work`](Self::finish_work).
    fn next_work(&mut self) -> Option<Arc<dyn BlockingWork>> {
        None
    }

    /// Takes the result of the last work.
    fn finish_work(&mut self, _finished: &mut Vec<Chain>) {}

    /// Returns when running work has taken too long, not counting the time that others may use the hardware.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Adds the device's descriptors to `watcher`, with tokens of its choice. Called once, before the first
    /// frontend; the watcher may be kept, to add others later.
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    fn watch(&mut self, _watcher: &Watcher) -> io::Result<()> {
        Ok(())
    }

    /// Handles an event of the descriptor that the device watches as `token`.
    fn handle_event(&mut self, _token: u32, _finished: &mut Vec<Chain>) {}

    /// Returns why the device can no longer be served, if that is so. The daemon ends then, and its parent
    /// process starts another one.
    fn failure(&mut self) -> Option<io::Error> {
        None
    }

    /// Returns the device's persistence, if it has state that another daemon must find.
    fn persistence(&mut self) -> Option<&mut dyn Persistence> {
        None
    }
}

/// A device whose state outlasts the daemon, in the in-flight record of the frontend.
pub trait Persistence {
    /// Returns the size of the device's state in the record, in bytes.
    fn record_bytes(&self) -> usize;

    /// Restores the state that a former daemon wrote to `record`, or starts with zeros; keeps the record up
    /// to date from now on. The frontend may clear it at any time when no queue runs: the driver has reset
    /// the device then.
    fn restore(&mut self, record: DeviceRecord);

    /// Whether the hardware stays as it is set up when this daemon ends: its parent process holds it, and
    /// will start another daemon.
    fn keeps_hardware(&self) -> bool;

    /// The frontend disconnected. Drops all chains, and the record, which stays as it is.
    fn disconnect(&mut self, disconnect: Disconnect);
}

/// Work that may block.
pub trait BlockingWork: Send + Sync {
    /// Does the work, or nothing if the device has cancelled it.
    fn run(&self);
}

/// What the stop of a queue means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueStop {
    /// Only that: the frontend reports a reset by the driver separately.
    QueueOnly,
    /// The driver has reset the device, or is paused: the frontend reports both as a stop of all queues.
    MaybeReset,
}

/// Which driver starts a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueStart {
    /// One that has just set up the device, after start-up or a reset.
    NewDriver,
    /// The driver of before, after a pause.
    SameDriver,
    /// As the record shows: the frontend clears it when the driver resets the device.
    AsRecorded,
}

/// What remains when a frontend disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// A driver that continues with another daemon: the hardware stays as it is.
    DriverContinues,
    /// Nothing that is known here: the device returns to the state after start-up.
    Final,
}

/// Maximum size of a ring. QEMU's virtio-mmio offers the driver 1024 entries for any device, and Linux takes
/// them.
pub const RING_SIZE: u16 = 1024;

/// The limits of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Maximum size of the ring, a power of two.
    pub size: u16,
    /// Maximum lengths of a request and its answer.
    pub chain: Limits,
}

/// A mandatory feature that the driver did not accept.
#[derive(Debug, thiserror::Error)]
#[error("the driver did not accept {feature}, which {clause} makes mandatory")]
pub struct MissingFeature {
    /// Name of the feature.
    pub feature: &'static str,
    /// The clause of the specification.
    pub clause: &'static str,
}
