// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio driver's tools (virtio 1.3), without a driver's manners: every register can be read and written at any
//! time, every field of a ring can hold anything.
//!
//! [`window`] are the registers, [`device`] the way from reset to DRIVER_OK, [`ring`] a split virtqueue in pages that
//! are granted, [`queue`] the two together: offer a chain, kick, wait.

pub mod device;
pub mod queue;
pub mod ring;
pub mod window;
