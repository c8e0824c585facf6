// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A batch of grant copies. The addresses that Xen reads and writes stay valid by borrows.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, Result};

use super::exchange;
use crate::PAGE_SIZE;
use crate::abi::gntdev::{self as abi, CopyEnd, Foreign, GrantCopySegment};
use crate::grant_copy::GrantStatus;
use crate::ids::{DomId, GrantRef};

/// Copies between granted pages of a guest and buffers of this process, made in one call.
///
/// `'b` is the lifetime of the buffers.
#[derive(Debug, Default)]
pub struct CopyBatch<'b> {
    segments: Vec<GrantCopySegment>,
    buffers: PhantomData<&'b mut [u8]>,
}

/// The error for a segment that crosses a page of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossesPage;

impl<'b> CopyBatch<'b> {
    /// Creates an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of segments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there are no segments.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Adds a copy from `offset` of the page `grant` of `domain` to `buffer`.
    pub fn from_guest(
        &mut self,
        domain: DomId,
        grant: GrantRef,
        offset: u16,
        buffer: &'b mut [u8],
    ) -> std::result::Result<(), CrossesPage> {
        let len = length(offset, buffer)?;
        self.segments.push(GrantCopySegment {
            source: foreign(domain, grant, offset),
            dest: CopyEnd::virt(buffer.as_mut_ptr().expose_provenance() as u64),
            len,
            flags: abi::GNTCOPY_SOURCE_GREF,
            status: abi::GNTST_GENERAL_ERROR,
        });
        Ok(())
    }

    /// Adds a copy from `buffer` to `offset` of the page `grant` of `domain`.
    pub fn to_guest(
        &mut self,
        domain: DomId,
        grant: GrantRef,
        offset: u16,
        buffer: &'b [u8],
    ) -> std::result::Result<(), CrossesPage> {
        let len = length(offset, buffer)?;
        self.segments.push(GrantCopySegment {
            source: CopyEnd::virt(buffer.as_ptr().expose_provenance() as u64),
            dest: foreign(domain, grant, offset),
            len,
            flags: abi::GNTCOPY_DEST_GREF,
            status: abi::GNTST_GENERAL_ERROR,
        });
        Ok(())
    }

    /// `IOCTL_GNTDEV_GRANT_COPY`. If it succeeds, the segments have their statuses.
    pub(crate) fn run(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        let count = u32::try_from(self.segments.len()).map_err(|_| Errno::INVAL)?;
        let mut call =
            abi::GrantCopy { count, segments: self.segments.as_mut_ptr().expose_provenance() as u64 };
        // SAFETY: the kernel reads `count` segments and writes the status of each. Xen copies to and from the
        // local ends, which are slices of these lengths, borrowed for `'b`: exclusively if they are written.
        unsafe { exchange(fd, abi::IOCTL_GNTDEV_GRANT_COPY, &mut call) }.map(drop)
    }

    /// The status of each segment after the batch was [copied], in the order of adding. Before that, all are
    /// errors.
    ///
    /// [copied]: crate::Gntdev::copy
    pub fn statuses(&self) -> impl Iterator<Item = GrantStatus> {
        self.segments.iter().map(|segment| GrantStatus::from_wire(segment.status))
    }

    /// Returns an empty batch for other buffers, which reuses the memory of this one.
    #[must_use]
    pub fn recycle(self) -> CopyBatch<'static> {
        let Self { mut segments, buffers: PhantomData } = self;
        segments.clear();
        CopyBatch { segments, buffers: PhantomData }
    }
}

fn foreign(domain: DomId, grant: GrantRef, offset: u16) -> CopyEnd {
    CopyEnd::foreign(Foreign { ref_: grant.get(), offset, domid: domain.get() })
}

/// The length of a segment that does not cross its page. The kernel would fail the whole batch for one that
/// does.
fn length(offset: u16, buffer: &[u8]) -> std::result::Result<u16, CrossesPage> {
    let len = u16::try_from(buffer.len()).map_err(|_| CrossesPage)?;
    if usize::from(offset) + buffer.len() > PAGE_SIZE { Err(CrossesPage) } else { Ok(len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_that_crosses_its_page_is_refused() {
        let mut whole = [0; PAGE_SIZE];
        let mut batch = CopyBatch::new();
        let (domain, grant) = (DomId::new(2), GrantRef::new(9));
        assert_eq!(batch.to_guest(domain, grant, 1, &[0; PAGE_SIZE]), Err(CrossesPage));
        assert_eq!(batch.to_guest(domain, grant, u16::MAX, &[0]), Err(CrossesPage));
        assert_eq!(batch.to_guest(domain, grant, 0, &[0; 0x1_0001]), Err(CrossesPage));
        assert_eq!(batch.from_guest(domain, grant, 0, &mut whole), Ok(()));
        assert_eq!((batch.len(), batch.is_empty()), (1, false));
    }

    #[test]
    fn ends_are_packed_as_in_the_union() {
        let end = CopyEnd::foreign(Foreign { ref_: 0x0403_0201, offset: 0x0605, domid: 0x0807 });
        assert_eq!(format!("{end:x?}"), "CopyEnd(807060504030201)");
    }
}
