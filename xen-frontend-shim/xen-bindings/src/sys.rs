// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! System calls and shared memory: all `unsafe` blocks of this crate.
//!
//! The functions take types that are always valid for the kernel (a slice, a borrowed descriptor) and are
//! safe to call. The other modules call them and own the results.

#![allow(unsafe_code)]

pub(crate) mod copy;
pub(crate) mod evtchn;
pub(crate) mod gntdev;
pub(crate) mod mapping;
pub(crate) mod privcmd;

use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::io::Result;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};
use vmm_sys_util::eventfd::EventFd;

/// An ioctl with a pointer to a structure, to which the driver may write, that returns a number.
struct Exchange<T> {
    opcode: Opcode,
    argument: *mut T,
}

// SAFETY: `exchange` requires of its callers that the driver of `opcode` may use the pointer as one to a `T`.
// The output is only the return value of the system call.
unsafe impl<T> Ioctl for Exchange<T> {
    type Output = u32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        self.argument.cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut std::ffi::c_void) -> Result<u32> {
        // rustix returns negative values as errors before this.
        u32::try_from(out).map_err(|_| rustix::io::Errno::RANGE)
    }
}

/// Makes the ioctl `opcode` with `argument`.
///
/// # Safety
///
/// `argument` must point to a `T` that nothing else uses during the call. The driver of `fd`, if it supports
/// `opcode`, must read a `T` (or a longer structure that begins with one and is valid as well), write only
/// valid values, and use the addresses in it only for memory that the caller provides for that use.
unsafe fn exchange<T>(fd: BorrowedFd<'_>, opcode: Opcode, argument: *mut T) -> Result<u32> {
    // SAFETY: the caller guarantees it.
    unsafe { ioctl(fd, Exchange { opcode, argument }) }
}

/// Converts a descriptor to an eventfd.
pub(crate) fn eventfd_from(fd: OwnedFd) -> EventFd {
    // SAFETY: `into_raw_fd` releases the ownership of the descriptor.
    unsafe { EventFd::from_raw_fd(fd.into_raw_fd()) }
}
