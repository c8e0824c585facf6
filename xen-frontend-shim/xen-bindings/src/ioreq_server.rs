// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An ioreq server, to which Xen passes a guest's accesses to some windows of its address space.
//!
//! The order matters (Xen 4.20, `common/ioreq.c`): [`IoreqServer::create`]; [`IoreqServer::page`], since Xen
//! allocates the page at its first mapping; [`IoreqServer::set_enabled`], which writes the event channel of
//! each vCPU to its slot; binding the channels; [`IoreqServer::map_window`]; unpausing the guest. If a server
//! is enabled before its page exists, every slot has port 0.
//!
//! Windows can be added and removed while the guest runs. An access that is not entirely in a window is an
//! abort in the guest. Xen allows 8 servers for a guest, and 256 windows for a server.
//!
//! The server belongs to this domain, not to a process or descriptor. It and its page outlive a process that
//! ends without destroying it. vCPUs wait until their accesses are answered.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::abi::dm_op::{
    CreateIoreqServer, DestroyIoreqServer, GetIoreqServerInfo, HVM_IOREQSRV_BUFIOREQ_OFF, IoreqServerRange,
    SetIoreqServerState, XEN_DMOP_IO_RANGE_MEMORY, XEN_DMOP_NO_GFNS, XENMEM_RESOURCE_IOREQ_SERVER,
    XENMEM_RESOURCE_IOREQ_SERVER_FRAME_IOREQ_0,
};
use crate::error::{Call, Result};
use crate::ids::{DomId, IoreqServerId};
use crate::ioreq::{IoreqPage, MAX_VCPUS};
use crate::privcmd::{Privcmd, fail};
use crate::sys::privcmd::{self as sys, DmOpMember, MapIoRange, UnmapIoRange};

/// The largest number of servers of a guest (`MAX_NR_IOREQ_SERVERS`).
const MAX_SERVERS: u16 = 8;

/// An ioreq server of a guest. A server that was created by this value is destroyed on drop, unless it is
/// kept.
#[derive(Debug)]
pub struct IoreqServer {
    privcmd: Privcmd,
    domain: DomId,
    id: IoreqServerId,
    /// Whether to destroy it on drop.
    owned: bool,
}

impl IoreqServer {
    /// Creates a server for `domain`.
    pub fn create(privcmd: &Privcmd, domain: DomId) -> Result<Self> {
        let op = CreateIoreqServer { handle_bufioreq: HVM_IOREQSRV_BUFIOREQ_OFF, pad: [0; 3], id: 0 };
        let made =
            sys::dm_op(privcmd.as_fd(), domain.get(), op).map_err(fail(Call::CreateIoreqServer, domain))?;
        Ok(Self { privcmd: privcmd.clone(), domain, id: IoreqServerId::new(made.id), owned: true })
    }

    /// Adopts a server that another process of this domain created. It is not destroyed on drop.
    #[must_use]
    pub fn adopt(privcmd: &Privcmd, domain: DomId, id: IoreqServerId) -> Self {
        Self { privcmd: privcmd.clone(), domain, id, owned: false }
    }

    /// The servers of `domain` that processes of this domain created.
    pub fn list(privcmd: &Privcmd, domain: DomId) -> Result<Vec<IoreqServerId>> {
        let mut found = Vec::new();
        for id in (0..MAX_SERVERS).map(IoreqServerId::new) {
            if Self::exists(privcmd, domain, id)? {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Whether this domain created the server with this number.
    pub fn exists(privcmd: &Privcmd, domain: DomId, id: IoreqServerId) -> Result<bool> {
        let op =
            GetIoreqServerInfo { id: id.get(), flags: XEN_DMOP_NO_GFNS, ..GetIoreqServerInfo::default() };
        match sys::dm_op(privcmd.as_fd(), domain.get(), op) {
            Ok(_) => Ok(true),
            // It does not exist, or another domain created it.
            Err(Errno::NOENT | Errno::PERM) => Ok(false),
            Err(error) => Err(fail(Call::GetIoreqServerInfo, domain)(error)),
        }
    }

    /// Lets the server outlive this value and this process. Another process can adopt it.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.owned = false;
        self
    }

    /// The server's number.
    #[must_use]
    pub fn id(&self) -> IoreqServerId {
        self.id
    }

    /// The guest.
    #[must_use]
    pub fn domain(&self) -> DomId {
        self.domain
    }

    /// Maps the page of slots. All mappings are of the same page.
    pub fn page(&self) -> Result<Arc<IoreqPage>> {
        let vcpus = self.privcmd.nr_vcpus(self.domain)?;
        if usize::try_from(vcpus).is_ok_and(|vcpus| vcpus > MAX_VCPUS) {
            return Err(fail(Call::MapIoreqPage, self.domain)(Errno::TOOBIG));
        }
        let mapping = sys::map_resource(
            self.privcmd.as_fd(),
            self.domain.get(),
            XENMEM_RESOURCE_IOREQ_SERVER,
            self.id.get().into(),
            XENMEM_RESOURCE_IOREQ_SERVER_FRAME_IOREQ_0,
        );
        let mapping = mapping.map_err(fail(Call::MapIoreqPage, self.domain))?;
        Ok(Arc::new(IoreqPage::new(mapping, self.domain, vcpus)))
    }

    /// Starts or stops passing accesses to this server. Xen pauses the guest during this.
    pub fn set_enabled(&self, enabled: bool) -> Result<()> {
        let op = SetIoreqServerState { id: self.id.get(), enabled: enabled.into(), pad: 0 };
        self.dm_op(Call::SetIoreqServerState, op)
    }

    /// Adds the window of `len` bytes at the guest physical address `base`.
    pub fn map_window(&self, base: u64, len: u64) -> Result<()> {
        self.dm_op(Call::MapIoRange, MapIoRange(self.range(Call::MapIoRange, base, len)?))
    }

    /// Removes the window of `len` bytes at the guest physical address `base`.
    pub fn unmap_window(&self, base: u64, len: u64) -> Result<()> {
        self.dm_op(Call::UnmapIoRange, UnmapIoRange(self.range(Call::UnmapIoRange, base, len)?))
    }

    fn range(&self, call: Call, base: u64, len: u64) -> Result<IoreqServerRange> {
        let end = len.checked_sub(1).and_then(|last| base.checked_add(last));
        let end = end.ok_or(Errno::INVAL).map_err(fail(call, self.domain))?;
        Ok(IoreqServerRange { id: self.id.get(), pad: 0, type_: XEN_DMOP_IO_RANGE_MEMORY, start: base, end })
    }

    fn dm_op<T: DmOpMember>(&self, call: Call, op: T) -> Result<()> {
        sys::dm_op(self.privcmd.as_fd(), self.domain.get(), op).map(drop).map_err(fail(call, self.domain))
    }
}

impl Drop for IoreqServer {
    fn drop(&mut self) {
        if self.owned {
            // A failure cannot be reported here. Xen destroys the server with the guest.
            let op = DestroyIoreqServer { id: self.id.get(), pad: 0 };
            let _ = self.dm_op(Call::DestroyIoreqServer, op);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> IoreqServer {
        let privcmd = Privcmd::from_fd(tempfile::tempfile().unwrap().into());
        IoreqServer::adopt(&privcmd, DomId::new(3), IoreqServerId::new(1))
    }

    #[test]
    fn empty_or_wrapping_window_is_refused() {
        for (base, len) in [(0x0200_0000, 0), (u64::MAX, 2), (2, u64::MAX)] {
            let error = server().map_window(base, len).unwrap_err();
            assert_eq!(error.io().kind(), std::io::ErrorKind::InvalidInput, "{base:#x} {len:#x}");
        }
        let range = server().range(Call::MapIoRange, 0x0200_0200, 0x200).unwrap();
        assert_eq!((range.id, range.start, range.end), (1, 0x0200_0200, 0x0200_03ff));
    }

    #[test]
    fn adopted_or_kept_server_is_not_destroyed() {
        let mut made = server();
        made.owned = true;
        assert!(!made.keep().owned && !server().owned);
    }
}
