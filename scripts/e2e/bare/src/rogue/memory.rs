// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory of the rogue: pages with the structures of hypercalls, and the landing zone, a range without
//! memory where pages of other domains are mapped. The rogue searches both for the secrets of the guests.

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use spin::{Lazy, Mutex};

use crate::machine::{self, Width};
use crate::pages::{PAGE, Page};
use crate::xen;

/// The address of the landing zone: after the grant table, mapped as memory by start.s, not RAM of a domain.
pub(super) const LANDING: u64 = 0x3880_0000;
/// Its number of pages.
pub(super) const LANDING_PAGES: u64 = 16;
/// The number of words of the first page that a call has.
pub(super) const ARGUMENT_LENGTH: usize = 32;
/// The number of words of the second page that a call has.
pub(super) const LIST_LENGTH: usize = 64;
/// The number of words of a page.
const WORDS: u64 = 512;

/// A structure, a list that it points to, the entries of a multicall, and a page that Xen may write.
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

/// Address and handle of each page that was mapped by a grant.
static MAPPED: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// The rogue's RAM.
static RAM: Lazy<Range<u64>> = Lazy::new(machine::ram);

/// The address of the page of the structure.
pub(super) fn argument() -> u64 {
    PAGES.argument.address()
}

/// The address of the page of the list.
pub(super) fn list() -> u64 {
    PAGES.list.address()
}

/// The address of the page of the multicall.
pub(super) fn calls() -> u64 {
    PAGES.calls.address()
}

/// The address of the page that Xen may write.
pub(super) fn own() -> u64 {
    PAGES.own.address()
}

/// The frame of the page that Xen may write.
pub(super) fn own_frame() -> u64 {
    u64::from(PAGES.own.frame())
}

/// The number of bytes that Xen may write at an address in a call.
const MOST_WRITTEN: u64 = 2048;

/// Returns whether an address is in the rogue's RAM, but not in one of these pages, or so near the end of one
/// that Xen may write beyond it.
pub(super) fn is_private(value: u64) -> bool {
    let pages = [argument(), list(), calls(), own()];
    let is_shared = pages.iter().any(|page| (*page..page + 4096 - MOST_WRITTEN).contains(&value));
    is_own_address(value) && !is_shared
}

/// Returns whether an address is in the rogue's RAM.
pub(super) fn is_own_address(value: u64) -> bool {
    RAM.contains(&value)
}

/// Returns whether an address is in the range of grant table and landing zone.
pub(super) fn is_beside_grant_table(value: u64) -> bool {
    let (table, _) = machine::grant_table();
    (table..LANDING + (LANDING_PAGES << 12)).contains(&value)
}

/// Returns whether a frame is in the rogue's RAM.
pub(super) fn is_own_frame(value: u64) -> bool {
    (RAM.start >> 12..RAM.end >> 12).contains(&value)
}

/// Writes the structure and the list.
pub(super) fn prepare(argument: &[u64], list: &[u64]) {
    for (page, words) in [(&PAGES.argument, argument), (&PAGES.list, list)] {
        for (place, &word) in words.iter().enumerate() {
            page.write_u64(8 * place, word);
        }
    }
}

/// Writes the entry of a multicall.
pub(super) fn prepare_entry(number: u64, registers: [u64; 4]) {
    let [a, b, c, d] = registers;
    // struct multicall_entry: op, result, args[6].
    for (place, word) in [number, i64::MIN.cast_unsigned(), a, b, c, d, 0, 0].into_iter().enumerate() {
        PAGES.calls.write_u64(8 * place, word);
    }
}

/// Returns the result in the entry of the multicall.
pub(super) fn entry_result() -> i64 {
    PAGES.calls.read_u64(8).cast_signed()
}

/// Returns a word of the structure.
pub(super) fn argument_word(place: usize) -> u64 {
    PAGES.argument.read_u64(8 * place)
}

/// Returns a word of the list.
pub(super) fn list_word(place: u64) -> u64 {
    usize::try_from(place).map_or(0, |place| PAGES.list.read_u64(8 * place))
}

/// Reads a word in the landing zone. Returns `None` if no page is there.
pub(super) fn landed(page: u64, word: u64) -> Option<u64> {
    machine::load(LANDING + (page << 12) + 8 * word, Width::Double).ok()
}

/// Writes a word in the landing zone. Returns false if no writable page is there.
pub(super) fn overwrite(page: u64, word: u64, value: u64) -> bool {
    let written = machine::store(LANDING + (page << 12) + 8 * word, Width::Double, value).is_ok();
    machine::barrier();
    written
}

/// Returns whether a word that the rogue can read is a secret.
pub(super) fn has_any(is_secret: impl Fn(u64) -> bool) -> bool {
    let in_pages = |page: &Page| (0..PAGE).step_by(8).any(|offset| is_secret(page.read_u64(offset)));
    let landed = |page| (0..WORDS).map_while(|word| landed(page, word)).any(&is_secret);
    [&PAGES.argument, &PAGES.list, &PAGES.calls, &PAGES.own].into_iter().any(in_pages)
        || (0..LANDING_PAGES).any(landed)
}

/// Records a page that was mapped by a grant, with Xen's handle.
pub(super) fn remember(address: u64, handle: u64) {
    MAPPED.lock().push((address, handle));
}

/// Unmaps all pages in the landing zone and clears the other pages.
pub(super) fn clear() {
    for (address, handle) in mem::take(&mut *MAPPED.lock()) {
        // This fails if it is unmapped already.
        let _ = xen::unmap_grant(address, handle);
    }
    for page in 0..LANDING_PAGES {
        // This fails if there is no page.
        let _ = xen::remove_from_physmap((LANDING >> 12) + page);
    }
    for page in [&PAGES.argument, &PAGES.list, &PAGES.calls, &PAGES.own] {
        page.fill(0);
    }
}
