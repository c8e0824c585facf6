// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of domains: Xen's event that some domain has ended, and the query which one it is.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use xen_bindings::{Channel, DomId, DomainState, Evtchn, Privcmd, Result};

/// The subscription to the event that some domain has ended.
#[derive(Debug)]
pub(super) struct DomainExit {
    evtchn: Evtchn,
    _channel: Channel,
}

impl DomainExit {
    /// Routes the event to this domain, whose domid is `own`. Domains that ended before cause no event.
    pub(super) fn subscribe(privcmd: &Privcmd, own: DomId) -> Result<Self> {
        let evtchn = Evtchn::open()?;
        let channel = evtchn.bind_domain_events()?;
        privcmd.route_domain_events(own)?;
        Ok(Self { evtchn, _channel: channel })
    }

    /// Acknowledges the event and unmasks it. To be called before the domains are queried, so that none is
    /// missed.
    pub(super) fn acknowledge(&self) -> Result<()> {
        self.evtchn.unmask(&self.evtchn.pending()?)
    }
}

impl AsRawFd for DomainExit {
    /// Readable after the event.
    fn as_raw_fd(&self) -> RawFd {
        self.evtchn.as_fd().as_raw_fd()
    }
}

/// How the domain `guest` has ended. `None` while it exists.
pub(super) fn end_of(privcmd: &Privcmd, guest: DomId) -> Result<Option<String>> {
    Ok(match privcmd.domain_state(guest)? {
        DomainState::Alive => None,
        DomainState::ShutDown(reason) => Some(reason.to_string()),
        DomainState::Gone => Some("been destroyed".to_owned()),
    })
}
