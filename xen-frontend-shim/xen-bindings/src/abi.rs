// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The structures and numbers that Linux and Xen define, one module for each of their headers.
//!
//! Fields have the headers' names. Addresses are `u64`, since Linux takes them so or as 64-bit pointers. Sizes are
//! asserted here at compile time; the test in `header_tests` compares every size, offset and number with the headers
//! themselves, for the target's ABI.

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

/// Linux's `_IOC(_IOC_NONE, group, number, sizeof(T))`: Xen's drivers declare no direction, yet take a `T`.
const fn none<T>(group: u8, number: u8) -> Opcode {
    opcode::from_components(Direction::None, group, number, size_of::<T>())
}
