// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that is shared with a guest, Xen or the kernel.
//!
//! They write to it at any time. So all access is by atomics, which may be shared with other writers, and
//! never by plain references.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use rustix::io::Result;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::ioreq::Slot;

/// Mapped pages. Unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    len: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and this value is its only owner.
unsafe impl Send for Mapping {}
// SAFETY: shared access is by atomics only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a device from `offset`, shared.
    pub(crate) fn of_device(fd: BorrowedFd<'_>, offset: u64, len: usize, writable: bool) -> Result<Self> {
        // SAFETY: the kernel chooses an unused address.
        let start = unsafe { mmap(std::ptr::null_mut(), len, prot(writable), MapFlags::SHARED, fd, offset) }?;
        Self::own(start, len, writable)
    }

    /// Maps `len` bytes of zeroed memory.
    #[cfg(test)]
    pub(crate) fn anonymous(len: usize) -> Result<Self> {
        // SAFETY: the kernel chooses an unused address.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot(true), MapFlags::SHARED) }?;
        Self::own(start, len, true)
    }

    fn own(start: *mut c_void, len: usize, writable: bool) -> Result<Self> {
        let start = NonNull::new(start).ok_or(rustix::io::Errno::FAULT)?;
        let mapping = Self { start, len, writable };
        // A child between fork and exec would keep a guest's page mapped after this process has unmapped it.
        // The time is short, so a kernel without this advice is no error. SAFETY: the range was mapped above;
        // the advice changes nothing for this process.
        let _ = unsafe { madvise(start.as_ptr(), len, Advice::LinuxDontFork) };
        Ok(mapping)
    }

    /// The address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    /// The size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether stores are permitted.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// A pointer to a `T` at `offset`. `None` if it is not entirely in the mapping or not aligned.
    fn field<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset` is less than `len`, so the result stays inside the mapping.
        let field = unsafe { self.start.byte_add(offset) }.cast::<T>();
        field.is_aligned().then_some(field)
    }

    /// The byte at `offset`.
    pub(crate) fn u8(&self, offset: usize) -> Option<&AtomicU8> {
        let field = self.field(offset)?;
        // SAFETY: it is mapped and aligned, and unmapped only when `self` is dropped. An atomic may be
        // changed by others, and every bit pattern is valid. Callers store only if `is_writable`.
        Some(unsafe { field.as_ref() })
    }

    /// The 16 bits at `offset`.
    pub(crate) fn u16(&self, offset: usize) -> Option<&AtomicU16> {
        let field = self.field(offset)?;
        // SAFETY: as in `u8`.
        Some(unsafe { field.as_ref() })
    }

    /// The 32 bits at `offset`.
    pub(crate) fn u32(&self, offset: usize) -> Option<&AtomicU32> {
        let field = self.field(offset)?;
        // SAFETY: as in `u8`.
        Some(unsafe { field.as_ref() })
    }

    /// The 64 bits at `offset`.
    pub(crate) fn u64(&self, offset: usize) -> Option<&AtomicU64> {
        let field = self.field(offset)?;
        // SAFETY: as in `u8`.
        Some(unsafe { field.as_ref() })
    }

    /// The mapping as ioreq slots.
    pub(crate) fn slots(&self) -> &[Slot] {
        let count = self.len / size_of::<Slot>();
        // SAFETY: the mapping is page-aligned, has room for `count` slots, and exists as long as `self`. A
        // slot consists of atomics without padding: every bit pattern is valid, and Xen and the kernel may
        // write to it at any time.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<Slot>(), count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapped range, and all references into it borrow from `self`.
        let result = unsafe { munmap(self.start.as_ptr(), self.len) };
        debug_assert!(result.is_ok(), "munmap of an own mapping: {result:?}");
    }
}

fn prot(writable: bool) -> ProtFlags {
    if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn access_is_checked_for_bounds_and_alignment() {
        let mapping = Mapping::anonymous(4096).unwrap();
        mapping.u16(4094).unwrap().store(0x1234, Ordering::Relaxed);
        assert_eq!(mapping.u8(4095).unwrap().load(Ordering::Relaxed), 0x12);
        assert!(mapping.u8(4096).is_none());
        assert!(mapping.u16(4095).is_none());
        assert!(mapping.u32(2).is_none());
        assert!(mapping.u64(4092).is_none());
        assert!(mapping.u64(usize::MAX).is_none());
        assert_eq!(mapping.slots().len(), 128);
    }
}
