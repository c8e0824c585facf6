// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls that the appliance never needs and that its policy forbids. `xen-frontend-shim check` and tests make
//! them, to see that Xen refuses: images/xen/policy/README.md lists them all.
//!
//! A call consists of numbers below 64 KiB. Linux puts nothing of a process so low unless the process asks for
//! it by address, which none here does. So the only address in a call is that of its own structure, whatever
//! Xen makes of the rest.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::abi::gntdev::GNTST_PERMISSION_DENIED;
use crate::abi::{dm_op, hypercall as abi};
use crate::error::{Call, Error, Result};
use crate::ids::{DomId, IoreqServerId};
use crate::privcmd::{ForeignPage, Privcmd, fail};
use crate::sys::privcmd::{self as sys, Argument, Words};

/// What Xen keeps for a domain and maps for another one that may (`XENMEM_acquire_resource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Frame 0 is the page of buffered requests, which no server of Arm has; frame 1 that of requests.
    IoreqServer(IoreqServerId),
    /// The table of grants. To write to it is to grant oneself any page of the domain.
    GrantTable,
    /// The status frames of version 2 of the grant table.
    GrantStatus,
    /// The trace buffer of vCPU 0.
    VmTrace,
    /// A type that no Xen has.
    Unknown,
}

impl Resource {
    /// Type and id.
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
    /// A domctl by its number. Each of its first four parameters is the second number.
    Domctl(u16, u16),
    /// A sysctl by its number. It is about no domain.
    Sysctl(u16),
    /// An operation of the platform by its number. It is about no domain.
    Platform(u16),
    /// An operation of the security server by its number, and its first parameter.
    Flask(u16, u16),
    /// An event channel in the domain, for another one.
    AllocUnbound(DomId),
    /// An event channel of the domain: what it is bound to.
    PortStatus(u16),
    /// All event channels of the domain.
    ResetPorts,
    /// A parameter of the domain.
    GetParam(u16),
    /// A parameter of the domain, to be zero.
    SetParam(u16),
    /// The end of the domain.
    Shutdown,
    /// A page of a space of the domain's, to be put at its first frame.
    AddToPhysmap(u16),
    /// The first frame of the domain, to be taken away.
    RemoveFromPhysmap,
    /// How much memory the domain has.
    CurrentReservation,
    /// How large the grant table of the domain is.
    GrantTableSize,
    /// The frames of the domain's grant table.
    GrantTableFrames,
    /// A line on Xen's console. It is about no domain.
    ConsoleWrite,
}

impl Privcmd {
    /// Maps a frame of a resource of the domain's. Xen looks at its policy before it looks for the frame.
    pub fn map_resource(&self, domain: DomId, resource: Resource, frame: u32) -> Result<ForeignPage> {
        let (type_, id) = resource.number();
        let mapping = sys::map_resource(self.as_fd(), domain.get(), type_, id, frame);
        mapping.map(ForeignPage::new).map_err(fail(Call::MapResource, domain))
    }

    /// Makes a call that the policy forbids. Returns what Xen returned.
    ///
    /// # Errors
    ///
    /// [`Error::is_denied`] holds as it should, or the policy allows the call and something else is wrong
    /// with it.
    pub fn forbidden(&self, domain: DomId, call: Forbidden) -> Result<u32> {
        self.attempt(domain.get(), call).map_err(|errno| Error::new(Call::Forbidden, Some(domain), errno))
    }

    fn attempt(&self, domain: u16, call: Forbidden) -> rustix::io::Result<u32> {
        match call {
            Forbidden::Domctl(cmd, parameter) => first_answer(abi::DOMCTL_VERSIONS, |version| {
                let parameters = [16, 24, 32, 40].map(|offset| (offset, parameter));
                let header = [(0, cmd), (4, version), (8, domain)];
                self.structure(abi::HYPERVISOR_DOMCTL, &[header.as_slice(), &parameters].concat())
            }),
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
                self.event_channel_op(abi::EVTCHNOP_ALLOC_UNBOUND, &[(0, domain), (2, remote.get())])
            }
            Forbidden::PortStatus(port) => {
                self.event_channel_op(abi::EVTCHNOP_STATUS, &[(0, domain), (4, port)])
            }
            Forbidden::ResetPorts => self.event_channel_op(abi::EVTCHNOP_RESET, &[(0, domain)]),
            Forbidden::GetParam(index) => {
                self.command(abi::HYPERVISOR_HVM_OP, abi::HVMOP_GET_PARAM, &[(0, domain), (4, index)])
            }
            Forbidden::SetParam(index) => {
                self.command(abi::HYPERVISOR_HVM_OP, abi::HVMOP_SET_PARAM, &[(0, domain), (4, index)])
            }
            Forbidden::Shutdown => {
                self.command(abi::HYPERVISOR_SCHED_OP, abi::SCHEDOP_REMOTE_SHUTDOWN, &[(0, domain)])
            }
            Forbidden::AddToPhysmap(space) => {
                self.memory_op(abi::XENMEM_ADD_TO_PHYSMAP, &[(0, domain), (4, space)])
            }
            Forbidden::RemoveFromPhysmap => self.memory_op(abi::XENMEM_REMOVE_FROM_PHYSMAP, &[(0, domain)]),
            Forbidden::CurrentReservation => self.memory_op(abi::XENMEM_CURRENT_RESERVATION, &[(0, domain)]),
            Forbidden::GrantTableSize => self.grant_table_op(domain, abi::GNTTABOP_QUERY_SIZE, 12),
            Forbidden::GrantTableFrames => self.grant_table_op(domain, abi::GNTTABOP_SETUP_TABLE, 8),
            Forbidden::ConsoleWrite => {
                let nothing =
                    [Argument::Number(abi::CONSOLEIO_WRITE), Argument::Number(0), Argument::Number(0)];
                sys::hypercall(self.as_fd(), abi::HYPERVISOR_CONSOLE_IO, nothing, &mut Words::new(&[]))
            }
        }
    }

    fn structure(&self, number: u16, fields: &[(usize, u16)]) -> rustix::io::Result<u32> {
        let arguments = [Argument::Words, Argument::Number(0), Argument::Number(0)];
        sys::hypercall(self.as_fd(), number, arguments, &mut Words::new(fields))
    }

    fn command(&self, number: u16, command: u16, fields: &[(usize, u16)]) -> rustix::io::Result<u32> {
        let arguments = [Argument::Number(command), Argument::Words, Argument::Number(0)];
        sys::hypercall(self.as_fd(), number, arguments, &mut Words::new(fields))
    }

    fn event_channel_op(&self, command: u16, fields: &[(usize, u16)]) -> rustix::io::Result<u32> {
        self.command(abi::HYPERVISOR_EVENT_CHANNEL_OP, command, fields)
    }

    fn memory_op(&self, command: u16, fields: &[(usize, u16)]) -> rustix::io::Result<u32> {
        self.command(abi::HYPERVISOR_MEMORY_OP, command, fields)
    }

    /// An operation on one grant table. Xen leaves the status at an offset of the structure.
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

/// The answer to the first version of an interface that is not `EACCES`: Xen says so of a version that it
/// does not have, and of what the policy forbids.
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
    fn a_descriptor_of_something_else_gives_errors_only() {
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
    fn the_first_version_that_xen_knows_answers() {
        let answer = |known: u16, answer| {
            first_answer(0x17..=0x1f, |version| if version == known { answer } else { Err(Errno::ACCESS) })
        };
        assert_eq!(answer(0x19, Ok(3)), Ok(3));
        assert_eq!(answer(0x18, Err(Errno::INVAL)), Err(Errno::INVAL));
        assert_eq!(answer(0x17, Err(Errno::ACCESS)), Err(Errno::ACCESS));
    }
}
