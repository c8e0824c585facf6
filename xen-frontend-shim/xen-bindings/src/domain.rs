// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Operations on a guest as a whole, by domctl: unpausing it, and noticing its end.
//!
//! A domctl has a version number. Xen answers `EACCES` to any version but its own, so the versions are tried
//! in turn. A denial by FLASK is `EACCES` as well, so the last answer does not tell the two apart.
//!
//! A domctl is a plain hypercall: it needs a descriptor that is not restricted ([`Privcmd::restrict`]).
//!
//! # The end of a guest
//!
//! Xen sends the virtual interrupt VIRQ_DOM_EXC when a domain has shut down, crashed or been destroyed. It
//! goes to one domain: the hardware domain, which does not exist here, or the one that
//! [`Privcmd::route_domain_events`] names (Xen 4.20, `common/event_channel.c`: `set_global_virq_handler`;
//! FLASK checks `domain:set_virq_handler` on that domain). The interrupt does not tell which domain has
//! ended: [`Privcmd::domain_state`] does.

use std::fmt;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::abi::domctl::{self, Domctl};
use crate::error::{Call, Result};
use crate::ids::DomId;
use crate::privcmd::{Privcmd, fail};
use crate::sys::privcmd as sys;

/// The number of attempts of a hypercall whose buffer the kernel is moving.
const ATTEMPTS: usize = 8;

/// The result of [`Privcmd::unpause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpaused {
    /// The pause count of the guest was decremented: it runs, unless it was paused more than once.
    Now,
    /// The guest was not paused.
    WasRunning,
}

/// The state of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// It exists and has not shut down.
    Alive,
    /// It has shut down or crashed. Its memory and its grants still exist.
    ShutDown(ShutdownReason),
    /// It is being destroyed, or does not exist.
    Gone,
}

/// The reason of a shutdown (`SHUTDOWN_*` of Xen's `sched.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReason(u8);

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            domctl::SHUTDOWN_POWEROFF => f.write_str("powered off"),
            domctl::SHUTDOWN_REBOOT => f.write_str("asked for a reboot"),
            domctl::SHUTDOWN_SUSPEND => f.write_str("suspended"),
            domctl::SHUTDOWN_CRASH => f.write_str("crashed"),
            domctl::SHUTDOWN_WATCHDOG => f.write_str("stopped by its watchdog"),
            other => write!(f, "shut down for reason {other}"),
        }
    }
}

impl Privcmd {
    /// Unpauses a guest that was created paused.
    pub fn unpause(&self, domain: DomId) -> Result<Unpaused> {
        match self.domctl(domctl::XEN_DOMCTL_UNPAUSEDOMAIN, domain, 0) {
            Ok(_) => Ok(Unpaused::Now),
            Err(Errno::INVAL) => Ok(Unpaused::WasRunning),
            Err(other) => Err(fail(Call::Unpause, domain)(other)),
        }
    }

    /// Queries the state of `domain`.
    pub fn domain_state(&self, domain: DomId) -> Result<DomainState> {
        match self.domctl(domctl::XEN_DOMCTL_GETDOMAININFO, domain, 0) {
            Ok(answer) => Ok(state_of(domctl::domaininfo_flags(&answer))),
            Err(Errno::SRCH) => Ok(DomainState::Gone),
            Err(other) => Err(fail(Call::GetDomainInfo, domain)(other)),
        }
    }

    /// Routes the event of the end of any domain to the domain `own`, which must be this one: see
    /// [`Evtchn::bind_domain_events`].
    ///
    /// [`Evtchn::bind_domain_events`]: crate::Evtchn::bind_domain_events
    pub fn route_domain_events(&self, own: DomId) -> Result<()> {
        let virq = u64::from(domctl::VIRQ_DOM_EXC);
        let routed = self.domctl(domctl::XEN_DOMCTL_SET_VIRQ_HANDLER, own, virq);
        routed.map(drop).map_err(fail(Call::SetVirqHandler, own))
    }

    /// Makes a domctl with Xen's version, and with `parameter` as the first of its parameters.
    fn domctl(&self, cmd: u32, domain: DomId, parameter: u64) -> rustix::io::Result<Domctl> {
        let versions = domctl::XEN_DOMCTL_INTERFACE_VERSION_FIRST..=domctl::XEN_DOMCTL_INTERFACE_VERSION_LAST;
        for interface_version in versions {
            match self.domctl_version(interface_version, cmd, domain, parameter) {
                Err(Errno::ACCESS) => {}
                result => return result,
            }
        }
        Err(Errno::ACCESS)
    }

    fn domctl_version(
        &self,
        interface_version: u32,
        cmd: u32,
        domain: DomId,
        parameter: u64,
    ) -> rustix::io::Result<Domctl> {
        let mut result = Err(Errno::FAULT);
        for _ in 0..ATTEMPTS {
            let mut op = Domctl { cmd, interface_version, domain: domain.get(), pad: [0; 3], u: [0; 32] };
            op.u[0] = parameter;
            result = sys::domctl(self.as_fd(), op);
            if !matches!(result, Err(Errno::FAULT)) {
                break;
            }
        }
        result
    }
}

fn state_of(flags: u32) -> DomainState {
    if flags & domctl::XEN_DOMINF_DYING != 0 {
        DomainState::Gone
    } else if flags & domctl::XEN_DOMINF_SHUTDOWN != 0 {
        let [_, _, reason, _] = flags.to_le_bytes();
        DomainState::ShutDown(ShutdownReason(reason))
    } else {
        DomainState::Alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_give_state_and_reason() {
        assert_eq!(state_of(0x122), DomainState::Alive);
        assert_eq!(state_of(0x3_0126), DomainState::ShutDown(ShutdownReason(3)));
        assert_eq!(state_of(0x127), DomainState::Gone);
        for (code, text) in
            [(0, "powered off"), (1, "asked for a reboot"), (3, "crashed"), (9, "shut down for reason 9")]
        {
            assert_eq!(ShutdownReason(code).to_string(), text);
        }
    }

    #[test]
    fn other_descriptor_gives_errors() {
        let privcmd = Privcmd::from_fd(tempfile::tempfile().unwrap().into());
        let guest = DomId::new(2);
        assert!(privcmd.unpause(guest).is_err());
        assert!(privcmd.domain_state(guest).is_err());
        let error = privcmd.route_domain_events(guest).unwrap_err();
        assert_eq!((error.call(), error.domain()), (Call::SetVirqHandler, Some(guest)));
    }
}
