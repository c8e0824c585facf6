// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a change of the transport requires of the device.

use super::width::Width;

/// What the device has to do after the transport has changed. [`Window`](crate::window::Window) stores the
/// new state first and then applies the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Start with the queues that are ready (3.1.1), and then kick this one.
    Start {
        /// The queue whose kick started the device, if it was not DRIVER_OK.
        kick: Option<u16>,
    },
    /// Continue what another transport has started.
    Resume,
    /// Stop, as the driver has reset the device or has ended (2.4).
    Stop,
    /// Start a queue that has been reset (2.6.1).
    StartQueue(u16),
    /// Stop a queue and leave the others running.
    StopQueue(u16),
    /// Look for available buffers of a queue.
    Kick(u16),
    /// Write the low bytes of `value` to the configuration.
    WriteConfig {
        /// The offset in the configuration.
        offset: u32,
        /// The bytes, little-endian.
        value: u64,
        /// How many of them.
        width: Width,
    },
    /// Interrupt the driver: the configuration or the status has changed (2.3, 2.1.2).
    Notify,
    /// Stop serving a driver that has to reset the device (2.1.2), and interrupt it if it set DRIVER_OK.
    Abandon {
        /// Whether to interrupt the driver.
        notify: bool,
    },
}
