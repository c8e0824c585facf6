// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The in-flight record: memory of the frontend that outlasts this daemon and lists the chains that it has
//! taken.
//!
//! The layout of each queue is that of the vhost-user specification, "Inflight I/O tracking", for split
//! virtqueues, so that any daemon can continue. Behind the queues, where the specification has nothing, the
//! device has a [`DeviceRecord`].
//!
//! ```text
//!  ┌─────────┬─────────┬───┬──────────────┐     QueueRegionSplit: a header of 16 bytes, then
//!  │ queue 0 │ queue 1 │ … │ DeviceRecord │     16 for each descriptor, rounded up to 64
//!  └─────────┴─────────┴───┴──────────────┘
//! ```
//!
//! A chain is marked before the device receives it, and the mark is cleared when the used ring has it. A
//! chain that is marked when a daemon starts was interrupted: it may or may not have been carried out.
//!
//! The content is not trusted: it may be old or forged. It is only read as numbers, and a number is compared
//! with the size of the queue before it is an index. A forged record can only cause chains of its own guest
//! to be answered that were not in flight.
//!
//! Each field is written by one store. `Release` orders the stores for the compiler, and the processor
//! completes all that precede the instruction at which a process is killed.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{AtomicAccess, Bytes, FileOffset, MmapRegion, VolatileMemory};

/// Offsets in `QueueRegionSplit`, and its size without the array.
const VERSION: usize = 8;
const ENTRIES: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_INDEX: usize = 14;
const HEADER: usize = 16;

/// Offsets in `DescStateSplit`, and its size.
const IN_FLIGHT: usize = 0;
const NEXT: usize = 6;
const COUNTER: usize = 8;
const ENTRY: usize = 16;

/// "It's 1 currently. Zero value indicates an uninitialized buffer."
const CURRENT_VERSION: u16 = 1;

/// Alignment of the queues' parts: a cache line.
const ALIGNMENT: usize = 64;

/// The dimensions of a record, as in `VhostUserInflight`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) queues: u16,
    pub(crate) queue_size: u16,
    /// Size of the device's part in bytes.
    pub(crate) device_bytes: usize,
}

impl Layout {
    fn queue_bytes(self) -> usize {
        (HEADER + ENTRY * usize::from(self.queue_size)).next_multiple_of(ALIGNMENT)
    }

    fn device_offset(self) -> usize {
        self.queue_bytes() * usize::from(self.queues)
    }

    /// Size of the record in bytes.
    pub(crate) fn bytes(self) -> usize {
        self.device_offset() + self.device_bytes
    }
}

/// Creates an empty record for a frontend. Its size is sealed, so that no process can truncate a mapped
/// record.
pub(crate) fn create(layout: Layout) -> Result<File, RecordError> {
    let bytes = u64::try_from(layout.bytes()).map_err(|_| RecordError::TooLarge)?;
    let file = memfd_create(c"inflight", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

/// The mapped record.
#[derive(Debug)]
pub(crate) struct InflightRecord {
    mapping: MmapRegion<()>,
    layout: Layout,
}

/// Why a record cannot be created or mapped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("it has {bytes} bytes where {needed} are needed")]
    TooSmall { bytes: u64, needed: usize },
    #[error("its file ends before the {bytes} bytes from {offset} on")]
    BeyondFile { bytes: u64, offset: u64 },
    #[error("it is larger than a file can be")]
    TooLarge,
    #[error("it cannot be mapped: {0}")]
    Map(#[from] MmapRegionError),
    #[error("the kernel refuses it: {0}")]
    Kernel(#[from] Errno),
}

impl InflightRecord {
    /// Maps `bytes` of `file` from `offset` on.
    pub(crate) fn map(file: File, offset: u64, bytes: u64, layout: Layout) -> Result<Arc<Self>, RecordError> {
        let needed = layout.bytes();
        let length = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        let end = offset.checked_add(bytes);
        if usize::try_from(bytes).map_or(true, |bytes| bytes < needed) {
            return Err(RecordError::TooSmall { bytes, needed });
        }
        if end.is_none_or(|end| length < end) {
            return Err(RecordError::BeyondFile { bytes, offset });
        }
        let mapping = map(FileOffset::new(file, offset), needed)?;
        Ok(Arc::new(Self { mapping, layout }))
    }

    /// Returns the part of a queue, if the frontend has one for it.
    pub(crate) fn queue(self: &Arc<Self>, queue: usize) -> Option<QueueRecord> {
        let exists = queue < usize::from(self.layout.queues);
        let offset = self.layout.queue_bytes().checked_mul(queue)?;
        exists.then(|| QueueRecord { record: Arc::clone(self), offset, counter: 0 })
    }

    /// Returns the part of the device.
    pub(crate) fn device(self: &Arc<Self>) -> DeviceRecord {
        DeviceRecord { record: Arc::clone(self) }
    }

    fn load<T: AtomicAccess + Default>(&self, offset: usize) -> T {
        self.mapping.as_volatile_slice().load(offset, Ordering::Acquire).unwrap_or_default()
    }

    /// All offsets are within the record by its layout; nothing is written elsewhere.
    fn store<T: AtomicAccess>(&self, offset: usize, value: T) {
        let stored = self.mapping.as_volatile_slice().store(value, offset, Ordering::Release);
        debug_assert!(stored.is_ok(), "outside of the record: {offset:#x}");
    }
}

#[cfg(not(feature = "xen"))]
fn map(file: FileOffset, bytes: usize) -> Result<MmapRegion<()>, MmapRegionError> {
    MmapRegion::from_file(file, bytes)
}

/// With the feature, vm-memory maps everything but this kind as memory of a guest.
#[cfg(feature = "xen")]
fn map(file: FileOffset, bytes: usize) -> Result<MmapRegion<()>, MmapRegionError> {
    let range = vm_memory::MmapRange::new_unix(bytes, Some(file), vm_memory::GuestAddress(0));
    MmapRegion::from_range(range)
}

/// The chains in flight of one queue.
#[derive(Debug)]
pub(crate) struct QueueRecord {
    record: Arc<InflightRecord>,
    offset: usize,
    /// The position of the next chain in the order in which chains were taken.
    counter: u64,
}

impl QueueRecord {
    /// Returns the number of descriptors that the record has room for.
    pub(crate) fn entries(&self) -> u16 {
        self.record.layout.queue_size
    }

    /// Returns the chains that a former daemon had taken and not returned, in the order in which it took
    /// them; nothing if the record is new. `used` is the index of the used ring.
    pub(crate) fn recover(&mut self, used: u16) -> Option<Vec<u16>> {
        let found = (self.record.load(self.offset + VERSION), self.record.load(self.offset + ENTRIES));
        if found != (CURRENT_VERSION, self.entries()) {
            if found.0 != 0 {
                log::error!("in-flight record of an unknown version or size, discarded: {found:?}");
            }
            self.initialise(used);
            return None;
        }
        self.finish_last_batch(used);
        let mut marked: Vec<(u64, u16)> = (0..self.entries())
            .filter(|head| self.record.load::<u8>(self.entry(*head) + IN_FLIGHT) != 0)
            .map(|head| (self.record.load(self.entry(head) + COUNTER), head))
            .collect();
        marked.sort_unstable();
        self.counter = marked.last().map_or(0, |(last, _)| last.wrapping_add(1));
        Some(marked.into_iter().map(|(_, head)| head).collect())
    }

    /// "If the value of `used_idx` does not match the `idx` value of used ring", the former daemon died after
    /// it had written the used ring and before it had cleared the marks.
    fn finish_last_batch(&mut self, used: u16) {
        let batch = used.wrapping_sub(self.record.load(self.offset + USED_INDEX));
        let mut head = self.record.load(self.offset + LAST_BATCH_HEAD);
        for _ in 0..batch.min(self.entries()) {
            if head >= self.entries() {
                break;
            }
            self.clear_mark(head);
            head = self.record.load(self.entry(head) + NEXT);
        }
        self.record.store(self.offset + USED_INDEX, used);
    }

    fn initialise(&mut self, used: u16) {
        self.invalidate();
        (0..self.entries()).for_each(|head| self.clear_mark(head));
        self.record.store(self.offset, 0_u64);
        self.record.store(self.offset + ENTRIES, self.entries());
        self.record.store(self.offset + LAST_BATCH_HEAD, 0_u16);
        self.record.store(self.offset + USED_INDEX, used);
        self.record.store(self.offset + VERSION, CURRENT_VERSION);
        self.counter = 0;
    }

    /// Discards what was in flight: the driver has reset the device.
    pub(crate) fn invalidate(&self) {
        self.record.store(self.offset + VERSION, 0_u16);
    }

    /// Marks a chain that was taken from the available ring, before it is processed.
    pub(crate) fn mark(&mut self, head: u16) {
        if head < self.entries() {
            self.record.store(self.entry(head) + COUNTER, self.counter);
            self.counter = self.counter.wrapping_add(1);
            self.record.store(self.entry(head) + IN_FLIGHT, 1_u8);
        }
    }

    /// Records that a chain is about to be written to the used ring, as a batch of one.
    pub(crate) fn begin_return(&self, head: u16) {
        if head < self.entries() {
            let last: u16 = self.record.load(self.offset + LAST_BATCH_HEAD);
            self.record.store(self.entry(head) + NEXT, last);
            self.record.store(self.offset + LAST_BATCH_HEAD, head);
        }
    }

    /// Clears the mark of a chain that is in the used ring, whose index is now `used`.
    pub(crate) fn end_return(&self, head: u16, used: u16) {
        if head < self.entries() {
            self.clear_mark(head);
            self.record.store(self.offset + USED_INDEX, used);
        }
    }

    pub(crate) fn clear_mark(&self, head: u16) {
        self.record.store(self.entry(head) + IN_FLIGHT, 0_u8);
    }

    /// Returns the offset of a descriptor's state. `head` is below [`entries`](Self::entries).
    fn entry(&self, head: u16) -> usize {
        self.offset + HEADER + ENTRY * usize::from(head)
    }
}

/// The device's part of the record, in words of 32 bits. It is all zeros after the driver has reset the
/// device.
#[derive(Clone, Debug)]
pub struct DeviceRecord {
    record: Arc<InflightRecord>,
}

impl DeviceRecord {
    /// Size of a word in bytes.
    pub const WORD: usize = size_of::<u32>();

    fn words(&self) -> usize {
        self.record.layout.device_bytes / Self::WORD
    }

    /// Reads a word; 0 beyond the end.
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        if index < self.words() { self.record.load(self.word_offset(index)) } else { 0 }
    }

    /// Writes a word by one store, so that a daemon that dies leaves the old or the new value.
    pub fn set_word(&self, index: usize, value: u32) {
        if index < self.words() {
            self.record.store(self.word_offset(index), value);
        }
    }

    fn word_offset(&self, index: usize) -> usize {
        self.record.layout.device_offset() + Self::WORD * index
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::expect_used)]

    use super::*;

    /// Returns a device's part of `bytes` bytes.
    pub(crate) fn device_record(bytes: usize) -> DeviceRecord {
        record(Layout { queues: 1, queue_size: 16, device_bytes: bytes }).device()
    }

    fn record(layout: Layout) -> Arc<InflightRecord> {
        let bytes = u64::try_from(layout.bytes()).expect("small");
        InflightRecord::map(create(layout).expect("a file"), 0, bytes, layout).expect("memory")
    }

    #[test]
    fn parts_do_not_overlap() {
        let record = record(Layout { queues: 2, queue_size: 3, device_bytes: 8 });
        let mut queues = [0, 1].map(|queue| record.queue(queue).expect("a part"));
        assert!(record.queue(2).is_none());
        for queue in &mut queues {
            assert_eq!(queue.recover(0), None, "it is new");
        }
        let device = record.device();
        for index in [0, 1, 2, usize::MAX] {
            device.set_word(index, u32::MAX);
        }
        assert_eq!([0, 1, 2, usize::MAX].map(|index| device.word(index)), [u32::MAX, u32::MAX, 0, 0]);
        let [first, second] = &mut queues;
        for head in [2, 0, 3, u16::MAX] {
            first.mark(head);
        }
        second.mark(1);
        assert_eq!(first.recover(0), Some(vec![2, 0]), "in the order in which they were taken");
        assert_eq!(second.recover(0), Some(vec![1]));
        first.invalidate();
        assert_eq!((first.recover(7), first.recover(7)), (None, Some(vec![])));
        assert_eq!(second.recover(0), Some(vec![1]));
    }

    /// Whenever a daemon dies, a chain is in flight or in the used ring, and not both.
    #[test]
    fn a_chain_is_in_flight_or_used_after_every_store() {
        let record = record(Layout { queues: 1, queue_size: 4, device_bytes: 0 });
        let mut queue = record.queue(0).expect("a part");
        queue.recover(u16::MAX);
        queue.mark(1);
        queue.mark(2);
        assert_eq!(queue.recover(u16::MAX), Some(vec![1, 2]));
        queue.begin_return(2);
        assert_eq!(queue.recover(u16::MAX), Some(vec![1, 2]), "not yet in the used ring");
        queue.begin_return(2);
        assert_eq!(queue.recover(0), Some(vec![1]), "in the used ring, and still marked");
        queue.begin_return(1);
        queue.end_return(1, 1);
        assert_eq!(queue.recover(1), Some(vec![]));
        // Later chains follow those that are left.
        queue.mark(3);
        queue.mark(0);
        assert_eq!(queue.recover(1), Some(vec![3, 0]));
        queue.mark(2);
        assert_eq!(queue.recover(1), Some(vec![3, 0, 2]));
    }
}
