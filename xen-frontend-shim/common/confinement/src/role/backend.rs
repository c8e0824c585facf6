// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A backend: the daemon of one virtio device.
//!
//! It is started as root, since device nodes are root's; it opens its bus or its chips and becomes its guest's user. Until
//! then it has seen its command line and nothing else. What it keeps:
//!
//! - its control socket, through which the frontend passes it memory, kicks and calls; a socket that it listens on;
//! - its hardware, by the open descriptors. GPIO lines are requested of a chip that is open;
//! - a file on which the I2C daemons of its guest lock each other out, and nobody else;
//! - for a guest on Xen, grants: the frontend passes a descriptor of gntdev that is restricted to the guest.
//!
//! What these let it do when it was taken over is in `README.md` of this crate: the whole adapter, and what is free of the chips.
//!
//! It has two threads: one answers the frontend, one works. It starts no program, opens nothing, signals
//! nobody.

use rustix::thread::CapabilitySet;

use crate::calls::Calls;
use crate::confinement::{Confinement, Error};
use crate::limits::ResourceLimits;
use crate::paths::Reach;
use crate::user::User;
use crate::{Enforcement, ioctl};

/// Descriptors: one for each GPIO line that is in use (a guest has at most 64), thirteen of a frontend, a few of its own; with
/// room for a frontend that passes many regions of memory.
const DESCRIPTORS: u64 = 256;

/// Its own memory. It takes 2 MiB; what a guest can make it take is bounded by the lengths of its queues.
const DATA: u64 = 32 << 20;

/// Address space, where guests' memory comes by grants: the program, two stacks, what the allocator reserves
/// for a thread (64 MiB), and rings.
const ADDRESS_SPACE: u64 = 256 << 20;

/// A file that it has open: the record of its requests in flight, which takes some pages.
const FILE_SIZE: u64 = 1 << 20;

/// What the daemon drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// A model, which writes a journal and takes commands at a socket.
    Simulated,
    /// An adapter of i2c-dev.
    I2c,
    /// Lines of GPIO chips.
    Gpio,
}

/// How it reaches its guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// All of it is mapped.
    Shared,
    /// By Xen's grants.
    Granted,
}

/// A backend.
#[derive(Clone, Copy, Debug)]
pub struct BackendRole {
    /// Whom it becomes.
    pub user: Option<User>,
    /// What it drives.
    pub hardware: Hardware,
    /// How it reaches its guest's memory.
    pub memory: Memory,
    /// Whether its log goes to a file, which may grow.
    pub logs_to_file: bool,
}

impl BackendRole {
    /// Takes user, paths, capabilities and resources from the process, for good. To be called by its only
    /// thread, when the hardware is open.
    ///
    /// # Errors
    /// When the kernel refuses. The process should end then.
    pub fn enter(self) -> Result<(), Error> {
        self.confinement().enter()
    }

    /// Takes from all of its threads the system calls that it does not need, for good. To be called when both
    /// of its threads are there, and before the frontend is answered.
    ///
    /// # Errors
    /// When the kernel refuses. The process should end then.
    pub fn enforce(self, enforcement: Enforcement) -> Result<(), Error> {
        let no_more = ResourceLimits { processes: Some(0), ..ResourceLimits::default() };
        no_more.apply().map_err(|error| Error::Step("limit its threads", error.into()))?;
        self.calls()?.enforce(enforcement)
    }

    fn confinement(self) -> Confinement {
        let grows = self.logs_to_file || self.hardware == Hardware::Simulated;
        let limits = ResourceLimits {
            descriptors: Some(DESCRIPTORS),
            // The worker's thread is still to come.
            processes: None,
            address_space: (self.memory == Memory::Granted).then_some(ADDRESS_SPACE),
            data: Some(DATA),
            file_size: (!grows).then_some(FILE_SIZE),
        };
        Confinement { user: self.user, limits, reach: Reach::Nothing, capabilities: CapabilitySet::empty() }
    }

    fn calls(self) -> Result<Calls, Error> {
        let mut calls = Calls::basic()?;
        // The next frontend, and whoever commands a simulated board.
        calls.allow(&[libc::SYS_accept4]);
        // A frontend may ask for memory to record requests in flight.
        calls.allow(&[libc::SYS_memfd_create, libc::SYS_ftruncate]);
        match self.hardware {
            Hardware::Simulated => {}
            Hardware::I2c => {
                calls.allow_ioctls(ioctl::I2C)?;
                // The turns of its guest's daemons, by a file that is open.
                calls.allow(&[libc::SYS_flock]);
            }
            Hardware::Gpio => calls.allow_ioctls(ioctl::GPIO)?,
        }
        if self.memory == Memory::Granted {
            calls.allow_ioctls(ioctl::GRANTS)?;
        }
        Ok(calls)
    }
}
