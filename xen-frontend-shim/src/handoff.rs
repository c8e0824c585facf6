// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a supervisor gives a worker: descriptors by inheritance, and a description of which is which.
//!
//! ```text
//!   supervisor ── Parcel: descriptors renumbered from 3, description in a memfd ──▶ worker ── Inheritance
//!              ◀── control socket: see [`crate::control`] ──────────────────────▶
//! ```
//!
//! What must outlive a worker is in here, so that the next worker can be given the same; what its devices need follows
//! over the control socket ([`crate::assignment`]).

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use command_fds::inherited::{init_inherited_fds, take_fd_ownership};
use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::control::Control;

/// Where a worker finds the control socket.
const CONTROL: i32 = 3;
/// Where it finds the description.
const DESCRIPTION: i32 = 4;

/// The number of a descriptor in the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(i32);

/// Which guest a worker is to serve, and with which descriptors. Its devices follow over the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// The guest's name.
    pub name: String,
    /// The guest's domid.
    pub domid: u16,
    /// Whether no worker has answered the guest since the ports were bound: they have fired once and are masked.
    pub is_first: bool,
    /// Whether the guest may be running already, as it was when a former supervisor ended.
    pub is_running: bool,
    /// The number of the guest's ioreq server.
    pub server: u16,
    /// The event channels of its vCPUs, in order.
    pub ports: Vec<u32>,
    /// An open `/dev/xen/privcmd` that is restricted to the guest.
    pub privcmd: Number,
    /// The open `/dev/xen/evtchn` to which the ports are bound, restricted to the guest.
    pub evtchn: Number,
    /// An open `/dev/xen/gntdev` that is restricted to the guest, for the worker's own mappings.
    pub gntdev: Number,
}

/// Descriptors on their way to a worker.
#[derive(Debug, Default)]
pub struct Parcel(Vec<OwnedFd>);

impl Parcel {
    /// Adds a copy of `fd`.
    pub fn add(&mut self, fd: impl AsFd) -> io::Result<Number> {
        let number = i32::try_from(self.0.len()).ok().and_then(|count| count.checked_add(DESCRIPTION + 1));
        let number = number.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.0.push(fd.as_fd().try_clone_to_owned()?);
        Ok(Number(number))
    }

    /// Attaches all of it to `command`.
    pub fn attach(self, command: &mut Command, control: OwnedFd, handoff: &Handoff) -> io::Result<()> {
        let mut description = File::from(memfd_create("handoff", MemfdFlags::CLOEXEC)?);
        description.write_all(toml::to_string(handoff).map_err(io::Error::other)?.as_bytes())?;
        description.rewind()?;
        let fds = [control, description.into()].into_iter().chain(self.0);
        let mappings = (CONTROL..).zip(fds).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.collect()).map_err(io::Error::other)?;
        Ok(())
    }
}

/// What a worker has been given.
#[derive(Debug)]
pub struct Inheritance(());

impl Inheritance {
    /// Claims the inherited descriptors. To be called before anything else opens one.
    pub fn claim() -> io::Result<Self> {
        // SAFETY: the worker calls this first: all descriptors beyond the standard three are those that the parent
        // passed, and nobody owns them yet.
        unsafe { init_inherited_fds() }?;
        Ok(Self(()))
    }

    /// The control socket.
    pub fn control(&self) -> io::Result<Control> {
        self.take(Number(CONTROL)).map(Control::from)
    }

    /// The description.
    pub fn handoff(&self) -> io::Result<Handoff> {
        let mut text = String::new();
        File::from(self.take(Number(DESCRIPTION))?).read_to_string(&mut text)?;
        toml::from_str(&text).map_err(io::Error::other)
    }

    /// A descriptor that the description names, once.
    pub fn take(&self, number: Number) -> io::Result<OwnedFd> {
        take_fd_ownership(number.0).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handoff_survives_the_way() {
        let mut parcel = Parcel::default();
        let mut add = || parcel.add(io::stderr()).unwrap();
        assert_eq!((add(), add()), (Number(5), Number(6)));
        let handoff = Handoff {
            name: "guest-a".into(),
            domid: 2,
            is_first: true,
            is_running: false,
            server: 0,
            ports: vec![7, 8],
            privcmd: add(),
            evtchn: add(),
            gntdev: add(),
        };
        let text = toml::to_string(&handoff).unwrap();
        assert_eq!(toml::from_str::<Handoff>(&text).unwrap(), handoff);
    }
}
