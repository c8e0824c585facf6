// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that watches its memory during an attack: it fills many pages with a secret, grants a few pages,
//! and checks repeatedly that nothing else has changed. The attacker is [`rogue`](crate::rogue).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use anyhow::{Context, Result, bail};
use spin::Mutex;

use crate::clock::Moment;
use crate::grants::{self, Granted, IN_USE, PERMIT, READ_ONLY};
use crate::interrupts;
use crate::jobs::Job;
use crate::machine::{self, GRANT_ENTRIES, Width};
use crate::number::number;
use crate::pages::{PAGE, Page};

/// The content of the page that is granted to the attacker.
pub const CONTROL: u64 = 0x6772_616e_7465_6421;
/// The value that the attacker writes to that page.
pub const ANSWER: u64 = 0x616e_7377_6572_6564;
/// The content of the page that the attacker may only read.
const READABLE: u64 = 0x7265_6164_6162_6c65;
/// The number of pages with the secret: 2 MiB.
const PAGES: usize = 512;
/// The number of pages that one round checks, and the pause after a round.
const AT_ONCE: usize = 32;
const REST: Duration = Duration::from_millis(5);

/// The number of rounds, the number of rounds that found a change, and the longest time between two rounds in
/// microseconds.
static BEATS: AtomicU64 = AtomicU64::new(0);
static DAMAGES: AtomicU64 = AtomicU64::new(0);
static LONGEST_GAP: AtomicU64 = AtomicU64::new(0);
/// The first change that was found.
static FIRST_DAMAGE: Mutex<Option<String>> = Mutex::new(None);
/// The published targets, once the pages are granted.
static OPEN: Mutex<Option<Open>> = Mutex::new(None);

/// What the attacker may know: the frame of a secret page, the references of the granted pages, and whether
/// [`ANSWER`] has arrived.
#[derive(Clone, Copy, Debug)]
struct Open {
    frame: u32,
    control: u32,
    read_only: u32,
    neighbour: u32,
    is_answered: bool,
}

/// Runs a command: `guard SECRET NEIGHBOUR`, which runs until it is stopped, or `report`.
///
/// # Errors
/// Returns an error if the command is unknown or fails, or if a change was found.
pub fn run(job: &Job, command: &[&str]) -> Result<()> {
    match *command {
        ["guard", secret, neighbour] => {
            let mut guarded = Guarded::new(number(secret)?, number(neighbour)?)?;
            guarded.watch(job);
            Ok(())
        }
        ["report"] => report(job),
        _ => bail!("unknown command of the witness: {}", command.join(" ")),
    }
}

fn report(job: &Job) -> Result<()> {
    let open = OPEN.lock().context("no memory is guarded: run `witness guard` first")?;
    let gap = Duration::from_micros(LONGEST_GAP.swap(0, Ordering::Relaxed)).as_millis();
    let (beats, damages) = (BEATS.load(Ordering::Relaxed), DAMAGES.load(Ordering::Relaxed));
    let Open { frame, control, read_only, neighbour, is_answered } = open;
    job.print(format_args!(
        "beats={beats} damages={damages} longest-gap-ms={gap} frame={frame} control={control}"
    ));
    let answered = u8::from(is_answered);
    job.print(format_args!("read-only={read_only} neighbour={neighbour} answered={answered}"));
    if let Some(first) = FIRST_DAMAGE.lock().as_deref() {
        bail!("{first}");
    }
    Ok(())
}

/// The guarded memory.
struct Guarded {
    secret: u64,
    pages: Vec<Page>,
    control: Granted,
    read_only: Granted,
    neighbour: Granted,
    table: Vec<[u64; 3]>,
    code: u64,
}

/// Returns word `index` of page `page`: the secret, or a value that no other place has, in turn.
fn word(secret: u64, page: usize, index: usize) -> u64 {
    if index.is_multiple_of(2) {
        return secret;
    }
    let place = u64::try_from(page * PAGE + index).unwrap_or(u64::MAX);
    place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ secret.rotate_left(17)
}

fn fill(page: &Page, value: impl Fn(usize) -> u64) {
    for index in 0..PAGE / 8 {
        page.write_u64(8 * index, value(index));
    }
}

fn has(page: &Page, value: impl Fn(usize) -> u64) -> bool {
    (0..PAGE / 8).all(|index| page.read_u64(8 * index) == value(index))
}

/// Returns an entry of the grant table without the bits that Xen sets.
fn entry(reference: usize) -> [u64; 3] {
    let entry = u32::try_from(reference).ok().and_then(grants::entry);
    entry.map_or([0; 3], |entry| {
        let flags = entry.flags.load(Ordering::Acquire) & !IN_USE;
        let (domain, frame) = (entry.domain.load(Ordering::Relaxed), entry.frame.load(Ordering::Relaxed));
        [flags.into(), domain.into(), frame.into()]
    })
}

/// Returns a checksum of the code and the constants of this image (FNV-1a, by words).
fn code() -> u64 {
    let words = machine::constant_image().step_by(8).map(|address| machine::load(address, Width::Double));
    words.fold(0xcbf2_9ce4_8422_2325, |sum: u64, word| {
        (sum ^ word.unwrap_or_default()).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Guarded {
    fn new(secret: u64, neighbour_domid: u16) -> Result<Self> {
        let pages: Vec<Page> = (0..PAGES).map(|_| Page::default()).collect();
        for (number, page) in pages.iter().enumerate() {
            fill(page, |index| word(secret, number, index));
        }
        let control = Granted::with_flags(0)?;
        fill(control.page(), |_| CONTROL);
        let read_only = Granted::with_flags(0)?;
        fill(read_only.page(), |_| READABLE);
        let neighbour = Granted::with_flags(0)?;
        fill(neighbour.page(), |index| word(secret, PAGES, index));
        for (granted, flags) in [(&control, PERMIT), (&read_only, PERMIT | READ_ONLY), (&neighbour, PERMIT)] {
            let entry = grants::entry(granted.reference()).context("the reference is beyond the table")?;
            if granted.reference() == neighbour.reference() {
                entry.domain.store(neighbour_domid, Ordering::Relaxed);
            }
            entry.flags.store(flags, Ordering::Release);
        }
        machine::barrier();
        let table = (0..GRANT_ENTRIES).map(entry).collect();
        Ok(Self { secret, pages, control, read_only, neighbour, table, code: code() })
    }

    /// Checks the memory in rounds until the command is stopped.
    fn watch(&mut self, job: &Job) {
        let mut next = 0;
        let mut last = Moment::now();
        while !job.is_to_stop() {
            if let Some(damage) = self.damage(next) {
                DAMAGES.fetch_add(1, Ordering::Relaxed);
                FIRST_DAMAGE.lock().get_or_insert(damage);
            }
            self.tell();
            next = (next + AT_ONCE) % PAGES;
            BEATS.fetch_add(1, Ordering::Relaxed);
            interrupts::wait(Some(Moment::after(REST)), || false);
            let gap = u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX);
            LONGEST_GAP.fetch_max(gap, Ordering::Relaxed);
            last = Moment::now();
        }
    }

    fn tell(&self) {
        let first = self.pages.first().map_or(0, Page::frame);
        *OPEN.lock() = Some(Open {
            frame: first,
            control: self.control.reference(),
            read_only: self.read_only.reference(),
            neighbour: self.neighbour.reference(),
            is_answered: self.control.page().read_u64(8) == ANSWER,
        });
    }

    /// Returns the first change: in [`AT_ONCE`] pages from `first` on, in the granted pages, in the grant
    /// table. The code is checked in every round from page 0.
    fn damage(&self, first: usize) -> Option<String> {
        for (number, page) in self.pages.iter().enumerate().skip(first).take(AT_ONCE) {
            if !has(page, |index| word(self.secret, number, index)) {
                return Some(format!(
                    "page {number} with the secret (frame {:#x}) has changed",
                    page.frame()
                ));
            }
        }
        if !has(self.read_only.page(), |_| READABLE) {
            return Some(String::from("the page that is granted for reading only has changed"));
        }
        if !has(self.neighbour.page(), |index| word(self.secret, PAGES, index)) {
            return Some(String::from("the page that is granted to another guest has changed"));
        }
        let changed = self.table.iter().enumerate().find(|(reference, was)| entry(*reference) != **was);
        if let Some((reference, was)) = changed {
            return Some(format!(
                "entry {reference} of the grant table was {was:x?}, is {:x?}",
                entry(reference)
            ));
        }
        (first == 0 && code() != self.code).then(|| String::from("the code has changed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found() {
        let page = Page::default();
        fill(&page, |index| word(7, 3, index));
        assert!(has(&page, |index| word(7, 3, index)));
        assert!(!has(&page, |index| word(7, 4, index)), "another page");
        page.write_u8(4095, page.read_u8(4095) ^ 1);
        assert!(!has(&page, |index| word(7, 3, index)));
    }

    #[test]
    fn bits_of_xen_in_an_entry_are_ignored_other_changes_are_found() {
        let was = entry(300);
        let flags = &grants::entry(300).unwrap().flags;
        flags.store(IN_USE, Ordering::Relaxed);
        assert_eq!(entry(300), was);
        flags.store(PERMIT, Ordering::Relaxed);
        assert_ne!(entry(300), was);
    }
}
