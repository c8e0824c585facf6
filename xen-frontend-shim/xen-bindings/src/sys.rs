// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The system calls and the shared memory: every `unsafe` of the shim is in this directory.
//!
//! Each function takes what the kernel needs as types that cannot be wrong (a live slice, a borrowed descriptor) and is
//! safe to call; the modules above decide what to call and own what comes of it.

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

/// An ioctl that takes a pointer to a structure, which the driver may write back, and returns a number.
struct Exchange<T> {
    opcode: Opcode,
    argument: *mut T,
}

// SAFETY: that the driver behind `opcode` may use the pointer for a `T` is what `exchange` asks of its callers. The output is
// the system call's return value alone.
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
        // rustix has already turned negative values into errors.
        u32::try_from(out).map_err(|_| rustix::io::Errno::RANGE)
    }
}

/// Issues `opcode` with `argument`.
///
/// # Safety
///
/// `argument` must point to a `T` that nothing else uses during the call. The driver behind `fd`, if it knows `opcode`, must
/// take a `T` (or what starts with one and is there too), write nothing but a valid one, and use the addresses in it only
/// for memory that the caller has made available for that use.
unsafe fn exchange<T>(fd: BorrowedFd<'_>, opcode: Opcode, argument: *mut T) -> Result<u32> {
    // SAFETY: as the caller promises.
    unsafe { ioctl(fd, Exchange { opcode, argument }) }
}

/// Makes an inherited descriptor an eventfd.
pub(crate) fn eventfd_from(fd: OwnedFd) -> EventFd {
    // SAFETY: the descriptor was owned until now, and `into_raw_fd` gives it up.
    unsafe { EventFd::from_raw_fd(fd.into_raw_fd()) }
}
