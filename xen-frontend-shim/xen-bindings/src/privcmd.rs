// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/xen/privcmd`: the calls into Xen that a device model may make about its guest.
//!
//! Who may do what:
//!
//! - In a domain other than domain 0, Linux 6.12 restricts each descriptor to the domain that xenstore names as `target`,
//!   and without xenstore to none (XSA-482): all calls fail with `EPERM` until the kernel is given
//!   `xen_privcmd.unrestricted=1`. An open before xenstore has answered waits.
//! - [`Privcmd::restrict`] ties a descriptor, with all its duplicates, to one guest for good. What remains are the calls
//!   here that name that guest. Those of [`crate::domain`] do not, since a plain hypercall does not say whom it is about.
//! - Xen's policy has the last word: `hvm:dm` for the device model operations, `resource_map` for the ioreq page only,
//!   `domain:unpause` and `domain:getdomaininfo`, `mmu:map_*` for foreign pages (which the driver domain does not have).
//!
//! The kernel pins the buffers of device model operations. It does not pin those of plain hypercalls: a page that is just
//! being moved makes Xen answer `EFAULT`.

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

    /// Takes over a descriptor that another process opened.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Ties this descriptor to one guest, for good.
    pub fn restrict(&self, domain: DomId) -> Result<()> {
        sys::restrict(self.as_fd(), domain.get()).map_err(fail(Call::RestrictPrivcmd, domain))
    }

    /// How many vCPUs the guest has, running or not. Fixed when the guest is created.
    pub fn nr_vcpus(&self, domain: DomId) -> Result<u32> {
        let answer = sys::dm_op(self.as_fd(), domain.get(), NrVcpus::default());
        answer.map(|a| a.vcpus).map_err(fail(Call::NrVcpus, domain))
    }

    /// Sets the level of an SPI of the guest. For an edge-triggered interrupt a rising edge is a `true`: Xen's vGIC ignores
    /// `false`, and does not need it before the next `true`.
    pub fn set_irq_level(&self, domain: DomId, irq: Irq, level: bool) -> Result<()> {
        let op = SetIrqLevel { irq: irq.get(), level: level.into(), pad: [0; 3] };
        sys::dm_op(self.as_fd(), domain.get(), op).map(drop).map_err(fail(Call::SetIrqLevel, domain))
    }

    /// Maps a page of a domain without asking that domain.
    ///
    /// The appliance never needs this, and its policy forbids it: a test proves that by this call. Expected of a driver
    /// domain is an error for which [`Error::is_denied`] holds.
    pub fn map_foreign_page(&self, domain: DomId, gfn: Gfn) -> Result<ForeignPage> {
        let mapping = sys::map_foreign(self.as_fd(), domain.get(), gfn.get());
        mapping.map(ForeignPage).map_err(fail(Call::MapForeignPage, domain))
    }
}

impl AsFd for Privcmd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self.fd).as_fd()
    }
}

/// A page of another domain, mapped by the right of this domain rather than by a grant. Unmapped on drop.
#[derive(Debug)]
pub struct ForeignPage(Mapping);

impl ForeignPage {
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self(mapping)
    }

    /// The 32 bits at `offset`, if it lies in the page and is aligned.
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> Option<u32> {
        self.0.u32(offset).map(|word| word.load(std::sync::atomic::Ordering::Relaxed))
    }
}

/// Adds to an error what it was about.
pub(crate) fn fail(call: Call, domain: DomId) -> impl Fn(Errno) -> Error {
    move |errno| Error::new(call, Some(domain), errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A descriptor that is not privcmd's.
    fn wrong() -> Privcmd {
        Privcmd::from_fd(tempfile::tempfile().unwrap().into())
    }

    #[test]
    fn a_descriptor_of_something_else_gives_errors_only() {
        let (privcmd, guest) = (wrong(), DomId::new(2));
        assert!(privcmd.nr_vcpus(guest).unwrap_err().is_unsupported());
        assert!(privcmd.restrict(guest).is_err());
        assert!(privcmd.set_irq_level(guest, Irq::new(33), true).is_err());
        let error = privcmd.map_foreign_page(guest, Gfn::new(0x40000)).unwrap_err();
        assert_eq!((error.call(), error.domain()), (Call::MapForeignPage, Some(guest)));
    }
}
