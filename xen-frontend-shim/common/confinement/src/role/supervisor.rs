// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The supervisor of the shim, which stays privileged.
//!
//! It is root, because the nodes in `/dev/xen` and the state directory belong to root. It starts backends as
//! root, which open their hardware and change their user, and workers as their guest's user. Its input is the
//! configuration, the messages of its workers (at most four bytes each) and the end of processes. Of
//! guest-written memory it maps only the ioreq pages, which it does not read after the start.
//!
//! One input comes from a guest, through its worker: before a device is removed or changed, the supervisor
//! reads the state record of the device, to see whether a driver uses it. The worker wrote this record of at
//! most 4 KiB, with numbers that the guest chose. The supervisor deserialises it, which is fuzzed (target
//! `state`), and reads one bit of it. A wrong bit concerns the devices of that guest only.
//!
//! Programs of others make their sockets in directories that the supervisor makes for them. It connects to
//! these sockets with the effective user and group of the program, follows no link there and reads no file.
//!
//! It keeps four capabilities, and passes no others to the programs that it starts:
//!
//! | Capability | Reason |
//! |---|---|
//! | `CAP_SETUID`, `CAP_SETGID` | workers start as their guest's user, and backends become it |
//! | `CAP_SETPCAP` | backends remove capabilities from their bounding set |
//! | `CAP_KILL` | workers and backends that hang run as another user |
//!
//! It has `no_new_privs`: a set-user-ID program gains nothing. A process with `CAP_SETUID` can become another
//! user all the same, since that is a system call. It has no Landlock domain and no list of permitted system
//! calls, because the programs that it starts would inherit them, and it does not know what these need. So
//! its list is one of calls that neither it nor any of these programs may make.

use libc::c_long;
use rustix::thread::CapabilitySet;

use crate::Enforcement;
use crate::calls::Calls;
use crate::confinement::{Confinement, Error};
use crate::limits::ResourceLimits;
use crate::paths::Reach;

/// The capabilities that it keeps.
const CAPABILITIES: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL);

/// Open descriptors: those of all guests. The programs that it starts lower the limit.
const DESCRIPTORS: u64 = 4096;

/// The calls that neither it nor the programs that it starts need: inspection of other processes, changes of
/// the kernel, the file systems, the clock or the machine.
pub(super) const FORBIDDEN: &[c_long] = &[
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

/// Restricts the process and all programs that it starts for good. To be called by its only thread.
///
/// # Errors
/// If the kernel refuses. The process should end then.
pub fn confine(enforcement: Enforcement) -> Result<(), Error> {
    let limits = ResourceLimits { descriptors: Some(DESCRIPTORS), ..ResourceLimits::default() };
    Confinement { user: None, limits, reach: Reach::User, capabilities: CAPABILITIES }.enter()?;
    Calls::forbid(FORBIDDEN, enforcement)
}
