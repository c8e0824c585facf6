// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/xen/privcmd`: the calls of a device model to Xen about its guest.
//!
//! Permissions:
//!
//! - In a domain other than domain 0, Linux 6.12 restricts each descriptor to the domain that xenstore names
//!   as `target`, and without xenstore to none (XSA-482): all calls fail with `EPERM` unless the kernel has
//!   `xen_privcmd.unrestricted=1` on its command line. An open blocks until xenstore has answered.
//! - [`Privcmd::restrict`] restricts a descriptor and all its duplicates to one guest for good. The calls of
//!   this module work for that guest. Those of [`crate::domain`] fail, since a plain hypercall does not name
//!   a domain to the kernel.
//! - Xen's policy checks `hvm:dm` for device model operations, `resource_map` for the ioreq page,
//!   `domain:unpause`, `domain:getdomaininfo`, and `mmu:map_*` for foreign pages, which the driver domain
//!   has for guests without grants only.
//!
//! The kernel pins the buffers of device model operations, but not those of plain hypercalls: Xen answers
//! `EFAULT` if the kernel is moving the page.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::abi::dm_op::{NrVcpus, SetIrqLevel};
use crate::error::{Call, Error, Result};
use crate::ids::{DomId, Gfn, Irq};
use crate::sys::mapping::Mapping;
use crate::sys::privcmd as sys;

/// A descriptor of `/dev/xen/privcmd`. Clones share it.
#[derive(Clone, Debug)]
pub struct Privcmd {
    fd: Arc<OwnedFd>,
}

impl Privcmd {
    /// Opens the device.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/xen/privcmd")
            .map_err(|e| Error::new(Call::OpenPrivcmd, None, e))?;
        Ok(Self::from_fd(file.into()))
    }

    /// Opens the device and restricts it to one guest.
    pub fn open_for(domain: DomId) -> Result<Self> {
        let privcmd = Self::open()?;
        privcmd.restrict(domain)?;
        Ok(privcmd)
    }

    /// Adopts a descriptor that another process opened.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Restricts this descriptor to one guest for good.
    pub fn restrict(&self, domain: DomId) -> Result<()> {
        sys::restrict(self.as_fd(), domain.get()).map_err(fail(Call::RestrictPrivcmd, domain))
    }

    /// The number of vCPUs of the guest, online or not. It does not change.
    pub fn nr_vcpus(&self, domain: DomId) -> Result<u32> {
        let answer = sys::dm_op(self.as_fd(), domain.get(), NrVcpus::default());
        answer.map(|a| a.vcpus).map_err(fail(Call::NrVcpus, domain))
    }

    /// Sets the level of an SPI of the guest. For an edge-triggered interrupt each `true` is a rising edge:
    /// Xen's vGIC ignores `false`.
    pub fn set_irq_level(&self, domain: DomId, irq: Irq, level: bool) -> Result<()> {
        let op = SetIrqLevel { irq: irq.get(), level: level.into(), pad: [0; 3] };
        sys::dm_op(self.as_fd(), domain.get(), op).map(drop).map_err(fail(Call::SetIrqLevel, domain))
    }

    /// Maps `pages` pages of a domain from `first` without a grant, all of them or none.
    ///
    /// The policy permits it for guests whose manifest has `memory-access = "all"`. For others
    /// [`Error::is_denied`] holds, which a test shows by this call.
    pub fn map_foreign(&self, domain: DomId, first: Gfn, pages: u32) -> Result<ForeignMapping> {
        if pages > FOREIGN_PAGES_MAX {
            return Err(fail(Call::MapForeign, domain)(Errno::INVAL));
        }
        let frames: Vec<_> = (0..pages).map(|page| first.get().saturating_add(page.into())).collect();
        let mapping = sys::map_foreign(self.as_fd(), domain.get(), &frames);
        mapping.map(ForeignMapping).map_err(fail(Call::MapForeign, domain))
    }
}

impl AsFd for Privcmd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self.fd).as_fd()
    }
}

/// The largest number of pages of one foreign mapping. A ring of the largest size has 129 pages of
/// descriptors (virtio 1.3, 2.7). This bounds what a guest can make the process allocate.
const FOREIGN_PAGES_MAX: u32 = 256;

/// Pages of another domain, mapped without a grant. Unmapped on drop.
///
/// The domain can change the content at any time, so two loads may differ.
#[derive(Debug)]
pub struct ForeignMapping(Mapping);

impl ForeignMapping {
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self(mapping)
    }

    /// Loads the 16 bits at `offset`. `None` if they are out of range or not aligned.
    #[must_use]
    pub fn load_u16(&self, offset: usize) -> Option<u16> {
        self.0.u16(offset).map(|word| word.load(std::sync::atomic::Ordering::Acquire))
    }

    /// Loads the 32 bits at `offset`. `None` if it is out of range or not aligned.
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> Option<u32> {
        self.0.u32(offset).map(|word| word.load(std::sync::atomic::Ordering::Relaxed))
    }
}

/// Adds the call and the domain to an error number.
pub(crate) fn fail(call: Call, domain: DomId) -> impl Fn(Errno) -> Error {
    move |errno| Error::new(call, Some(domain), errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A descriptor of another kind.
    fn wrong() -> Privcmd {
        Privcmd::from_fd(tempfile::tempfile().unwrap().into())
    }

    #[test]
    fn other_descriptor_gives_errors() {
        let (privcmd, guest) = (wrong(), DomId::new(2));
        assert!(privcmd.nr_vcpus(guest).unwrap_err().is_unsupported());
        assert!(privcmd.restrict(guest).is_err());
        assert!(privcmd.set_irq_level(guest, Irq::new(33), true).is_err());
        for pages in [1, 2, FOREIGN_PAGES_MAX + 1] {
            let error = privcmd.map_foreign(guest, Gfn::new(0x40000), pages).unwrap_err();
            assert_eq!((error.call(), error.domain()), (Call::MapForeign, Some(guest)));
        }
    }
}
