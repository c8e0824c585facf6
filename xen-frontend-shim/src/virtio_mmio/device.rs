// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device behind a transport, and its fixed properties.

use crate::memory::{GuestMemory, Ring};

/// The device cannot continue until the driver resets it. The reason has been logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// The device behind the registers. A vCPU waits during each call, so each returns in bounded time.
pub trait Device {
    /// Starts to serve `rings` with the accepted `features`.
    fn start(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost>;

    /// Continues to serve a driver that another worker has served: as [`Self::start`], but each ring
    /// continues at its used index, and buffers that are available already are served without a kick.
    fn resume(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost>;

    /// Stops. When this returns, no guest memory is mapped or accessed; a backend that does not stop is
    /// killed.
    fn stop(&mut self);

    /// Clears the record of requests in flight, of the device that the driver starts or of one queue after
    /// its reset. This comes before the start is persistent: a start that is found may have been carried out.
    fn clear_inflight(&mut self, queue: Option<u16>) -> Result<(), Lost>;

    /// Stops to serve a driver that has to reset the device. Guest memory is unmapped as far as that takes no
    /// time; [`Self::stop`] completes it. Returns the used index of each queue that ran.
    fn abandon(&mut self) -> Vec<Option<u16>>;

    /// Starts one queue beside those that are running, at the beginning of its ring.
    fn start_queue(&mut self, ring: &Ring) -> Result<(), Lost>;

    /// Stops one queue and leaves the others running. When this returns, its ring is not mapped or accessed.
    fn stop_queue(&mut self, queue: u16) -> Result<(), Lost>;

    /// Kicks a queue whose kick did not pass through the kernel.
    fn kick(&mut self, queue: u16);

    /// Writes to the configuration. Returns the whole configuration if it may have changed.
    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost>;

    /// The used index of a queue, or `None` if the queue does not run.
    fn used_index(&self, queue: u16) -> Option<u16>;

    /// Interrupts the driver.
    fn interrupt(&mut self);
}

/// The fixed properties of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The guest's and the device's name, for messages.
    pub name: String,
    /// The virtio device ID (virtio 1.3, section 5).
    pub device_id: u32,
    /// The features that a driver has to accept.
    pub demanded_features: u64,
    /// Whether a kick before DRIVER_OK starts the device.
    pub starts_by_kick: bool,
    /// The number of queues.
    pub queues: u16,
    /// The largest size of a queue.
    pub queue_size_max: u16,
    /// The memory in which the rings may be.
    pub memory: GuestMemory,
}
