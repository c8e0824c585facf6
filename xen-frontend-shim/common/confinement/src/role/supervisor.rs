// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The supervisor of the shim: what stays privileged.
//!
//! It is root, since it opens what is root's: the nodes in `/dev/xen` and the state directory. It starts backends as root,
//! which open their hardware and change their user by themselves, and workers as their guest's user. What comes in from
//! outside is its configuration, the messages of its workers (a few bytes each, of fixed length) and the end of processes. It
//! maps nothing that a guest writes but the page of each ioreq server, which it does not read after the start.
//!
//! One thing comes from a guest, by its worker: before a device is removed or changed, the supervisor reads the state of the
//! device's transport, to see whether a driver uses it. That is at most 4 KiB that the worker wrote down, with numbers in it
//! that the guest chose. They are deserialised, which is fuzzed (target `state`), and one bit of them is looked at. A lie in it
//! concerns the devices of that guest and nobody else.
//!
//! Of root's rights it keeps four, and passes no others on to what it starts:
//!
//! | Capability | What for |
//! |---|---|
//! | `CAP_SETUID`, `CAP_SETGID` | workers are started as their guest's user, and backends become it |
//! | `CAP_SETPCAP` | backends take capabilities out of their own reach |
//! | `CAP_KILL` | workers and backends that hang are somebody else's processes |
//!
//! It has `no_new_privs`: a program with the set-user-ID bit gains nothing. Becoming another user is a system call of a
//! process that has `CAP_SETUID`, not a gain by executing something, so it works all the same. Landlock it has not, for that
//! would hold for the programs that it starts as well, and it does not know what they open. For the same reason its list of
//! system calls is one of those that nobody here may make.

use libc::c_long;
use rustix::thread::CapabilitySet;

use crate::Enforcement;
use crate::calls::Calls;
use crate::confinement::{Confinement, Error};
use crate::limits::ResourceLimits;
use crate::paths::Reach;

/// The rights that it keeps.
const CAPABILITIES: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL);

/// Room for the descriptors of all guests. What it starts lowers this.
const DESCRIPTORS: u64 = 4096;

/// What neither it nor anything that it starts has a reason to do: look into other processes, change the kernel, the file
/// systems, the clock or the machine.
const FORBIDDEN: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Takes from the process what the supervisor and its children do not need, for good. To be called by its only thread.
///
/// # Errors
/// When the kernel refuses. The process should end then.
pub fn confine(enforcement: Enforcement) -> Result<(), Error> {
    let limits = ResourceLimits { descriptors: Some(DESCRIPTORS), ..ResourceLimits::default() };
    Confinement { user: None, limits, reach: Reach::User, capabilities: CAPABILITIES }.enter()?;
    Calls::forbid(FORBIDDEN, enforcement)
}
