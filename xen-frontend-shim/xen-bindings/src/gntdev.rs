// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/xen/gntdev`: pages that a guest has granted, mapped or copied.
//!
//! What the shim relies on (Linux 6.12, `drivers/xen/gntdev.c`):
//!
//! - Mapping takes two steps: an ioctl enters the grants into a table of the descriptor and gives an offset, and `mmap` at that
//!   offset maps all of them, or none: one bad grant fails it with `EINVAL`. An entry can be mapped once.
//! - A guest cannot take back a page that is mapped. It stays mapped, and what it holds stays readable, until the
//!   mapping *and* the entry are gone, and as long as no one else (a forked child, direct I/O) holds the page.
//! - With CONFIG_XEN_UNPOPULATED_ALLOC a mapping takes no memory of this domain; without it, a page for each grant.
//! - Duplicates of a descriptor share one table: closing the last one removes all entries.
//! - A descriptor reaches the grants of all domains. That it can be restricted to one is a patch of ours
//!   (`images/linux/patches`): [`Gntdev::restrict`].

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use crate::PAGE_SIZE;
use crate::abi::gntdev as abi;
use crate::error::{Call, Error, Result};
use crate::grant_copy::CopyBatch;
use crate::ids::{DomId, GrantRef};
use crate::privcmd::fail;
use crate::sys::gntdev as sys;
use crate::sys::mapping::Mapping;

/// The most pages of one mapping. The largest thing mapped is a ring; a split virtqueue of the largest size has 129 pages of
/// descriptors (virtio 1.3, 2.7). A guest cannot make this process allocate for more.
pub const MAX_PAGES: usize = 256;

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only: enough that the guest granted the pages read-only.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// A descriptor of `/dev/xen/gntdev`. Clones share it.
#[derive(Clone, Debug)]
pub struct Gntdev {
    fd: Arc<OwnedFd>,
}

impl Gntdev {
    /// Opens the device.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/xen/gntdev")
            .map_err(|e| Error::new(Call::OpenGntdev, None, e))?;
        Ok(Self::from_fd(file.into()))
    }

    /// Opens the device for one guest: what another has granted is out of its reach.
    pub fn open_for(domain: DomId) -> Result<Self> {
        let gntdev = Self::open()?;
        gntdev.restrict(domain)?;
        Ok(gntdev)
    }

    /// Takes over a descriptor that another process opened.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Ties this descriptor, with all its duplicates, to the grants of one guest, for good. Nothing may be mapped yet.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] holds on a kernel that lacks our patch.
    pub fn restrict(&self, domain: DomId) -> Result<()> {
        sys::restrict(self.as_fd(), domain.get()).map_err(fail(Call::RestrictGntdev, domain))
    }

    /// Maps pages that `domain` has granted, one after the other.
    pub fn map(&self, domain: DomId, grants: &[GrantRef], access: Access) -> Result<GrantMapping> {
        if grants.is_empty() || grants.len() > MAX_PAGES {
            return Err(fail(Call::InsertGrants, domain)(Errno::INVAL));
        }
        let entry = Entry::insert(self, domain, grants)?;
        let len = grants.len().saturating_mul(PAGE_SIZE);
        let writable = access == Access::ReadWrite;
        let mapping = Mapping::of_device(self.as_fd(), entry.index, len, writable)
            .map_err(fail(Call::MapGrants, domain))?;
        Ok(GrantMapping { mapping, _entry: entry })
    }

    /// Does all copies of a batch. How each fared is in its [statuses](CopyBatch::statuses).
    pub fn copy(&self, batch: &mut CopyBatch<'_>) -> Result<()> {
        batch.run(self.as_fd()).map_err(|e| Error::new(Call::GrantCopy, None, e))
    }
}

impl AsFd for Gntdev {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self.fd).as_fd()
    }
}

/// Grants in the table of a descriptor. Removed on drop.
#[derive(Debug)]
struct Entry {
    gntdev: Gntdev,
    index: u64,
    count: u32,
}

impl Entry {
    fn insert(gntdev: &Gntdev, domain: DomId, grants: &[GrantRef]) -> Result<Self> {
        let refs: Vec<_> = grants
            .iter()
            .map(|grant| abi::GrantRef { domid: domain.get().into(), ref_: grant.get() })
            .collect();
        let count =
            u32::try_from(grants.len()).map_err(|_| fail(Call::InsertGrants, domain)(Errno::INVAL))?;
        let index = sys::insert(gntdev.as_fd(), &refs).map_err(fail(Call::InsertGrants, domain))?;
        Ok(Self { gntdev: gntdev.clone(), index, count })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // It fails only for an entry that is not there.
        let _ = sys::remove(self.gntdev.as_fd(), self.index, self.count);
    }
}

/// A guest's pages, mapped by its grants. Unmapped on drop.
///
/// The guest can change what is in them at any time: what is loaded twice may differ. Loads acquire and stores release, and
/// an access that is out of range, not aligned, or a store to a mapping for [`Access::Read`], does nothing and gives `None`.
#[derive(Debug)]
pub struct GrantMapping {
    // Dropped in this order: the kernel unmaps the grants when both are gone.
    mapping: Mapping,
    _entry: Entry,
}

macro_rules! accessors {
    ($($load:ident, $store:ident, $field:ident: $type:ty;)+) => {
        $(
            #[doc = concat!("Loads the `", stringify!($type), "` at `offset`.")]
            #[must_use]
            pub fn $load(&self, offset: usize) -> Option<$type> {
                Some(self.mapping.$field(offset)?.load(Ordering::Acquire))
            }

            #[doc = concat!("Stores a `", stringify!($type), "` at `offset`.")]
            #[must_use = "`None` says that nothing was stored"]
            pub fn $store(&self, offset: usize, value: $type) -> Option<()> {
                if !self.mapping.is_writable() {
                    return None;
                }
                self.mapping.$field(offset)?.store(value, Ordering::Release);
                Some(())
            }
        )+
    };
}

impl GrantMapping {
    /// How many bytes are mapped: whole pages.
    #[must_use]
    pub fn size(&self) -> usize {
        self.mapping.len()
    }

    accessors! {
        load_u8, store_u8, u8: u8;
        load_u16, store_u16, u16: u16;
        load_u32, store_u32, u32: u32;
        load_u64, store_u64, u64: u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong() -> Gntdev {
        Gntdev::from_fd(tempfile::tempfile().unwrap().into())
    }

    fn mapped(access: Access) -> GrantMapping {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let mapping = Mapping::of_device(file.as_fd(), 0, PAGE_SIZE, access == Access::ReadWrite).unwrap();
        GrantMapping { mapping, _entry: Entry { gntdev: wrong(), index: 0, count: 1 } }
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let ring = mapped(Access::ReadWrite);
        assert_eq!(ring.store_u16(2, 0xabcd), Some(()));
        assert_eq!(ring.load_u32(0), Some(0xabcd_0000));
        assert_eq!((ring.size(), ring.load_u16(3), ring.load_u64(4096)), (4096, None, None));
    }

    #[test]
    fn a_mapping_for_reading_takes_no_store() {
        let ring = mapped(Access::Read);
        assert_eq!(ring.store_u8(0, 1), None);
        assert_eq!(ring.load_u8(0), Some(0));
    }

    #[test]
    fn the_number_of_pages_is_bounded() {
        for count in [0, MAX_PAGES + 1] {
            let grants = vec![GrantRef::new(1); count];
            let error = wrong().map(DomId::new(2), &grants, Access::Read).unwrap_err();
            assert_eq!(error.io().kind(), std::io::ErrorKind::InvalidInput);
        }
        let error = wrong().map(DomId::new(2), &[GrantRef::new(1)], Access::Read).unwrap_err();
        assert_eq!(error.call(), Call::InsertGrants);
    }

    #[test]
    fn a_kernel_that_cannot_restrict_is_told_from_one_that_refuses() {
        let error = wrong().restrict(DomId::new(2)).unwrap_err();
        assert!(error.is_unsupported());
        assert_eq!((error.call(), error.domain()), (Call::RestrictGntdev, Some(DomId::new(2))));
        assert!(error.to_string().contains("0004-xen-gntdev"), "{error}");
    }

    #[test]
    fn a_batch_that_cannot_run_is_an_error() {
        let mut batch = CopyBatch::new();
        batch.to_guest(DomId::new(2), GrantRef::new(1), 0, b"x").unwrap();
        assert_eq!(wrong().copy(&mut batch).unwrap_err().call(), Call::GrantCopy);
        assert!(batch.statuses().all(|status| status.ok().is_err()));
        assert!(batch.recycle().is_empty());
    }
}
