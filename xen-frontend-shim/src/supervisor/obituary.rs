// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What Xen says of guests that have ended: that there is one, and on demand which.

use std::os::fd::{AsRawFd, RawFd};

use xen_bindings::{Channel, DomId, DomainState, Evtchn, Privcmd, Result};

/// The event that some domain has ended.
#[derive(Debug)]
pub(super) struct Obituary {
    evtchn: Evtchn,
    _channel: Channel,
}

impl Obituary {
    /// Has Xen tell this domain, whose number is `own`. Whatever ended before has to be asked for once.
    pub(super) fn subscribe(privcmd: &Privcmd, own: DomId) -> Result<Self> {
        let evtchn = Evtchn::open()?;
        let channel = evtchn.bind_domain_events()?;
        privcmd.route_domain_events(own)?;
        Ok(Self { evtchn, _channel: channel })
    }

    /// Takes note of the event, so that the next one comes. What ends from now on is not overlooked.
    pub(super) fn acknowledge(&self) -> Result<()> {
        self.evtchn.unmask(&self.evtchn.pending()?)
    }
}

impl AsRawFd for Obituary {
    /// Readable when some domain has ended.
    fn as_raw_fd(&self) -> RawFd {
        use std::os::fd::AsFd;
        self.evtchn.as_fd().as_raw_fd()
    }
}

/// How a guest has ended, if it has.
pub(super) fn end_of(privcmd: &Privcmd, guest: DomId) -> Result<Option<String>> {
    Ok(match privcmd.domain_state(guest)? {
        DomainState::Alive => None,
        DomainState::ShutDown(reason) => Some(reason.to_string()),
        DomainState::Gone => Some("taken apart".to_owned()),
    })
}
