// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The constants of virtio 1.3, 5.3.

/// Index of the queue for text to the driver, receiveq of port 0 (5.3.2).
pub const RECEIVE_QUEUE: usize = 0;
/// Index of the queue for text from the driver, transmitq of port 0 (5.3.2).
pub const TRANSMIT_QUEUE: usize = 1;
/// Number of queues without VIRTIO_CONSOLE_F_MULTIPORT.
pub const QUEUES: usize = 2;

/// `struct virtio_console_config` (5.3.4). Each of its fields needs a feature that is not offered.
pub const CONFIG: [u8; 12] = [0; 12];
