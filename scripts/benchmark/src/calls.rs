// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names of calls. Others are shown by their number.

/// Returns the name of a hypercall (Xen's public header xen.h) or of a firmware call (Arm DEN0028, DEN0022).
#[must_use]
pub fn hypercall(number: u64) -> String {
    let name = match number {
        12 => "memory_op",
        20 => "grant_table_op",
        24 => "vcpu_op",
        29 => "sched_op",
        32 => "event_channel_op",
        33 => "physdev_op",
        34 => "hvm_op",
        36 => "domctl",
        41 => "dm_op",
        // Linux's mitigation of speculation at the entry from a program.
        0x8000_8000 => "firmware: ARCH_WORKAROUND_1",
        0x8000_3fff => "firmware: ARCH_WORKAROUND_3",
        0x8000_7fff => "firmware: ARCH_WORKAROUND_2",
        _ => return format!("hypercall {number}"),
    };
    name.to_owned()
}

/// Returns the name of a system call (Linux's include/uapi/asm-generic/unistd.h).
#[must_use]
pub fn system_call(number: u64) -> String {
    let name = match number {
        22 => "epoll_pwait",
        29 => "ioctl",
        56 => "openat",
        57 => "close",
        62 => "lseek",
        63 => "read",
        64 => "write",
        65 => "readv",
        66 => "writev",
        67 => "pread64",
        68 => "pwrite64",
        72 => "pselect6",
        73 => "ppoll",
        85 => "timerfd_create",
        86 => "timerfd_settime",
        98 => "futex",
        101 => "nanosleep",
        113 => "clock_gettime",
        115 => "clock_nanosleep",
        124 => "sched_yield",
        211 => "sendmsg",
        212 => "recvmsg",
        214 => "brk",
        215 => "munmap",
        222 => "mmap",
        226 => "mprotect",
        233 => "madvise",
        _ => return format!("system call {number}"),
    };
    name.to_owned()
}
