// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of the frontend's that outlives this daemon: which chains it had taken when it died.
//!
//! The layout for each queue is that of the vhost-user specification, "Inflight I/O tracking", for split virtqueues; so
//! a daemon may go on where another died. Behind the queues, where the specification has nothing, the device has
//! a [`Tail`] for state of its own.
//!
//! ```text
//!  ┌─────────┬─────────┬───┬──────────────────┐     QueueRegionSplit: a header of 16 bytes, then
//!  │ queue 0 │ queue 1 │ … │ the device's own │     16 for each descriptor, rounded up to 64
//!  └─────────┴─────────┴───┴──────────────────┘
//! ```
//!
//! A chain is marked before the device sees it, and the mark goes when the used ring has it. What is marked when a
//! daemon comes up was interrupted: nobody knows how far it came.
//!
//! What is in the region when it comes may be old, or of anybody's making. It is only read as numbers, and a number is
//! compared with the size of the queue before it is an index. All that it can do is to have chains of its own guest
//! answered that were not in flight.
//!
//! Each field is written by one store. They are ordered for the compiler by `Release`; the processor has carried out
//! what comes before the instruction at which a process is killed.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use vm_memory::{AtomicAccess, Bytes, FileOffset, MmapRegion, VolatileMemory};

/// Where the fields of `QueueRegionSplit` are, and how long it is without its array.
const VERSION: usize = 8;
const ENTRIES: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_INDEX: usize = 14;
const HEADER: usize = 16;

/// Where the fields of `DescStateSplit` are, and how long it is.
const IN_FLIGHT: usize = 0;
const NEXT: usize = 6;
const COUNTER: usize = 8;
const ENTRY: usize = 16;

/// "It's 1 currently. Zero value indicates an uninitialized buffer."
const CURRENT_VERSION: u16 = 1;

/// Parts of the region begin at multiples of this, a cache line.
const ALIGNMENT: usize = 64;

/// What a region is made for, in the words of `VhostUserInflight`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) queues: u16,
    pub(crate) queue_size: u16,
    /// Bytes of the device's own.
    pub(crate) tail: usize,
}

impl Shape {
    fn queue_bytes(self) -> usize {
        (HEADER + ENTRY * usize::from(self.queue_size)).next_multiple_of(ALIGNMENT)
    }

    fn tail_at(self) -> usize {
        self.queue_bytes() * usize::from(self.queues)
    }

    /// Bytes of the region.
    pub(crate) fn bytes(self) -> usize {
        self.tail_at() + self.tail
    }
}

/// Makes an empty region, for a frontend to keep. Nobody can cut it short under a daemon's hands.
pub(crate) fn create(shape: Shape) -> io::Result<File> {
    let file = memfd_create(c"inflight", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, u64::try_from(shape.bytes()).map_err(io::Error::other)?)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

/// A region that a frontend keeps for the daemons that serve it, one after the other.
#[derive(Debug)]
pub(crate) struct Region {
    mapping: MmapRegion<()>,
    shape: Shape,
}

impl Region {
    /// Maps `bytes` of `file` from `offset` on, which a former daemon may have written as a region of this shape.
    pub(crate) fn map(file: File, offset: u64, bytes: u64, shape: Shape) -> io::Result<Arc<Self>> {
        let wanted = shape.bytes();
        let length = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        let end = offset.checked_add(bytes);
        if usize::try_from(bytes).map_or(true, |bytes| bytes < wanted) {
            return Err(io::Error::other(format!("it has {bytes} bytes where {wanted} are needed")));
        }
        if end.is_none_or(|end| length < end) {
            return Err(io::Error::other(format!("its file ends before the {bytes} bytes from {offset} on")));
        }
        let mapping = map(FileOffset::new(file, offset), wanted)?;
        Ok(Arc::new(Self { mapping, shape }))
    }

    /// The part of a queue, if the frontend has one for it.
    pub(crate) fn tracker(self: &Arc<Self>, queue: usize) -> Option<Tracker> {
        let exists = queue < usize::from(self.shape.queues);
        let at = self.shape.queue_bytes().checked_mul(queue)?;
        exists.then(|| Tracker { region: Arc::clone(self), at, counter: 0 })
    }

    /// The part of the device.
    pub(crate) fn tail(self: &Arc<Self>) -> Tail {
        Tail { region: Arc::clone(self) }
    }

    fn load<T: AtomicAccess + Default>(&self, at: usize) -> T {
        self.mapping.as_volatile_slice().load(at, Ordering::Acquire).unwrap_or_default()
    }

    /// All places are within the region by its shape; nothing is written anywhere else.
    fn store<T: AtomicAccess>(&self, at: usize, value: T) {
        let stored = self.mapping.as_volatile_slice().store(value, at, Ordering::Release);
        debug_assert!(stored.is_ok(), "outside of the region: {at:#x}");
    }
}

#[cfg(not(feature = "xen"))]
fn map(file: FileOffset, bytes: usize) -> io::Result<MmapRegion<()>> {
    MmapRegion::from_file(file, bytes).map_err(io::Error::other)
}

/// With the feature the library takes every mapping for one of a guest's, except this kind.
#[cfg(feature = "xen")]
fn map(file: FileOffset, bytes: usize) -> io::Result<MmapRegion<()>> {
    let range = vm_memory::MmapRange::new_unix(bytes, Some(file), vm_memory::GuestAddress(0));
    MmapRegion::from_range(range).map_err(io::Error::other)
}

/// What is known of one queue.
#[derive(Debug)]
pub(crate) struct Tracker {
    region: Arc<Region>,
    at: usize,
    /// The next chain's place in the order in which chains were taken.
    counter: u64,
}

impl Tracker {
    /// How many descriptors there is room for.
    pub(crate) fn entries(&self) -> u16 {
        self.region.shape.queue_size
    }

    /// The queue starts, and its used ring is at `used`: the chains that a former daemon had taken and not given back, in
    /// the order in which it took them. Nothing if the region is new.
    pub(crate) fn resume(&mut self, used: u16) -> Option<Vec<u16>> {
        let found = (self.region.load(self.at + VERSION), self.region.load(self.at + ENTRIES));
        if found != (CURRENT_VERSION, self.entries()) {
            if found.0 != 0 {
                log::error!("in-flight chains were recorded in a form that is not known here: {found:?}");
            }
            self.initialise(used);
            return None;
        }
        self.finish_last_batch(used);
        let mut marked: Vec<(u64, u16)> = (0..self.entries())
            .filter(|head| self.region.load::<u8>(self.entry(*head) + IN_FLIGHT) != 0)
            .map(|head| (self.region.load(self.entry(head) + COUNTER), head))
            .collect();
        marked.sort_unstable();
        self.counter = marked.last().map_or(0, |(last, _)| last.wrapping_add(1));
        Some(marked.into_iter().map(|(_, head)| head).collect())
    }

    /// "If the value of `used_idx` does not match the `idx` value of used ring", the former daemon died between the used
    /// ring and the marks of what it had just put there.
    fn finish_last_batch(&mut self, used: u16) {
        let batch = used.wrapping_sub(self.region.load(self.at + USED_INDEX));
        let mut head = self.region.load(self.at + LAST_BATCH_HEAD);
        for _ in 0..batch.min(self.entries()) {
            if head >= self.entries() {
                break;
            }
            self.unmark(head);
            head = self.region.load(self.entry(head) + NEXT);
        }
        self.region.store(self.at + USED_INDEX, used);
    }

    fn initialise(&mut self, used: u16) {
        self.forget();
        (0..self.entries()).for_each(|head| self.unmark(head));
        self.region.store(self.at, 0_u64);
        self.region.store(self.at + ENTRIES, self.entries());
        self.region.store(self.at + LAST_BATCH_HEAD, 0_u16);
        self.region.store(self.at + USED_INDEX, used);
        self.region.store(self.at + VERSION, CURRENT_VERSION);
        self.counter = 0;
    }

    /// Whatever was in flight belongs to the past: the driver has reset the device.
    pub(crate) fn forget(&self) {
        self.region.store(self.at + VERSION, 0_u16);
    }

    /// A chain was taken from the available ring, and nothing was done for it yet.
    pub(crate) fn mark(&mut self, head: u16) {
        if head < self.entries() {
            self.region.store(self.entry(head) + COUNTER, self.counter);
            self.counter = self.counter.wrapping_add(1);
            self.region.store(self.entry(head) + IN_FLIGHT, 1_u8);
        }
    }

    /// A chain is about to be put into the used ring: a batch of one.
    pub(crate) fn giving_back(&self, head: u16) {
        if head < self.entries() {
            let last: u16 = self.region.load(self.at + LAST_BATCH_HEAD);
            self.region.store(self.entry(head) + NEXT, last);
            self.region.store(self.at + LAST_BATCH_HEAD, head);
        }
    }

    /// The used ring has it, and is at `used` now.
    pub(crate) fn gave_back(&self, head: u16, used: u16) {
        if head < self.entries() {
            self.unmark(head);
            self.region.store(self.at + USED_INDEX, used);
        }
    }

    pub(crate) fn unmark(&self, head: u16) {
        self.region.store(self.entry(head) + IN_FLIGHT, 0_u8);
    }

    /// Where the state of a descriptor is; `head` is one.
    fn entry(&self, head: u16) -> usize {
        self.at + HEADER + ENTRY * usize::from(head)
    }
}

/// The end of the region, for state of the device's own. The frontend knows nothing of it, except that it is all zeros
/// after the driver has reset the device.
#[derive(Clone, Debug)]
pub struct Tail {
    region: Arc<Region>,
}

impl Tail {
    /// Bytes of a word.
    pub const WORD: usize = size_of::<u32>();

    /// How many words there are.
    fn words(&self) -> usize {
        self.region.shape.tail / Self::WORD
    }

    /// Reads a word; beyond the end there are zeros.
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        if index < self.words() { self.region.load(self.at(index)) } else { 0 }
    }

    /// Writes a word, all of it or nothing, whenever the daemon may die.
    pub fn set_word(&self, index: usize, value: u32) {
        if index < self.words() {
            self.region.store(self.at(index), value);
        }
    }

    fn at(&self, index: usize) -> usize {
        self.region.shape.tail_at() + Self::WORD * index
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::expect_used)]

    use super::*;

    /// Memory of a frontend, for a device of `bytes` bytes of its own.
    pub(crate) fn tail(bytes: usize) -> Tail {
        region(Shape { queues: 1, queue_size: 16, tail: bytes }).tail()
    }

    fn region(shape: Shape) -> Arc<Region> {
        let bytes = u64::try_from(shape.bytes()).expect("small");
        Region::map(create(shape).expect("a file"), 0, bytes, shape).expect("memory")
    }

    #[test]
    fn parts_do_not_overlap() {
        let region = region(Shape { queues: 2, queue_size: 3, tail: 8 });
        let mut trackers = [0, 1].map(|queue| region.tracker(queue).expect("a part"));
        assert!(region.tracker(2).is_none());
        for tracker in &mut trackers {
            assert_eq!(tracker.resume(0), None, "it is new");
        }
        let tail = region.tail();
        for index in [0, 1, 2, usize::MAX] {
            tail.set_word(index, u32::MAX);
        }
        assert_eq!([0, 1, 2, usize::MAX].map(|index| tail.word(index)), [u32::MAX, u32::MAX, 0, 0]);
        let [first, second] = &mut trackers;
        for head in [2, 0, 3, u16::MAX] {
            first.mark(head);
        }
        second.mark(1);
        assert_eq!(first.resume(0), Some(vec![2, 0]), "in the order in which they were taken");
        assert_eq!(second.resume(0), Some(vec![1]));
        first.forget();
        assert_eq!((first.resume(7), first.resume(7)), (None, Some(vec![])));
        assert_eq!(second.resume(0), Some(vec![1]));
    }

    /// Whenever a daemon dies, a chain is in flight or in the used ring, and not both.
    #[test]
    fn a_chain_is_in_one_place_at_every_step() {
        let region = region(Shape { queues: 1, queue_size: 4, tail: 0 });
        let mut tracker = region.tracker(0).expect("a part");
        tracker.resume(u16::MAX);
        tracker.mark(1);
        tracker.mark(2);
        assert_eq!(tracker.resume(u16::MAX), Some(vec![1, 2]));
        tracker.giving_back(2);
        assert_eq!(tracker.resume(u16::MAX), Some(vec![1, 2]), "not yet in the used ring");
        tracker.giving_back(2);
        assert_eq!(tracker.resume(0), Some(vec![1]), "in the used ring, and still marked");
        tracker.giving_back(1);
        tracker.gave_back(1, 1);
        assert_eq!(tracker.resume(1), Some(vec![]));
        // Later ones come after those that are left.
        tracker.mark(3);
        tracker.mark(0);
        assert_eq!(tracker.resume(1), Some(vec![3, 0]));
        tracker.mark(2);
        assert_eq!(tracker.resume(1), Some(vec![3, 0, 2]));
    }
}
