// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a transport needs of the device behind it, and what it has to know of it.

use crate::memory::Ring;

/// The device cannot go on until it is reset, for a reason that has been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// What stands behind the registers.
///
/// None of the methods may wait for longer than a vCPU can be held up.
pub trait Device {
    /// The driver is ready: serve `rings` with the accepted `features`.
    fn start(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost>;

    /// The driver has been served before, by another process. As [`Self::start`], but each ring goes on where its used
    /// index is, and what is available already is looked at without a kick.
    fn resume(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost>;

    /// Reset: when this returns, nothing of the guest's memory is mapped or used any more. A device that cannot
    /// stop by agreement has to be stopped by force.
    fn stop(&mut self);

    /// Clears the record of requests in flight, of the device that the driver starts or of one queue after its
    /// reset. This comes before the start is persistent: a start that is found may have been carried out.
    fn clear_inflight(&mut self, queue: Option<u16>) -> Result<(), Lost>;

    /// The device is lost to its driver, for whichever reason, and is not served any more. It lets go of the guest's memory as far as
    /// that can be done at once; [`Self::stop`] sees to the rest. Returns how far each queue has come that was served.
    fn abandon(&mut self) -> Vec<Option<u16>>;

    /// Starts one queue beside those that are running, at the beginning of its ring.
    fn start_queue(&mut self, ring: &Ring) -> Result<(), Lost>;

    /// Stops one queue and leaves the others running. When this returns, nothing of its ring is mapped or used any more.
    fn stop_queue(&mut self, queue: u16) -> Result<(), Lost>;

    /// The driver has made buffers available, and the kernel did not take notice.
    fn kick(&mut self, queue: u16);

    /// The driver writes to the configuration. The answer is the configuration as it is now, if it may have changed.
    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost>;

    /// How far the device has come with a queue that it serves: the used index.
    fn used_index(&self, queue: u16) -> Option<u16>;

    /// Sends the guest an interrupt on the device's own behalf.
    fn interrupt(&mut self);
}

/// What does not change in a device's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// For the log: the guest's and the device's name.
    pub name: String,
    /// The virtio device ID (virtio 1.3, section 5).
    pub device_id: u32,
    /// The features that a driver cannot leave out.
    pub demanded_features: u64,
    /// Whether a kick starts the device as DRIVER_OK does, for the sake of drivers that are early.
    pub starts_by_kick: bool,
    /// How many queues there are.
    pub queues: u16,
    /// The size of the largest queue.
    pub queue_size_max: u16,
}
