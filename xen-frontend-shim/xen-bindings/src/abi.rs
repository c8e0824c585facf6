// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The structures and numbers of Linux and Xen, one module for each header.
//!
//! Fields have the headers' names. Addresses are `u64`: Linux takes them as such or as 64-bit pointers. Sizes
//! are asserted at compile time. The tests in `header_tests` compare all sizes, offsets and numbers with the
//! headers, for the target's ABI.

pub mod dm_op;
pub mod domctl;
pub mod evtchn;
pub mod gntdev;
pub mod hypercall;
pub mod ioreq;
pub mod privcmd;

#[cfg(test)]
mod header_tests;

use std::mem::size_of;

use rustix::ioctl::{Direction, Opcode, opcode};

/// Linux's `_IOC(_IOC_NONE, group, number, sizeof(T))`: Xen's drivers declare no direction although they read
/// a `T`.
const fn none<T>(group: u8, number: u8) -> Opcode {
    opcode::from_components(Direction::None, group, number, size_of::<T>())
}
