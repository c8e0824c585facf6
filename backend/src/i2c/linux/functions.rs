// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The functions of an adapter: `I2C_FUNCS`, which crate `i2cdev` has and does not export.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use bitflags::bitflags;
use i2cdev::linux::LinuxI2CBus;
use rustix::ioctl::{Getter, Opcode, ioctl};

/// `I2C_FUNCS` of `linux/i2c-dev.h`: stores an `unsigned long`.
const I2C_FUNCS: Opcode = 0x0705;

bitflags! {
    /// `I2C_FUNC_*` of `linux/i2c.h`, as far as they are used.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Functions: u64 {
        const I2C = 0x0000_0001;
        const TEN_BIT_ADDRESS = 0x0000_0002;
        const BLOCK_PROCESS_CALL = 0x0000_8000;
        const QUICK = 0x0001_0000;
        const READ_BYTE = 0x0002_0000;
        const WRITE_BYTE = 0x0004_0000;
        const READ_BYTE_DATA = 0x0008_0000;
        const WRITE_BYTE_DATA = 0x0010_0000;
        const READ_WORD_DATA = 0x0020_0000;
        const WRITE_WORD_DATA = 0x0040_0000;
        const PROCESS_CALL = 0x0080_0000;
        const READ_BLOCK_DATA = 0x0100_0000;
        const WRITE_BLOCK_DATA = 0x0200_0000;
        const READ_I2C_BLOCK = 0x0400_0000;
        const WRITE_I2C_BLOCK = 0x0800_0000;
        const ANY_SMBUS = 0x0fff_8000;
    }
}

/// Reads the functions of the adapter behind `bus`.
pub(super) fn of(bus: &LinuxI2CBus) -> io::Result<Functions> {
    // SAFETY: the descriptor is open as long as `bus` is borrowed.
    let node = unsafe { BorrowedFd::borrow_raw(bus.as_raw_fd()) };
    // SAFETY: the kernel stores one unsigned long for this request (drivers/i2c/i2c-dev.c), which is 64 bits
    // wide where this program runs.
    let request = unsafe { Getter::<I2C_FUNCS, u64>::new() };
    // SAFETY: as above; on any other kind of node the kernel refuses the request.
    let bits = unsafe { ioctl(node, request) }?;
    Ok(Functions::from_bits_truncate(bits))
}
