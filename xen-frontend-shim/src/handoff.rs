// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The descriptors that a worker inherits from the supervisor, and the description of them.
//!
//! ```text
//!   supervisor ── PassedFds: 3 (control socket), 4 (Handoff, in a memfd), 5... ──▶ worker: InheritedFds
//!              ◀── control socket: crate::control ───────────────────────────────▶
//! ```
//!
//! The supervisor keeps duplicates of all of them, so that the next worker gets the same. What belongs to one
//! device follows over the control socket ([`crate::assignment`]).

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use command_fds::inherited::{InheritedFdError, init_inherited_fds, take_fd_ownership};
use command_fds::{CommandFdExt, FdMapping, FdMappingCollision};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use shim_config::MemoryBank;
use thiserror::Error;

use crate::control::Control;

/// The number of the control socket in the worker.
const CONTROL: i32 = 3;
/// The number of the description in the worker.
const DESCRIPTION: i32 = 4;

/// Errors of passing or inheriting descriptors.
#[derive(Debug, Error)]
pub enum HandoffError {
    /// The operating system refuses.
    #[error("handoff to a worker: {0}")]
    Io(#[from] io::Error),
    /// The description is not in the format.
    #[error("malformed description of a worker's descriptors: {0}")]
    Format(#[from] postcard::Error),
    /// Two descriptors have one number.
    #[error("descriptors for a worker: {0}")]
    Collision(#[from] FdMappingCollision),
    /// A descriptor was not inherited, or is in use already.
    #[error("inherited descriptor: {0}")]
    Inherited(#[from] InheritedFdError),
}

/// The number of a descriptor in the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FdNumber(i32);

/// The guest that a worker serves, and its descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// The guest's name.
    pub name: String,
    /// The guest's domid.
    pub domid: u16,
    /// The guest's RAM, if backends reach all of it.
    pub memory: Vec<MemoryBank>,
    /// Whether no worker has served the guest since the ports were bound: each port has fired once and is
    /// masked.
    pub is_first: bool,
    /// Whether the guest may be running already.
    pub is_running: bool,
    /// The number of the guest's ioreq server.
    pub server: u16,
    /// The event channels of the guest's vCPUs, in order.
    pub ports: Vec<u32>,
    /// A descriptor of `/dev/xen/privcmd`, restricted to the guest.
    pub privcmd: FdNumber,
    /// The descriptor of `/dev/xen/evtchn` to which the ports are bound, restricted to the guest.
    pub evtchn: FdNumber,
    /// A descriptor of `/dev/xen/gntdev` for the worker's own mappings, restricted to the guest.
    pub gntdev: FdNumber,
}

/// Descriptors to pass to a worker.
#[derive(Debug, Default)]
pub struct PassedFds(Vec<OwnedFd>);

impl PassedFds {
    /// Adds a duplicate of `fd`. Returns its number in the worker.
    pub fn add(&mut self, fd: impl AsFd) -> io::Result<FdNumber> {
        let number = i32::try_from(self.0.len()).ok().and_then(|count| count.checked_add(DESCRIPTION + 1));
        let number = number.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.0.push(fd.as_fd().try_clone_to_owned()?);
        Ok(FdNumber(number))
    }

    /// Lets `command` inherit the control socket, the description and all added descriptors.
    pub fn attach(
        self,
        command: &mut Command,
        control: OwnedFd,
        handoff: &Handoff,
    ) -> Result<(), HandoffError> {
        let fds = [control, description(handoff)?.into()].into_iter().chain(self.0);
        let mappings = (CONTROL..).zip(fds).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.collect())?;
        Ok(())
    }
}

/// Writes the description to a file in memory.
fn description(handoff: &Handoff) -> Result<File, HandoffError> {
    let mut file = File::from(memfd_create("handoff", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    file.write_all(&postcard::to_allocvec(handoff)?)?;
    file.rewind()?;
    Ok(file)
}

fn read_description(mut file: File) -> Result<Handoff, HandoffError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(postcard::from_bytes(&bytes)?)
}

/// The descriptors that a worker has inherited.
#[derive(Debug)]
pub struct InheritedFds(());

impl InheritedFds {
    /// Takes ownership of the inherited descriptors. To be called before the process opens any.
    pub fn claim() -> Result<Self, HandoffError> {
        // SAFETY: the worker calls this first: all descriptors beyond the standard three are those that its
        // parent passed, and nothing owns them yet.
        unsafe { init_inherited_fds() }?;
        Ok(Self(()))
    }

    /// Takes the control socket.
    pub fn control(&self) -> Result<Control, HandoffError> {
        self.take(FdNumber(CONTROL)).map(Control::from)
    }

    /// Reads the description.
    pub fn handoff(&self) -> Result<Handoff, HandoffError> {
        read_description(self.take(FdNumber(DESCRIPTION))?.into())
    }

    /// Takes a descriptor of the description. Each can be taken once.
    pub fn take(&self, number: FdNumber) -> Result<OwnedFd, HandoffError> {
        Ok(take_fd_ownership(number.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_is_read_as_it_was_written() {
        let mut passed = PassedFds::default();
        let mut add = || passed.add(io::stderr()).unwrap();
        assert_eq!((add(), add()), (FdNumber(5), FdNumber(6)));
        let handoff = Handoff {
            name: "guest-a".into(),
            domid: 2,
            memory: vec![MemoryBank { base: 0x4000_0000, size: 0x400_0000 }],
            is_first: true,
            is_running: false,
            server: 0,
            ports: vec![7, 8],
            privcmd: add(),
            evtchn: add(),
            gntdev: add(),
        };
        assert_eq!(read_description(description(&handoff).unwrap()).unwrap(), handoff);
    }

    #[test]
    fn description_that_ends_early_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"\x07guest").unwrap();
        file.rewind().unwrap();
        assert!(matches!(read_description(file), Err(HandoffError::Format(_))));
    }
}
