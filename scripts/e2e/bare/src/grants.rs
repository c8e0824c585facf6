// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Grants: which pages the driver domain may reach, one reference for each (Xen's public header
//! grant_table.h).

use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use spin::Mutex;

use crate::machine::{self, GRANT_ENTRIES, GrantEntry};
use crate::pages::Page;
use crate::xen;

/// The driver domain: the first that Xen makes.
pub const DRIVER_DOMAIN: u16 = 1;
/// `GTF_permit_access`, `GTF_readonly`.
pub const PERMIT: u16 = 1;
/// The page may be read only.
pub const READ_ONLY: u16 = 1 << 2;
/// `GTF_reading` and `GTF_writing`: Xen sets them while the page is mapped or copied.
pub const IN_USE: u16 = 1 << 3 | 1 << 4;
/// References that Xen's tools use (`GNTTAB_NR_RESERVED_ENTRIES`).
const RESERVED: usize = 8;
/// Entries in a page of the table.
const PER_FRAME: usize = 512;
/// What tells an address that is a reference from one that is not (Linux, drivers/xen/grant-dma-ops.c).
const MARK: u64 = 1 << 63;

/// References that are free, once the table is there.
static FREE: Mutex<Option<Vec<u32>>> = Mutex::new(None);

/// The entry of a reference, to lie with.
#[must_use]
pub fn entry(reference: u32) -> Option<&'static GrantEntry> {
    usize::try_from(reference).ok().and_then(|reference| machine::grant_table().1.get(reference))
}

/// The address at which a device finds `offset` of the page that `reference` grants.
#[must_use]
pub fn address(reference: u32, offset: u64) -> u64 {
    MARK | u64::from(reference) << 12 | offset
}

fn reserve() -> Result<u32> {
    let mut free = FREE.lock();
    if free.is_none() {
        let (base, _) = machine::grant_table();
        for index in 0..u64::try_from(GRANT_ENTRIES / PER_FRAME)? {
            xen::map_grant_table(index, base + (index << 12))?;
        }
        let references = (RESERVED..GRANT_ENTRIES).rev();
        *free = Some(references.filter_map(|reference| u32::try_from(reference).ok()).collect());
    }
    free.as_mut().and_then(Vec::pop).context("no reference is free")
}

/// A page that the driver domain may reach.
#[derive(Debug)]
pub struct Granted {
    page: Page,
    reference: u32,
}

impl Granted {
    /// A page to read and write.
    ///
    /// # Errors
    /// There is no reference for it.
    pub fn new() -> Result<Self> {
        Self::with_flags(PERMIT)
    }

    /// A page with these flags of a grant.
    ///
    /// # Errors
    /// There is no reference for it.
    pub fn with_flags(flags: u16) -> Result<Self> {
        let reference = reserve()?;
        let granted = Self { page: Page::default(), reference };
        let entry = entry(reference).context("a reference beyond the table")?;
        entry.domain.store(DRIVER_DOMAIN, Ordering::Relaxed);
        entry.frame.store(granted.page.frame(), Ordering::Relaxed);
        // What is granted must be there before it is granted.
        entry.flags.store(flags, Ordering::Release);
        machine::barrier();
        Ok(granted)
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Its reference.
    #[must_use]
    pub fn reference(&self) -> u32 {
        self.reference
    }

    /// The address at which a device finds `offset` of it.
    #[must_use]
    pub fn address(&self, offset: u64) -> u64 {
        address(self.reference, offset)
    }

    /// Whether the driver domain has it mapped, or copies it at this moment.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        entry(self.reference).is_some_and(|entry| entry.flags.load(Ordering::Acquire) & IN_USE != 0)
    }

    /// Takes the permission back, even if it is in use. Xen refuses new uses of it.
    pub fn revoke(&self) {
        if let Some(entry) = entry(self.reference) {
            entry.flags.fetch_and(!PERMIT, Ordering::AcqRel);
        }
    }

    /// Takes the page back.
    ///
    /// # Errors
    /// The driver domain still uses it. Then the page is never used again.
    pub fn end(self) -> Result<()> {
        let free = release(self.reference);
        let reference = self.reference;
        if !free {
            mem::forget(self);
        }
        ensure!(free, "grant {reference} is still in use");
        Ok(())
    }
}

/// Ends a grant that is not in use; returns whether it was not. One step, since Xen may take it into use at
/// any time.
fn release(reference: u32) -> bool {
    let unused = |flags: u16| (flags & IN_USE == 0).then_some(0);
    entry(reference)
        .is_none_or(|entry| entry.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, unused).is_ok())
}

impl Drop for Granted {
    fn drop(&mut self) {
        if release(self.reference) {
            if let Some(free) = FREE.lock().as_mut() {
                free.push(self.reference);
            }
        } else {
            // What the driver domain can still write must never be anything else.
            mem::forget(mem::take(&mut self.page));
        }
    }
}
