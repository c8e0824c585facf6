// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ioctls of `/dev/xen/gntdev` (Linux 6.12 and our patch, `drivers/xen/gntdev.c`).

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, Result};

use super::exchange;
use crate::abi::gntdev as abi;

/// `IOCTL_GNTDEV_MAP_GRANT_REF`: inserts grants into the table of the open file. Returns the offset for
/// `mmap`.
pub(crate) fn insert(fd: BorrowedFd<'_>, refs: &[abi::GrantRef]) -> Result<u64> {
    let count = u32::try_from(refs.len()).map_err(|_| Errno::INVAL)?;
    // The structure is `count` and `pad`, `index`, then `count` entries.
    let mut words: Vec<u64> = Vec::with_capacity(refs.len().saturating_add(2));
    words.extend([u64::from(count), 0]);
    words.extend(refs.iter().map(|r| u64::from(r.domid) | u64::from(r.ref_) << 32));
    // SAFETY: `words` has the layout of the structure with `count` entries; the kernel reads it and writes
    // its head.
    unsafe { exchange(fd, abi::IOCTL_GNTDEV_MAP_GRANT_REF, words.as_mut_ptr()) }?;
    words.get(1).copied().ok_or(Errno::INVAL)
}

/// `IOCTL_GNTDEV_RESTRICT_DOMID`.
pub(crate) fn restrict(fd: BorrowedFd<'_>, domid: u16) -> Result<()> {
    let mut call = abi::RestrictDomId { domid: domid.into(), reserved: 0 };
    // SAFETY: the kernel reads this structure.
    unsafe { exchange(fd, abi::IOCTL_GNTDEV_RESTRICT_DOMID, &mut call) }.map(drop)
}

/// `IOCTL_GNTDEV_UNMAP_GRANT_REF`.
pub(crate) fn remove(fd: BorrowedFd<'_>, index: u64, count: u32) -> Result<()> {
    let mut call = abi::UnmapGrantRef { index, count, pad: 0 };
    // SAFETY: the kernel reads this structure. It keeps the grants mapped while a mapping of them exists.
    unsafe { exchange(fd, abi::IOCTL_GNTDEV_UNMAP_GRANT_REF, &mut call) }.map(drop)
}
