// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Xen, through crate xen-bindings: the descriptors and the ioreq page that a worker has of its guest.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use log::error;
use xen_bindings::{
    Access, DomId, Evtchn, Fired, ForeignMapping, Gfn, Gntdev, GrantMapping, GrantRef, IoreqPage,
    IoreqServer, IoreqServerId, Irq, Port, Privcmd, RawRequest, Slot, SlotState,
};

use super::{Hypervisor, Mapping};
use crate::memory::{GuestRange, Page};

/// A guest whose ioreq server the supervisor created and owns.
#[derive(Debug)]
pub struct XenGuest {
    domain: DomId,
    privcmd: Privcmd,
    evtchn: Evtchn,
    gntdev: Gntdev,
    /// The channels of the vCPUs, in order. The supervisor has bound them and owns them.
    ports: Vec<Port>,
    page: Arc<IoreqPage>,
}

impl XenGuest {
    /// Adopts the server `id` of `domain`. The channels of the vCPUs are bound to `ports` of `evtchn`.
    pub fn adopt(
        domain: DomId,
        id: IoreqServerId,
        privcmd: Privcmd,
        evtchn: Evtchn,
        gntdev: Gntdev,
        ports: Vec<Port>,
    ) -> io::Result<Self> {
        let page = IoreqServer::adopt(&privcmd, domain, id).page()?;
        let guest = Self { domain, privcmd, evtchn, gntdev, ports, page };
        let vcpus = guest.page.slots().len();
        if vcpus != guest.ports.len() {
            let ports = guest.ports.len();
            let mismatch = format!("the guest has {vcpus} vCPUs, and {ports} event channels were passed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, mismatch));
        }
        Ok(guest)
    }

    /// The channels that have fired, for [`Self::rearm`] after their vCPUs are served.
    pub fn fired(&self) -> io::Result<Fired> {
        Ok(self.evtchn.pending()?)
    }

    /// The vCPU behind a channel.
    #[must_use]
    pub fn vcpu(&self, port: Port) -> Option<u32> {
        u32::try_from(self.ports.iter().position(|&known| known == port)?).ok()
    }

    /// Unmasks channels that have fired.
    pub fn rearm(&self, fired: &Fired) -> io::Result<()> {
        Ok(self.evtchn.unmask(fired)?)
    }

    /// Unmasks all channels.
    pub fn rearm_all(&self) -> io::Result<()> {
        Ok(self.evtchn.unmask_all(&self.ports)?)
    }

    /// Notifies Xen of all answered requests, in case a former worker ended before it did.
    pub fn wake_answered(&self) -> io::Result<()> {
        let answered = self
            .page
            .slots()
            .iter()
            .zip(&self.ports)
            .filter(|(slot, _)| slot.state() == SlotState::ResponseReady);
        for (_, &port) in answered {
            self.evtchn.notify(port)?;
        }
        Ok(())
    }

    fn slot(&self, vcpu: u32) -> Option<&Slot> {
        self.page.slot(usize::try_from(vcpu).ok()?)
    }
}

impl AsFd for XenGuest {
    /// Readable when channels have fired.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.evtchn.as_fd()
    }
}

impl Hypervisor for XenGuest {
    type Mapping = XenMapping;

    fn vcpus(&self) -> u32 {
        u32::try_from(self.page.slots().len()).unwrap_or(u32::MAX)
    }

    fn pending(&self, vcpu: u32) -> Option<RawRequest> {
        self.slot(vcpu)?.peek()
    }

    fn claim(&self, vcpu: u32) -> Option<RawRequest> {
        self.slot(vcpu)?.take()
    }

    fn left_behind(&self, vcpu: u32) -> Option<RawRequest> {
        self.slot(vcpu)?.retake()
    }

    fn respond(&self, vcpu: u32, data: u64) {
        let port = usize::try_from(vcpu).ok().and_then(|vcpu| self.ports.get(vcpu));
        if let (Some(slot), Some(&port)) = (self.slot(vcpu), port) {
            slot.respond(data);
            if let Err(error) = self.evtchn.notify(port) {
                error!("vCPU {vcpu} is not resumed after its request: {error}");
            }
        }
    }

    fn raise(&self, irq: u32) -> io::Result<()> {
        Ok(self.privcmd.set_irq_level(self.domain, Irq::new(irq), true)?)
    }

    fn map(&self, range: GuestRange) -> io::Result<XenMapping> {
        let pages = range.page_count();
        match range.first() {
            Page::Granted(first) => {
                let references = (0..pages).map_while(|page| first.0.checked_add(page)).map(GrantRef::new);
                let grants: Vec<_> = references.collect();
                Ok(XenMapping::Granted(self.gntdev.map(self.domain, &grants, Access::ReadWrite)?))
            }
            Page::Frame(first) => {
                let mapping = self.privcmd.map_foreign(self.domain, Gfn::new(first), pages)?;
                Ok(XenMapping::Foreign(mapping))
            }
        }
    }
}

/// Mapped memory of a guest.
#[derive(Debug)]
pub enum XenMapping {
    /// Pages that the guest has granted.
    Granted(GrantMapping),
    /// Pages of a guest whose configuration gives all of its RAM.
    Foreign(ForeignMapping),
}

impl Mapping for XenMapping {
    fn load_u16(&self, offset: usize) -> Option<u16> {
        match self {
            Self::Granted(mapping) => mapping.load_u16(offset),
            Self::Foreign(mapping) => mapping.load_u16(offset),
        }
    }
}
