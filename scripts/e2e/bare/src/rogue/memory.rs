// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory that the rogue uses: pages in which it hands structures to Xen, and a zone without memory of
//! its own, in which it has pages of others put. Whatever it finds in either, it compares with the secrets of
//! the guests.

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use spin::{Lazy, Mutex};

use crate::machine::{self, Width};
use crate::pages::{PAGE, Page};
use crate::xen;

/// Where pages of others are put: beside the grant table, mapped as memory by start.s, and not the RAM of a
/// domain.
pub(super) const LANDING: u64 = 0x3880_0000;
/// So many pages.
pub(super) const LANDING_PAGES: u64 = 16;
/// How many words of the first page are handed over.
pub(super) const ARGUMENT_LENGTH: usize = 32;
/// How many words of the second.
pub(super) const LIST_LENGTH: usize = 64;
/// Words of a page.
const WORDS: u64 = 512;

/// A structure, what it points to, the entries of a multicall, and a page that is Xen's to write to.
struct Pages {
    argument: Page,
    list: Page,
    calls: Page,
    own: Page,
}

static PAGES: Lazy<Pages> = Lazy::new(|| Pages {
    argument: Page::default(),
    list: Page::default(),
    calls: Page::default(),
    own: Page::default(),
});

/// What is mapped by grants.
static MAPPED: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// The rogue's RAM.
static RAM: Lazy<Range<u64>> = Lazy::new(machine::ram);

/// The address of the first page.
pub(super) fn argument() -> u64 {
    PAGES.argument.address()
}

/// The address of the second.
pub(super) fn list() -> u64 {
    PAGES.list.address()
}

/// The address of the third.
pub(super) fn calls() -> u64 {
    PAGES.calls.address()
}

/// The address of a page that Xen may use as it likes.
pub(super) fn own() -> u64 {
    PAGES.own.address()
}

/// Its frame.
pub(super) fn own_frame() -> u64 {
    u64::from(PAGES.own.frame())
}

/// So much may Xen write at an address that it is given.
const MOST_WRITTEN: u64 = 2048;

/// Whether an address is in RAM of the rogue's that is none of these pages, or so near the end of one that
/// Xen may write beyond it.
pub(super) fn is_private(value: u64) -> bool {
    let pages = [argument(), list(), calls(), own()];
    let is_shared = pages.iter().any(|page| (*page..page + 4096 - MOST_WRITTEN).contains(&value));
    is_own_address(value) && !is_shared
}

/// Whether an address is in RAM of the rogue's.
pub(super) fn is_own_address(value: u64) -> bool {
    RAM.contains(&value)
}

/// Whether an address is where the grant table and the landing zone are.
pub(super) fn is_beside_grant_table(value: u64) -> bool {
    let (table, _) = machine::grant_table();
    (table..LANDING + (LANDING_PAGES << 12)).contains(&value)
}

/// Whether a frame is one of the rogue's RAM.
pub(super) fn is_own_frame(value: u64) -> bool {
    (RAM.start >> 12..RAM.end >> 12).contains(&value)
}

/// Writes the structure and what it points to.
pub(super) fn prepare(argument: &[u64], list: &[u64]) {
    for (page, words) in [(&PAGES.argument, argument), (&PAGES.list, list)] {
        for (place, &word) in words.iter().enumerate() {
            page.write_u64(8 * place, word);
        }
    }
}

/// Writes the one entry of a multicall.
pub(super) fn prepare_entry(number: u64, registers: [u64; 4]) {
    let [a, b, c, d] = registers;
    // struct multicall_entry: op, result, args[6].
    for (place, word) in [number, i64::MIN.cast_unsigned(), a, b, c, d, 0, 0].into_iter().enumerate() {
        PAGES.calls.write_u64(8 * place, word);
    }
}

/// The result in that entry.
pub(super) fn entry_result() -> i64 {
    PAGES.calls.read_u64(8).cast_signed()
}

/// A word of the first page.
pub(super) fn argument_word(place: usize) -> u64 {
    PAGES.argument.read_u64(8 * place)
}

/// A word of the second page.
pub(super) fn list_word(place: u64) -> u64 {
    usize::try_from(place).map_or(0, |place| PAGES.list.read_u64(8 * place))
}

/// A word in the landing zone, if there is a page.
pub(super) fn landed(page: u64, word: u64) -> Option<u64> {
    machine::load(LANDING + (page << 12) + 8 * word, Width::Double).ok()
}

/// Writes a word in the landing zone, if there is a page that may be written.
pub(super) fn overwrite(page: u64, word: u64, value: u64) -> bool {
    let written = machine::store(LANDING + (page << 12) + 8 * word, Width::Double, value).is_ok();
    machine::barrier();
    written
}

/// Whether any word that the rogue can read is one of these.
pub(super) fn has_any(is_secret: impl Fn(u64) -> bool) -> bool {
    let in_pages = |page: &Page| (0..PAGE).step_by(8).any(|offset| is_secret(page.read_u64(offset)));
    let landed = |page| (0..WORDS).map_while(|word| landed(page, word)).any(&is_secret);
    [&PAGES.argument, &PAGES.list, &PAGES.calls, &PAGES.own].into_iter().any(in_pages)
        || (0..LANDING_PAGES).any(landed)
}

/// Remembers a page that was mapped by a grant: where, and Xen's handle for it.
pub(super) fn remember(address: u64, handle: u64) {
    MAPPED.lock().push((address, handle));
}

/// Takes away whatever is in the landing zone, and forgets what the pages have.
pub(super) fn clear() {
    for (address, handle) in mem::take(&mut *MAPPED.lock()) {
        // It may have been unmapped before.
        let _ = xen::unmap_grant(address, handle);
    }
    for page in 0..LANDING_PAGES {
        // There may be none.
        let _ = xen::remove_from_physmap((LANDING >> 12) + page);
    }
    for page in [&PAGES.argument, &PAGES.list, &PAGES.calls, &PAGES.own] {
        page.fill(0);
    }
}
