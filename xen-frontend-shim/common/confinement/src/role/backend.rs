// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A backend: the daemon of one virtio device.
//!
//! It starts as root, because device nodes belong to root. It opens its bus or its chips and becomes its
//! guest's user. Until then it has read only its command line. It keeps:
//!
//! - its control socket, over which the frontend passes memory, kicks and calls; and a socket that it listens
//!   on;
//! - its hardware, by open descriptors. GPIO lines are requested from an open chip. A console has an open log
//!   or a connected socket in its place;
//! - a file with which the I2C daemons of its guest lock each other out;
//! - for a guest on Xen, grants: the frontend passes a gntdev descriptor that is restricted to the guest. For
//!   a guest without grants it is a privcmd descriptor in its place, also restricted to the guest.
//!
//! If it was taken over, these reach the whole adapter and the free lines of its chips: see `README.md` of
//! this crate.
//!
//! It has two threads: one serves the frontend, one carries out requests. It starts no program, opens no file
//! and sends no signal.

use rustix::thread::CapabilitySet;

use crate::calls::Calls;
use crate::confinement::{Confinement, Error};
use crate::limits::ResourceLimits;
use crate::paths::Reach;
use crate::user::User;
use crate::{Enforcement, ioctl};

/// Open descriptors: one for each GPIO line in use (at most 64 for a guest), thirteen of a frontend, a few of
/// its own, and room for a frontend that passes many memory regions.
const DESCRIPTORS: u64 = 256;

/// Private memory. It uses 2 MiB; what a guest can make it use is bounded by the lengths of its queues.
const DATA: u64 = 32 << 20;

/// Address space of a backend that uses grants: the program, two stacks, the allocator's reserve for a thread
/// (64 MiB) and rings.
const ADDRESS_SPACE: u64 = 256 << 20;

/// File size: the in-flight record has some pages.
const FILE_SIZE: u64 = 1 << 20;

/// The hardware of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// A simulated board, which writes a journal and accepts commands at a socket.
    Simulated,
    /// An adapter of i2c-dev.
    I2c,
    /// Lines of GPIO chips.
    Gpio,
    /// None: a console, whose text comes from an open file or socket.
    None,
}

/// The access to the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// All of the memory is mapped.
    Shared,
    /// Grants of Xen are mapped or copied.
    Granted,
    /// All RAM of a domain of Xen is mapped, which has no grants.
    Foreign,
}

/// The role of a backend.
#[derive(Clone, Copy, Debug)]
pub struct BackendRole {
    /// The user that it becomes. `None`: the user stays.
    pub user: Option<User>,
    /// The hardware.
    pub hardware: Hardware,
    /// The access to the guest's memory.
    pub memory: Memory,
    /// Whether the log goes to a file, which may exceed the limit of file size.
    pub logs_to_file: bool,
}

impl BackendRole {
    /// Restricts user, paths, capabilities and resources of the process for good. To be called by its only
    /// thread, when the hardware is open.
    ///
    /// # Errors
    /// If the kernel refuses. The process should end then.
    pub fn enter(self) -> Result<(), Error> {
        self.confinement().enter()
    }

    /// Restricts the system calls of all threads for good. To be called when both threads exist, before the
    /// frontend is answered.
    ///
    /// # Errors
    /// If the kernel refuses. The process should end then.
    pub fn enforce(self, enforcement: Enforcement) -> Result<(), Error> {
        let no_more = ResourceLimits { processes: Some(0), ..ResourceLimits::default() };
        no_more.apply().map_err(|error| Error::Step("limit threads", error.into()))?;
        self.calls()?.enforce(enforcement)
    }

    fn confinement(self) -> Confinement {
        let grows = self.logs_to_file || self.hardware == Hardware::Simulated;
        let limits = ResourceLimits {
            descriptors: Some(DESCRIPTORS),
            // The second thread is started later.
            processes: None,
            address_space: (self.memory == Memory::Granted).then_some(ADDRESS_SPACE),
            data: Some(DATA),
            file_size: (!grows).then_some(FILE_SIZE),
        };
        Confinement { user: self.user, limits, reach: Reach::Nothing, capabilities: CapabilitySet::empty() }
    }

    fn calls(self) -> Result<Calls, Error> {
        let mut calls = Calls::basic()?;
        // The next frontend, and the commands to a simulated board.
        calls.allow(&[libc::SYS_accept4]);
        // A frontend may request memory for the in-flight record.
        calls.allow(&[libc::SYS_memfd_create, libc::SYS_ftruncate]);
        match self.hardware {
            Hardware::Simulated | Hardware::None => {}
            Hardware::I2c => {
                calls.allow_ioctls(ioctl::I2C)?;
                // The lock between the I2C daemons of the guest, by an open file.
                calls.allow(&[libc::SYS_flock]);
            }
            Hardware::Gpio => calls.allow_ioctls(ioctl::GPIO)?,
        }
        match self.memory {
            Memory::Shared => {}
            Memory::Granted => calls.allow_ioctls(ioctl::GRANTS)?,
            Memory::Foreign => calls.allow_ioctls(ioctl::FOREIGN)?,
        }
        Ok(calls)
    }
}
