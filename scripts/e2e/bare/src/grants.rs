// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Grants: the pages that the driver domain may access, each named by a reference (Xen's public header
//! grant_table.h).

use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use spin::Mutex;

use crate::machine::{self, GRANT_ENTRIES, GrantEntry};
use crate::pages::Page;
use crate::platform;
use crate::xen;

/// The domid of the driver domain, the first domain that Xen creates.
pub const DRIVER_DOMAIN: u16 = 1;
/// `GTF_permit_access`.
pub const PERMIT: u16 = 1;
/// `GTF_readonly`: the page may only be read.
pub const READ_ONLY: u16 = 1 << 2;
/// `GTF_reading` and `GTF_writing`: Xen sets them while the page is mapped or copied.
pub const IN_USE: u16 = 1 << 3 | 1 << 4;
/// References that Xen's tools use (`GNTTAB_NR_RESERVED_ENTRIES`).
const RESERVED: usize = 8;
/// The number of entries in a page of the table.
const PER_FRAME: usize = 512;
/// The bit that marks an address as a grant reference (Linux, drivers/xen/grant-dma-ops.c).
const MARK: u64 = 1 << 63;

/// The free references. `None` until the table is mapped.
static FREE: Mutex<Option<Vec<u32>>> = Mutex::new(None);

/// Returns the entry of a reference. Callers may write anything to it.
#[must_use]
pub fn entry(reference: u32) -> Option<&'static GrantEntry> {
    usize::try_from(reference).ok().and_then(|reference| machine::grant_table().1.get(reference))
}

/// Returns the address of byte `offset` of the page that `reference` grants, as a device uses it.
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
    free.as_mut().and_then(Vec::pop).context("no grant reference is free")
}

/// A page that is granted to the driver domain. In a guest without grants, which gives the driver domain all
/// of its memory, it is any page.
#[derive(Debug)]
pub struct Granted {
    page: Page,
    /// `None` in a guest without grants.
    reference: Option<u32>,
}

impl Granted {
    /// Grants a page for reading and writing.
    ///
    /// # Errors
    /// Returns an error if no reference is free.
    pub fn new() -> Result<Self> {
        Self::with_flags(PERMIT)
    }

    /// Grants a page with these flags.
    ///
    /// # Errors
    /// Returns an error if no reference is free.
    pub fn with_flags(flags: u16) -> Result<Self> {
        if !platform::has_grants() {
            return Ok(Self { page: Page::default(), reference: None });
        }
        let reference = reserve()?;
        let granted = Self { page: Page::default(), reference: Some(reference) };
        let entry = entry(reference).context("the reference is beyond the table")?;
        entry.domain.store(DRIVER_DOMAIN, Ordering::Relaxed);
        entry.frame.store(granted.page.frame(), Ordering::Relaxed);
        // The other fields have to be valid before the flags permit the access.
        entry.flags.store(flags, Ordering::Release);
        machine::barrier();
        Ok(granted)
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Its grant reference. In a guest without grants, one beyond the table.
    #[must_use]
    pub fn reference(&self) -> u32 {
        self.reference.unwrap_or(u32::MAX)
    }

    fn entry(&self) -> Option<&'static GrantEntry> {
        self.reference.and_then(entry)
    }

    /// Returns the address of byte `offset`, as a device uses it.
    #[must_use]
    pub fn address(&self, offset: u64) -> u64 {
        self.reference.map_or(self.page.address() + offset, |reference| address(reference, offset))
    }

    /// Returns whether the driver domain has the page mapped, or copies it at this moment.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.load(Ordering::Acquire) & IN_USE != 0)
    }

    /// Revokes the grant, even if it is in use. Xen refuses new uses of it.
    pub fn revoke(&self) {
        if let Some(entry) = self.entry() {
            entry.flags.fetch_and(!PERMIT, Ordering::AcqRel);
        }
    }

    /// Ends the grant.
    ///
    /// # Errors
    /// Returns an error if the driver domain still uses the page. The page is never used again then.
    pub fn end(self) -> Result<()> {
        let free = release(self.entry());
        let reference = self.reference();
        if !free {
            mem::forget(self);
        }
        ensure!(free, "grant {reference} is still in use");
        Ok(())
    }
}

/// Ends a grant unless it is in use, and returns whether it has ended. This is one atomic step, because Xen
/// may mark the grant as in use at any time.
fn release(entry: Option<&GrantEntry>) -> bool {
    let unused = |flags: u16| (flags & IN_USE == 0).then_some(0);
    entry.is_none_or(|entry| entry.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, unused).is_ok())
}

impl Drop for Granted {
    fn drop(&mut self) {
        if release(self.entry()) {
            if let Some(free) = FREE.lock().as_mut() {
                free.extend(self.reference);
            }
        } else {
            // The driver domain can still write to this page: it must not be allocated again.
            mem::forget(mem::take(&mut self.page));
        }
    }
}
