// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A worker of the shim, which serves the register accesses of one guest.
//!
//! The supervisor starts it as the guest's user and passes its descriptors: privcmd, evtchn and gntdev, each
//! restricted to the guest; eventfds; sockets of its backends; and pidfds, to wait for the end of a backend.
//! `README.md` of this crate lists what they allow. The worker reads nothing of the guest before its list of
//! system calls is enforced. It starts no program, opens no file and sends no signal: the supervisor kills a
//! backend that hangs.
//!
//! ```text
//!   start ─▶ WorkerRole::enter ─▶ ioreq page ─▶ WorkerRole::enforce ─▶ devices, backends, "Ready"
//! ```

use rustix::thread::CapabilitySet;

use crate::calls::{Calls, Enforcement};
use crate::confinement::{Confinement, Error};
use crate::ioctl;
use crate::limits::ResourceLimits;
use crate::paths::Reach;

/// Open descriptors: about a dozen for each device. A guest has at most eleven, since Xen reserves eleven
/// interrupts.
const DESCRIPTORS: u64 = 512;

/// Private memory. It uses 2 MiB.
const DATA: u64 = 32 << 20;

/// Address space: the program, its stack and heap, a page of each ring.
const ADDRESS_SPACE: u64 = 256 << 20;

/// File size: a state record has two pages.
const FILE_SIZE: u64 = 1 << 20;

/// The role of a worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerRole {
    /// Whether the log goes to a file, which may exceed the limit of file size.
    pub logs_to_file: bool,
    /// Whether it maps any page of the guest's RAM, to read the rings of a guest that has no grants.
    pub maps_ram: bool,
}

impl WorkerRole {
    /// Restricts paths, capabilities and resources of the process for good. To be called by its only thread.
    ///
    /// # Errors
    /// If the kernel refuses. The process should end then.
    pub fn enter(self) -> Result<(), Error> {
        let limits = ResourceLimits {
            descriptors: Some(DESCRIPTORS),
            // Not limited, since the limit would count the backends, which run as the same user. No permitted
            // system call starts a process or a thread.
            processes: None,
            address_space: Some(ADDRESS_SPACE),
            data: Some(DATA),
            file_size: (!self.logs_to_file).then_some(FILE_SIZE),
        };
        // It was started as its guest's user.
        let (user, reach) = (None, Reach::Nothing);
        Confinement { user, limits, reach, capabilities: CapabilitySet::empty() }.enter()
    }

    /// Restricts the system calls of all threads for good.
    ///
    /// # Errors
    /// If the kernel refuses. The process should end then.
    pub fn enforce(self, enforcement: Enforcement) -> Result<(), Error> {
        let mut calls = Calls::basic()?;
        for requests in [ioctl::DEVICE_MODEL, ioctl::CHANNELS, ioctl::GRANTS] {
            calls.allow_ioctls(requests)?;
        }
        if self.maps_ram {
            calls.allow_ioctls(ioctl::FOREIGN)?;
        }
        // For the channel of a backend's own requests (vhost-user: back-end channel).
        calls.allow_socket_pairs()?;
        // The timer for the deadlines of backends.
        calls.allow(&[libc::SYS_timerfd_settime]);
        // The state records, in open files.
        calls.allow(&[libc::SYS_ftruncate]);
        calls.enforce(enforcement)
    }
}
