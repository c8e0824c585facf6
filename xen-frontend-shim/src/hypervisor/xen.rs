// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Xen, through crate xen-bindings: what a worker holds of its guest.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use log::error;
use xen_bindings::{
    Access, DomId, Evtchn, Gntdev, GrantMapping, GrantRef, IoreqPage, IoreqServer, IoreqServerId, Irq, Port,
    Privcmd, Request as RawRequest, Slot,
};

use super::{Hypervisor, Mapping};
use crate::memory::address::GrantReference;

/// A guest whose ioreq server somebody else made and keeps.
#[derive(Debug)]
pub struct XenGuest {
    domain: DomId,
    privcmd: Privcmd,
    evtchn: Evtchn,
    gntdev: Gntdev,
    /// The channels of the vCPUs, in order. They belong to the supervisor, which bound them.
    ports: Vec<Port>,
    page: Arc<IoreqPage>,
    /// `None` only while it is dropped: the server outlives this process.
    server: Option<IoreqServer>,
}

impl XenGuest {
    /// Takes up the server `id` of `domain`, whose vCPUs' channels are bound to `ports` of `evtchn`.
    pub fn adopt(
        domain: DomId,
        id: IoreqServerId,
        privcmd: Privcmd,
        evtchn: Evtchn,
        gntdev: Gntdev,
        ports: Vec<Port>,
    ) -> io::Result<Self> {
        let server = IoreqServer::adopt(&privcmd, domain, id);
        let page = match server.page() {
            Ok(page) => page,
            Err(error) => {
                let _ = server.release();
                return Err(io::Error::other(error));
            }
        };
        let guest = Self { domain, privcmd, evtchn, gntdev, ports, page, server: Some(server) };
        let vcpus = guest.page.slots().len();
        if vcpus != guest.ports.len() {
            let ports = guest.ports.len();
            return Err(io::Error::other(format!("{vcpus} vCPUs and {ports} event channels: a mismatch")));
        }
        Ok(guest)
    }

    /// The vCPUs whose channels have fired, which [`Self::rearm`] has to be told of when they are served.
    pub fn fired(&self) -> io::Result<Vec<Port>> {
        self.evtchn.pending().map_err(io::Error::other)
    }

    /// The vCPU behind a channel.
    #[must_use]
    pub fn vcpu(&self, port: Port) -> Option<u32> {
        u32::try_from(self.ports.iter().position(|&known| known == port)?).ok()
    }

    /// All channels.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Lets channels fire again.
    pub fn rearm(&self, ports: &[Port]) -> io::Result<()> {
        self.evtchn.unmask(ports).map_err(io::Error::other)
    }

    fn slot(&self, vcpu: u32) -> Option<&Slot> {
        self.page.slot(usize::try_from(vcpu).ok()?)
    }

    fn server(&self) -> io::Result<&IoreqServer> {
        self.server.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl AsFd for XenGuest {
    /// Readable when channels have fired.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.evtchn.as_fd()
    }
}

impl Drop for XenGuest {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.release();
        }
    }
}

impl Hypervisor for XenGuest {
    type Mapping = GrantMapping;

    fn vcpus(&self) -> u32 {
        u32::try_from(self.page.slots().len()).unwrap_or(u32::MAX)
    }

    fn pending(&self, vcpu: u32) -> Option<RawRequest> {
        self.slot(vcpu)?.peek()
    }

    fn claim(&self, vcpu: u32) -> bool {
        self.slot(vcpu).is_some_and(|slot| slot.take().is_some())
    }

    fn respond(&self, vcpu: u32, data: u64) {
        let port = usize::try_from(vcpu).ok().and_then(|vcpu| self.ports.get(vcpu));
        if let (Some(slot), Some(&port)) = (self.slot(vcpu), port) {
            slot.respond(data);
            if let Err(error) = self.evtchn.notify(port) {
                error!("vCPU {vcpu} waits for ever: {error}");
            }
        }
    }

    fn map_window(&self, base: u64, size: u64) -> io::Result<()> {
        self.server()?.map_window(base, size).map_err(io::Error::other)
    }

    fn raise(&self, irq: u32) -> io::Result<()> {
        self.privcmd.set_irq_level(self.domain, Irq::new(irq), true).map_err(io::Error::other)
    }

    fn map_grants(&self, first: GrantReference, pages: u32) -> io::Result<GrantMapping> {
        let references = (0..pages).map_while(|page| first.0.checked_add(page)).map(GrantRef::new);
        let grants: Vec<_> = references.collect();
        self.gntdev.map(self.domain, &grants, Access::ReadWrite).map_err(io::Error::other)
    }
}

impl Mapping for GrantMapping {
    fn load_u16(&self, offset: usize) -> Option<u16> {
        Self::load_u16(self, offset)
    }
}
