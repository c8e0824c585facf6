// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/xen/gntdev`: mapping and copying the pages that a guest has granted.
//!
//! The shim relies on (Linux 6.12, `drivers/xen/gntdev.c`):
//!
//! - Mapping has two steps: an ioctl inserts the grants into a table of the open file and returns an offset,
//!   and `mmap` at that offset maps all of them or none: one bad grant fails it with `EINVAL`. An entry can
//!   be mapped once.
//! - A guest cannot revoke a mapped page. The page stays mapped and readable until both the mapping and the
//!   entry are removed and no other user (a forked child, direct I/O) holds it.
//! - With CONFIG_XEN_UNPOPULATED_ALLOC a mapping needs no memory of this domain; without it, one page for
//!   each grant.
//! - Duplicates of a descriptor share one table. Closing the last one removes all entries.
//! - A descriptor can use the grants of all domains, unless it is restricted to one domain
//!   ([`Gntdev::restrict`]), which needs our patch (`images/linux/patches`).

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

/// The largest number of pages of one mapping. The largest mapping is a ring: a split virtqueue of the
/// largest size has 129 pages of descriptors (virtio 1.3, 2.7). This bounds what a guest can make the process
/// allocate.
pub const MAX_PAGES: usize = 256;

/// The accesses to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only, which a read-only grant permits.
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

    /// Opens the device and restricts it to the grants of one guest.
    pub fn open_for(domain: DomId) -> Result<Self> {
        let gntdev = Self::open()?;
        gntdev.restrict(domain)?;
        Ok(gntdev)
    }

    /// Adopts a descriptor that another process opened.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Restricts this descriptor and all its duplicates to the grants of one guest for good. Nothing may be
    /// mapped yet.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] holds on a kernel that lacks our patch.
    pub fn restrict(&self, domain: DomId) -> Result<()> {
        sys::restrict(self.as_fd(), domain.get()).map_err(fail(Call::RestrictGntdev, domain))
    }

    /// Maps pages that `domain` has granted, in this order.
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

    /// Makes all copies of a batch. The result of each is in its [statuses](CopyBatch::statuses).
    pub fn copy(&self, batch: &mut CopyBatch<'_>) -> Result<()> {
        batch.run(self.as_fd()).map_err(|e| Error::new(Call::GrantCopy, None, e))
    }
}

impl AsFd for Gntdev {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self.fd).as_fd()
    }
}

/// An entry in the table of an open file. Removed on drop.
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
        // This fails only for an entry that does not exist.
        let _ = sys::remove(self.gntdev.as_fd(), self.index, self.count);
    }
}

/// Mapped pages of a guest. Unmapped on drop.
///
/// The guest can change the content at any time, so two loads may differ. Loads acquire, stores release. An
/// access that is out of range or not aligned, or a store to a mapping for [`Access::Read`], does nothing and
/// returns `None`.
#[derive(Debug)]
pub struct GrantMapping {
    // Dropped in this order. The kernel unmaps the grants when both are removed.
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
            #[must_use = "`None` means that nothing was stored"]
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
    /// The size in bytes: whole pages.
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
    fn stored_value_is_loaded() {
        let ring = mapped(Access::ReadWrite);
        assert_eq!(ring.store_u16(2, 0xabcd), Some(()));
        assert_eq!(ring.load_u32(0), Some(0xabcd_0000));
        assert_eq!((ring.size(), ring.load_u16(3), ring.load_u64(4096)), (4096, None, None));
    }

    #[test]
    fn store_to_a_mapping_for_reading_is_refused() {
        let ring = mapped(Access::Read);
        assert_eq!(ring.store_u8(0, 1), None);
        assert_eq!(ring.load_u8(0), Some(0));
    }

    #[test]
    fn number_of_pages_is_limited() {
        for count in [0, MAX_PAGES + 1] {
            let grants = vec![GrantRef::new(1); count];
            let error = wrong().map(DomId::new(2), &grants, Access::Read).unwrap_err();
            assert_eq!(error.io().kind(), std::io::ErrorKind::InvalidInput);
        }
        let error = wrong().map(DomId::new(2), &[GrantRef::new(1)], Access::Read).unwrap_err();
        assert_eq!(error.call(), Call::InsertGrants);
    }

    #[test]
    fn kernel_without_restriction_names_the_patch() {
        let error = wrong().restrict(DomId::new(2)).unwrap_err();
        assert!(error.is_unsupported());
        assert_eq!((error.call(), error.domain()), (Call::RestrictGntdev, Some(DomId::new(2))));
        assert!(error.to_string().contains("0004-xen-gntdev"), "{error}");
    }

    #[test]
    fn batch_that_cannot_run_is_an_error() {
        let mut batch = CopyBatch::new();
        batch.to_guest(DomId::new(2), GrantRef::new(1), 0, b"x").unwrap();
        assert_eq!(wrong().copy(&mut batch).unwrap_err().call(), Call::GrantCopy);
        assert!(batch.statuses().all(|status| status.ok().is_err()));
        assert!(batch.recycle().is_empty());
    }
}
