// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A worker of the shim: what stands between one guest and its backends.
//!
//! The supervisor starts it as the guest's user and passes it all that it needs: a privcmd, the event channels and a gntdev,
//! each restricted to the guest, eventfds, the backends' sockets, and pidfds by which it ends a backend that hangs. What these
//! let it do when it was taken over is in `README.md` of this crate. It has not seen anything of the guest before it has enforced its list of system calls. It starts no program and opens nothing.
//!
//! ```text
//!   start of the process ─▶ WorkerRole::enter ─▶ ioreq page, backends ─▶ WorkerRole::enforce ─▶ "ready"
//! ```

use rustix::thread::CapabilitySet;

use crate::calls::{Calls, Enforcement};
use crate::confinement::{Confinement, Error};
use crate::ioctl;
use crate::limits::ResourceLimits;
use crate::paths::Reach;

/// Descriptors: about a dozen for each device, of which a guest has at most eleven, since Xen reserves so many interrupts.
const DESCRIPTORS: u64 = 512;

/// Its own memory. It takes 2 MiB.
const DATA: u64 = 32 << 20;

/// Address space: the program, its stack and heap, a page of each ring.
const ADDRESS_SPACE: u64 = 256 << 20;

/// A file that it has open: the state of its transports, which takes some pages.
const FILE_SIZE: u64 = 1 << 20;

/// A worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerRole {
    /// Whether its log goes to a file, which may grow.
    pub logs_to_file: bool,
}

impl WorkerRole {
    /// Takes paths, capabilities and resources from the process, for good. To be called by its only thread.
    ///
    /// # Errors
    /// When the kernel refuses. The process should end then.
    pub fn enter(self) -> Result<(), Error> {
        let limits = ResourceLimits {
            descriptors: Some(DESCRIPTORS),
            // The backends are of the same user. The list of system calls has none that starts a process or a thread.
            processes: None,
            address_space: Some(ADDRESS_SPACE),
            data: Some(DATA),
            file_size: (!self.logs_to_file).then_some(FILE_SIZE),
        };
        // It was started as its guest's user, and so were its backends, which it may have to kill.
        let (user, reach) = (None, Reach::Signals);
        Confinement { user, limits, reach, capabilities: CapabilitySet::empty() }.enter()
    }

    /// Takes from all of its threads the system calls that it does not need, for good.
    ///
    /// # Errors
    /// When the kernel refuses. The process should end then.
    pub fn enforce(self, enforcement: Enforcement) -> Result<(), Error> {
        let mut calls = Calls::basic()?;
        for requests in [ioctl::DEVICE_MODEL, ioctl::CHANNELS, ioctl::GRANTS] {
            calls.allow_ioctls(requests)?;
        }
        // A channel for a backend that has something to say by itself.
        calls.allow_socket_pairs()?;
        // A backend that hangs. The kernel has the last word: same user, and it must hold the pidfd.
        calls.allow(&[libc::SYS_pidfd_send_signal]);
        // The alarm for what a backend must have done by then.
        calls.allow(&[libc::SYS_timerfd_settime]);
        // The transports' state, in a file that is open.
        calls.allow(&[libc::SYS_ftruncate]);
        calls.enforce(enforcement)
    }
}
