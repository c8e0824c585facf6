// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Parts of a virtio driver (virtio 1.3) that can break a driver's rules: every register can be accessed at
//! any time, and every field of a ring can have any value.
//!
//! [`window`]: registers; [`device`]: initialisation; [`ring`]: a split virtqueue in granted pages;
//! [`queue`]: chains, kicks and completions; [`i2c`] and [`gpio`]: requests.

pub mod device;
pub mod gpio;
pub mod i2c;
pub mod queue;
pub mod ring;
pub mod window;
