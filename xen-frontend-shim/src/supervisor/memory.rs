// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The descriptor by which a backend maps the memory of its guest.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shim_config::Guest;
use xen_bindings::{DomId, Gntdev, Privcmd};

/// The memory of a guest that backends reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum MemoryAccess {
    /// The pages that the guest grants.
    Granted(DomId),
    /// All of its RAM.
    All(DomId),
}

impl MemoryAccess {
    /// What the configuration of `guest` gives.
    pub(super) fn of(guest: &Guest) -> Self {
        let domain = DomId::new(guest.domid);
        if guest.memory.is_empty() { Self::Granted(domain) } else { Self::All(domain) }
    }

    /// Opens a descriptor for one process, restricted to the guest.
    pub(super) fn open(self) -> io::Result<OwnedFd> {
        match self {
            Self::Granted(domain) => Gntdev::open_for(domain)?.as_fd().try_clone_to_owned(),
            Self::All(domain) => Privcmd::open_for(domain)?.as_fd().try_clone_to_owned(),
        }
    }
}
