// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls that the appliance never needs and that its policy forbids. `xen-frontend-shim check` and tests make
//! them to see that Xen refuses. images/xen/policy/README.md lists them all.
//!
//! All parameters are numbers below 64 KiB. Linux maps nothing there unless a process requests that address,
//! which no process here does. So the only valid address in a call is that of its structure, however Xen
//! interprets the rest.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::abi::gntdev::GNTST_PERMISSION_DENIED;
use crate::abi::{dm_op, hypercall as abi};
use crate::error::{Call, Error, Result};
use crate::ids::{DomId, IoreqServerId};
use crate::privcmd::{ForeignMapping, Privcmd, fail};
use crate::sys::privcmd::{self as sys, Argument, Words};

/// A resource of a domain that Xen maps for a permitted domain (`XENMEM_acquire_resource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An ioreq server. Frame 0 is the page of buffered requests, which does not exist on Arm; frame 1 is the
    /// ioreq page.
    IoreqServer(IoreqServerId),
    /// The grant table. A writer can grant itself any page of the domain.
    GrantTable,
    /// The status frames of version 2 of the grant table.
    GrantStatus,
    /// The trace buffer of vCPU 0.
    VmTrace,
    /// A type that Xen does not define.
    Unknown,
}

impl Resource {
    /// The type and the id.
    fn number(self) -> (u32, u32) {
        match self {
            Self::IoreqServer(id) => (dm_op::XENMEM_RESOURCE_IOREQ_SERVER, id.get().into()),
            Self::GrantTable => {
                (abi::XENMEM_RESOURCE_GRANT_TABLE, abi::XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED)
            }
            Self::GrantStatus => {
                (abi::XENMEM_RESOURCE_GRANT_TABLE, abi::XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS)
            }
            Self::VmTrace => (abi::XENMEM_RESOURCE_VMTRACE_BUF, 0),
            Self::Unknown => (u16::MAX.into(), 0),
        }
    }
}

/// A hypercall about a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// A domctl by its number. The second number is the value of each of its first four parameters.
    Domctl(u16, u16),
    /// A sysctl by its number, without a domain.
    Sysctl(u16),
    /// A platform operation by its number, without a domain.
    Platform(u16),
    /// A FLASK operation by its number, and its first parameter.
    Flask(u16, u16),
    /// Allocating an event channel of the domain for another domain.
    AllocUnbound(DomId),
    /// The status of an event channel of the domain.
    PortStatus(u16),
    /// Closing all event channels of the domain.
    ResetPorts,
    /// Reading an HVM parameter of the domain.
    GetParam(u16),
    /// Setting an HVM parameter of the domain to zero.
    SetParam(u16),
    /// Shutting down the domain.
    Shutdown,
    /// Mapping a page of the given space at the first frame of the domain.
    AddToPhysmap(u16),
    /// Removing the first frame of the domain.
    RemoveFromPhysmap,
    /// The amount of memory of the domain.
    CurrentReservation,
    /// The size of the grant table of the domain.
    GrantTableSize,
    /// The frames of the grant table of the domain.
    GrantTableFrames,
    /// Writing to Xen's console, without a domain.
    ConsoleWrite,
}

impl Privcmd {
    /// Maps a frame of a resource of the domain. Xen checks the policy before it looks for the frame.
    pub fn map_resource(&self, domain: DomId, resource: Resource, frame: u32) -> Result<ForeignMapping> {
        let (type_, id) = resource.number();
        let mapping = sys::map_resource(self.as_fd(), domain.get(), type_, id, frame);
        mapping.map(ForeignMapping::new).map_err(fail(Call::MapResource, domain))
    }

    /// Makes a call that the policy forbids. Returns Xen's return value.
    ///
    /// # Errors
    ///
    /// If the policy forbids the call, [`Error::is_denied`] holds. Otherwise the policy permits it and it
    /// fails for another reason.
    pub fn forbidden(&self, domain: DomId, call: Forbidden) -> Result<u32> {
        self.attempt(domain.get(), call).map_err(|errno| Error::new(Call::Forbidden, Some(domain), errno))
    }

    fn attempt(&self, domain: u16, call: Forbidden) -> rustix::io::Result<u32> {
        let command = |number, command, field| self.command(number, command, domain, field);
        let event_channel = |op, field| command(abi::HYPERVISOR_EVENT_CHANNEL_OP, op, field);
        let memory = |op, field| command(abi::HYPERVISOR_MEMORY_OP, op, field);
        match call {
            Forbidden::Domctl(cmd, parameter) => self.any_domctl(domain, cmd, parameter),
            Forbidden::Sysctl(cmd) => first_answer(abi::SYSCTL_VERSIONS, |version| {
                self.structure(abi::HYPERVISOR_SYSCTL, &[(0, cmd), (4, version)])
            }),
            Forbidden::Platform(cmd) => {
                let [low, high] = abi::PLATFORM_VERSION;
                self.structure(abi::HYPERVISOR_PLATFORM_OP, &[(0, cmd), (4, low), (6, high)])
            }
            Forbidden::Flask(cmd, parameter) => {
                self.structure(abi::HYPERVISOR_XSM_OP, &[(0, cmd), (4, abi::FLASK_VERSION), (8, parameter)])
            }
            Forbidden::AllocUnbound(remote) => {
                event_channel(abi::EVTCHNOP_ALLOC_UNBOUND, Some((2, remote.get())))
            }
            Forbidden::PortStatus(port) => event_channel(abi::EVTCHNOP_STATUS, Some((4, port))),
            Forbidden::ResetPorts => event_channel(abi::EVTCHNOP_RESET, None),
            Forbidden::GetParam(index) => {
                command(abi::HYPERVISOR_HVM_OP, abi::HVMOP_GET_PARAM, Some((4, index)))
            }
            Forbidden::SetParam(index) => {
                command(abi::HYPERVISOR_HVM_OP, abi::HVMOP_SET_PARAM, Some((4, index)))
            }
            Forbidden::Shutdown => command(abi::HYPERVISOR_SCHED_OP, abi::SCHEDOP_REMOTE_SHUTDOWN, None),
            Forbidden::AddToPhysmap(space) => memory(abi::XENMEM_ADD_TO_PHYSMAP, Some((4, space))),
            Forbidden::RemoveFromPhysmap => memory(abi::XENMEM_REMOVE_FROM_PHYSMAP, None),
            Forbidden::CurrentReservation => memory(abi::XENMEM_CURRENT_RESERVATION, None),
            Forbidden::GrantTableSize => self.grant_table_op(domain, abi::GNTTABOP_QUERY_SIZE, 12),
            Forbidden::GrantTableFrames => self.grant_table_op(domain, abi::GNTTABOP_SETUP_TABLE, 8),
            Forbidden::ConsoleWrite => self.empty_console_write(),
        }
    }

    fn any_domctl(&self, domain: u16, cmd: u16, parameter: u16) -> rustix::io::Result<u32> {
        first_answer(abi::DOMCTL_VERSIONS, |version| {
            let parameters = [16, 24, 32, 40].map(|offset| (offset, parameter));
            let header = [(0, cmd), (4, version), (8, domain)];
            self.structure(abi::HYPERVISOR_DOMCTL, &[header.as_slice(), &parameters].concat())
        })
    }

    fn empty_console_write(&self) -> rustix::io::Result<u32> {
        let arguments = [abi::CONSOLEIO_WRITE, 0, 0].map(Argument::Number);
        sys::hypercall(self.as_fd(), abi::HYPERVISOR_CONSOLE_IO, arguments, &mut Words::new(&[]))
    }

    /// A hypercall whose only argument is a structure with these fields.
    fn structure(&self, number: u16, fields: &[(usize, u16)]) -> rustix::io::Result<u32> {
        let arguments = [Argument::Words, Argument::Number(0), Argument::Number(0)];
        sys::hypercall(self.as_fd(), number, arguments, &mut Words::new(fields))
    }

    /// A hypercall whose arguments are a command and a structure that begins with the domain.
    fn command(
        &self,
        number: u16,
        command: u16,
        domain: u16,
        field: Option<(usize, u16)>,
    ) -> rustix::io::Result<u32> {
        let fields: Vec<_> = [(0, domain)].into_iter().chain(field).collect();
        let arguments = [Argument::Number(command), Argument::Words, Argument::Number(0)];
        sys::hypercall(self.as_fd(), number, arguments, &mut Words::new(&fields))
    }

    /// An operation on one grant table. Xen writes the status at the offset `status` of the structure.
    fn grant_table_op(&self, domain: u16, command: u16, status: usize) -> rustix::io::Result<u32> {
        let mut words = Words::new(&[(0, domain)]);
        let arguments = [Argument::Number(command), Argument::Words, Argument::Number(1)];
        let done = sys::hypercall(self.as_fd(), abi::HYPERVISOR_GRANT_TABLE_OP, arguments, &mut words)?;
        match words.get(status) {
            GNTST_PERMISSION_DENIED => Err(Errno::ACCESS),
            _ => Ok(done),
        }
    }
}

/// The first answer that is not `EACCES`, which Xen returns for another version of the interface and for a
/// call that the policy forbids.
fn first_answer(
    versions: impl Iterator<Item = u16>,
    attempt: impl Fn(u16) -> rustix::io::Result<u32>,
) -> rustix::io::Result<u32> {
    let mut answers = versions.map(attempt);
    answers.find(|answer| *answer != Err(Errno::ACCESS)).unwrap_or(Err(Errno::ACCESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_descriptor_gives_errors() {
        let (privcmd, guest) = (Privcmd::from_fd(tempfile::tempfile().unwrap().into()), DomId::new(2));
        let error = privcmd.map_resource(guest, Resource::GrantTable, 0).unwrap_err();
        assert_eq!((error.call(), error.domain()), (Call::MapResource, Some(guest)));
        for call in [Forbidden::Domctl(2, 0), Forbidden::AllocUnbound(guest), Forbidden::GrantTableSize] {
            let error = privcmd.forbidden(guest, call).unwrap_err();
            assert_eq!(error.call(), Call::Forbidden, "{call:?}");
            assert!(error.is_unsupported() && !error.is_denied(), "{call:?}: {error}");
        }
    }

    #[test]
    fn first_known_version_gives_the_answer() {
        let answer = |known: u16, answer| {
            first_answer(0x17..=0x1f, |version| if version == known { answer } else { Err(Errno::ACCESS) })
        };
        assert_eq!(answer(0x19, Ok(3)), Ok(3));
        assert_eq!(answer(0x18, Err(Errno::INVAL)), Err(Errno::INVAL));
        assert_eq!(answer(0x17, Err(Errno::ACCESS)), Err(Errno::ACCESS));
    }
}
