// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptor chains: the only way from a guest's buffers to a device and back.
//!
//! A chain passes three stages. [`Chain::collect`] reads its descriptors, once each, and checks all of them against
//! the rules of virtio 1.3, 2.7 and the limits of the queue. [`copy_in`] fetches what the driver wrote, for a whole
//! batch at once, and [`copy_out`] delivers the answers, likewise: with grants each is one system call. Between the
//! two a chain is plain owned memory that the guest cannot change under the device's hands.

use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress};

use crate::memory::{CopyIn, CopyOut, Memory};

/// How long the two parts of a chain may be. What is longer is malformed, before anything is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the driver may write for the device.
    pub request: usize,
    /// Bytes that the driver may provide for the answer.
    pub answer: usize,
}

/// A piece of guest memory that a descriptor names. Not yet known to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) address: GuestAddress,
    pub(crate) length: usize,
}

/// One request of the guest: the bytes it wrote, and room for an answer.
///
/// A malformed chain reaches the device too, in its place among the others, but void: without a request, and without room for
/// an answer unless it is known where that belongs. So a device that takes a short request for an error, as it must, handles it; and what the guest
/// meant to belong together is not joined over a gap.
#[derive(Debug, Default)]
pub struct Chain {
    queue: usize,
    head: u16,
    interrupted: bool,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    request: Vec<u8>,
    room: usize,
    answer: Vec<u8>,
    /// Where in the answer its status is, and what it says of a request that failed.
    failure: Option<(usize, u8)>,
}

impl Chain {
    /// A chain with no guest behind it, to show a device a request without a ring.
    #[must_use]
    pub fn detached(queue: usize, request: &[u8], room: usize) -> Self {
        Self { queue, request: request.to_vec(), room, ..Self::default() }
    }

    /// The same, as a former daemon left it behind.
    #[must_use]
    pub fn after_interruption(mut self) -> Self {
        self.interrupt();
        self
    }

    /// From now on it must not be carried out.
    pub(crate) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Whether this chain must not be carried out: a former daemon had taken it, and died before it gave it back, so that nobody
    /// knows how far it came; or its queue was stopped first.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// The queue that this chain came from and goes back to.
    #[must_use]
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// What the driver wrote.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// How many bytes the answer may have.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// The answer so far.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// Makes the answer `length` bytes long, but no longer than there is room, and hands it out together with the
    /// request. Bytes that were not in it before are zero.
    pub fn parts(&mut self, length: usize) -> (&[u8], &mut [u8]) {
        resize(&mut self.answer, length.min(self.room));
        (&self.request, &mut self.answer)
    }

    /// Replaces the answer. What there is no room for is cut off; a device checks [`room`](Self::room) first.
    pub fn set_answer(&mut self, answer: &[u8]) {
        self.answer.clear();
        let (_, place) = self.parts(answer.len());
        place.iter_mut().zip(answer).for_each(|(to, from)| *to = *from);
    }

    /// Says which byte of the answer is its status, and what stands there if the answer cannot be delivered as a whole: a
    /// driver must not find the status of a request that worked, and no data.
    pub fn on_failure(&mut self, at: usize, status: u8) {
        self.failure = Some((at, status));
    }

    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// Reads the chain that starts at `head` into `self`, whatever `self` was before (buffers are reused). A malformed
    /// one becomes void.
    pub(crate) fn collect(&mut self, memory: &Memory, ring: Table, at: Position, limits: Limits) {
        if let Err(why) = self.try_collect(memory, ring, at, limits) {
            log::debug!("queue {}: malformed chain {}: {why}", at.queue, at.head);
            self.void();
        }
    }

    /// Leaves nothing but the place in the queue: no request, and no room for an answer.
    fn void(&mut self) {
        self.readable.clear();
        self.writable.clear();
        self.request.clear();
        self.answer.clear();
        self.room = 0;
        self.failure = None;
    }

    /// Gives memory back that only an unusually long request needed: as a whole, for what is left of a piece would keep the
    /// place where it lies from being used for large pieces.
    pub(crate) fn shrink(&mut self) {
        for bytes in [&mut self.request, &mut self.answer] {
            if bytes.capacity() > SPARE_BYTES {
                *bytes = Vec::new();
            }
        }
        for segments in [&mut self.readable, &mut self.writable] {
            if segments.capacity() > SPARE_SEGMENTS {
                *segments = Vec::new();
            }
        }
    }

    fn try_collect(
        &mut self,
        memory: &Memory,
        ring: Table,
        at: Position,
        limits: Limits,
    ) -> Result<(), Malformed> {
        self.void();
        let Self { queue, head, interrupted, readable, writable, request, room, answer: _, failure: _ } =
            self;
        (*queue, *head, *interrupted) = (at.queue, at.head, at.interrupted);
        let mut walk = Walk::new(memory, ring, at.head);
        let (mut readable_bytes, mut is_writable) = (0_usize, false);
        while let Some(descriptor) = walk.next()? {
            let segment = Segment {
                address: descriptor.addr(),
                length: usize::try_from(descriptor.len()).unwrap_or(usize::MAX),
            };
            if is_writable && !descriptor.is_write_only() {
                return Err(Malformed::ReadableAfterWritable);
            }
            is_writable = descriptor.is_write_only();
            // How a buffer is cut is the driver's choice (2.7.4.1), and a piece of no bytes adds nothing to it: its address
            // is not looked at.
            if segment.length == 0 {
                continue;
            }
            if is_writable {
                *room = within(*room, segment.length, limits.answer)?;
                writable.push(segment);
            } else {
                readable_bytes = readable_bytes.saturating_add(segment.length);
                // Of what is too long nothing is kept, and the walk goes on to where the status belongs.
                if readable_bytes <= limits.request {
                    readable.push(segment);
                }
            }
        }
        if readable_bytes > limits.request {
            log::debug!("queue {queue}: chain {head}: {}", Malformed::TooLong { limit: limits.request });
            readable.clear();
            readable_bytes = 0;
        }
        resize(request, readable_bytes);
        Ok(())
    }
}

/// Gives `bytes` another length, with zeros for what is new. Its memory is a power of two: with as many sizes as a guest can
/// think of, freed pieces would rarely fit the next request, and the heap would grow for hours.
fn resize(bytes: &mut Vec<u8>, length: usize) {
    if bytes.capacity() < length {
        let capacity = length.max(SPARE_BYTES).next_power_of_two();
        bytes.reserve_exact(capacity.saturating_sub(bytes.len()));
    }
    bytes.resize(length, 0);
}

/// Adds the length of a descriptor to its part of the chain.
fn within(sum: usize, length: usize, limit: usize) -> Result<usize, Malformed> {
    let sum = sum.saturating_add(length);
    if sum > limit {
        return Err(Malformed::TooLong { limit });
    }
    Ok(sum)
}

/// Which chain of which queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) queue: usize,
    pub(crate) head: u16,
    /// A former daemon had taken it.
    pub(crate) interrupted: bool,
}

/// A table of descriptors: that of the ring, or an indirect one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) address: GuestAddress,
    pub(crate) size: u16,
    /// Whether VIRTIO_F_INDIRECT_DESC was negotiated, and this is not an indirect table itself.
    pub(crate) may_be_indirect: bool,
}

/// Goes along a chain, one descriptor at a time. Each is read once, so that the guest cannot change what was checked.
struct Walk<'a> {
    memory: &'a Memory,
    table: Table,
    next: Option<u16>,
    /// A chain of more descriptors than its table has must visit one twice (virtio 1.3, 2.7.5.2).
    left: u16,
}

impl<'a> Walk<'a> {
    fn new(memory: &'a Memory, table: Table, head: u16) -> Self {
        Self { memory, table, next: Some(head), left: table.size }
    }

    fn next(&mut self) -> Result<Option<Descriptor>, Malformed> {
        let Some(index) = self.next else { return Ok(None) };
        self.left = self.left.checked_sub(1).ok_or(Malformed::Loop)?;
        let descriptor = self.read(index)?;
        if flagged(&descriptor, VRING_DESC_F_INDIRECT) {
            self.enter(&descriptor)?;
            return self.next();
        }
        self.next = flagged(&descriptor, VRING_DESC_F_NEXT).then(|| descriptor.next());
        Ok(Some(descriptor))
    }

    fn read(&self, index: u16) -> Result<Descriptor, Malformed> {
        if index >= self.table.size {
            return Err(Malformed::OutsideTable { index });
        }
        let offset = u64::from(index) * DESCRIPTOR_BYTES;
        let address = self.table.address.checked_add(offset).ok_or(Malformed::NoSuchMemory)?;
        self.memory.map().read_obj(address).map_err(|_| Malformed::NoSuchMemory)
    }

    /// Continues in the table that `descriptor` refers to (virtio 1.3, 2.7.5.3).
    fn enter(&mut self, descriptor: &Descriptor) -> Result<(), Malformed> {
        let entries = u64::from(descriptor.len()) / DESCRIPTOR_BYTES;
        let whole = u64::from(descriptor.len()) % DESCRIPTOR_BYTES == 0;
        // VIRTQ_DESC_F_WRITE is to be ignored here (2.7.5.3.2).
        if !self.table.may_be_indirect || flagged(descriptor, VRING_DESC_F_NEXT) || !whole {
            return Err(Malformed::Indirect);
        }
        let size = u16::try_from(entries)
            .ok()
            .filter(|size| (1..=INDIRECT_ENTRIES).contains(size))
            .ok_or(Malformed::Indirect)?;
        self.table = Table { address: descriptor.addr(), size, may_be_indirect: false };
        (self.next, self.left) = (Some(0), size);
        Ok(())
    }
}

/// What the buffers of a chain keep for the next: more than nearly every request, and little if all of a ring do.
const SPARE_BYTES: usize = 256;
const SPARE_SEGMENTS: usize = 16;

/// Size of a descriptor (virtio 1.3, 2.7.5).
const DESCRIPTOR_BYTES: u64 = 16;

/// How many descriptors an indirect table may have: a request has a header, some pieces of a buffer and a status.
const INDIRECT_ENTRIES: u16 = 64;

fn flagged(descriptor: &Descriptor, flags: u32) -> bool {
    u32::from(descriptor.flags()) & flags != 0
}

/// Fetches the requests of `chains`. Those whose memory does not exist, or is not readable, become empty.
pub(crate) fn copy_in(memory: &Memory, chains: &mut [Chain]) {
    let mut copy = CopyIn::new(memory);
    for (index, chain) in chains.iter_mut().enumerate() {
        let mut rest = chain.request.as_mut_slice();
        for segment in &chain.readable {
            let Some((piece, tail)) = rest.split_at_mut_checked(segment.length) else { break };
            copy.add(index, segment.address, piece);
            rest = tail;
        }
    }
    for index in copy.run() {
        if let Some(chain) = chains.get_mut(index) {
            log::debug!("queue {}: malformed chain {}: {}", chain.queue, chain.head, Malformed::NoSuchMemory);
            // There may be room for an answer all the same.
            chain.request.clear();
        }
    }
}

/// Delivers the answers of `chains`. Of one that could not be written as a whole the status says that the request failed, if
/// that can be written, and its length is zero: see [`Chain::used_length`].
pub(crate) fn copy_out(memory: &Memory, chains: &mut [Chain]) {
    let failed = copy_answers(memory, chains);
    let mut copy = CopyOut::new(memory);
    let statuses: Vec<_> = failed.into_iter().filter_map(|index| chains.get_mut(index)?.fail()).collect();
    for (index, (address, status)) in statuses.iter().enumerate() {
        copy.add(index, *address, std::slice::from_ref(status));
    }
    if !statuses.is_empty() {
        copy.run();
    }
}

/// Says whose answer could not be written as a whole.
fn copy_answers(memory: &Memory, chains: &[Chain]) -> Vec<usize> {
    let mut copy = CopyOut::new(memory);
    for (index, chain) in chains.iter().enumerate() {
        let mut rest = chain.answer.as_slice();
        for segment in &chain.writable {
            let (piece, tail) = rest.split_at_checked(segment.length).unwrap_or((rest, &[]));
            copy.add(index, segment.address, piece);
            rest = tail;
        }
    }
    copy.run()
}

impl Chain {
    /// The answer was not delivered. Returns where its status is, and what it is then.
    fn fail(&mut self) -> Option<(GuestAddress, u8)> {
        self.answer.clear();
        let (mut at, status) = self.failure?;
        for segment in &self.writable {
            if at < segment.length {
                let address = segment.address.checked_add(u64::try_from(at).ok()?)?;
                return Some((address, status));
            }
            at -= segment.length;
        }
        None
    }

    /// What the used ring says was written: nothing, of a chain that was malformed, and where part of the answer was not.
    pub(crate) fn used_length(&self) -> u32 {
        u32::try_from(self.answer.len()).unwrap_or(0)
    }
}

/// What is wrong with a chain. The guest learns of it by a used entry of length zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// virtio 1.3, 2.7.5: `next` is an index into the table.
    #[error("descriptor {index} is outside of its table")]
    OutsideTable {
        /// The index that the guest gave.
        index: u16,
    },
    /// virtio 1.3, 2.7.5.2: a driver must not make a loop.
    #[error("the chain is longer than its table, so it loops")]
    Loop,
    /// virtio 1.3, 2.7.4.2: device-readable elements come first.
    #[error("a device-readable descriptor follows a device-writable one")]
    ReadableAfterWritable,
    /// The chain is longer than any request of this device.
    #[error("more than the {limit} bytes that this queue takes")]
    TooLong {
        /// The limit that was passed.
        limit: usize,
    },
    /// virtio 1.3, 2.7.5.3.1: not negotiated, nested, chained, or of a wrong size.
    #[error("an indirect descriptor where none may be")]
    Indirect,
    /// The descriptor is not in the guest's memory.
    #[error("outside of the guest's memory")]
    NoSuchMemory,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a hostile guest sends makes the heap grow to some size, and no further.
    #[test]
    fn memory_is_taken_in_powers_of_two_and_given_back_whole() {
        for length in [1, 9, 256, 257, 3000, 8193] {
            let mut chain = Chain { room: length, ..Chain::default() };
            chain.parts(length).1.fill(7);
            let capacity = chain.answer.capacity();
            assert!(capacity.is_power_of_two() && capacity >= SPARE_BYTES, "{length}: {capacity}");
            chain.readable.reserve_exact(length);
            chain.shrink();
            assert!([0, SPARE_BYTES].contains(&chain.answer.capacity()), "{length}");
            assert!(chain.readable.capacity() <= SPARE_SEGMENTS, "{length}");
        }
    }

    #[test]
    fn an_answer_keeps_what_is_in_it_when_it_grows() {
        let mut chain = Chain { room: 1000, ..Chain::default() };
        chain.set_answer(&[1, 2, 3]);
        let (_, answer) = chain.parts(500);
        assert!(answer.starts_with(&[1, 2, 3, 0]) && answer.len() == 500);
    }
}
