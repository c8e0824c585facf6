// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptor chains: the only way from a guest's buffers to a device and back.
//!
//! A chain passes three stages. [`Chain::collect`] reads its descriptors, each once, and checks them against
//! the rules of virtio 1.3, 2.7 and the limits of the queue (`walker`). [`copy_in`] copies the requests of a
//! batch, and [`copy_out`] the answers: with grants each is one system call. Between the two a chain is
//! memory of this process, so that the guest cannot change it while the device uses it.

mod walker;

use vm_memory::{Address, GuestAddress};

use self::walker::ChainWalker;
pub(crate) use self::walker::DescriptorTable;
pub use self::walker::MalformedChain;
use crate::memory::{CopyIn, CopyOut, Memory};

/// Maximum lengths of the two parts of a chain. A longer chain is malformed, and nothing is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the driver may write for the device.
    pub request: usize,
    /// Bytes that the driver may provide for the answer.
    pub answer: usize,
}

/// A piece of guest memory that a descriptor names. It may not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) address: GuestAddress,
    pub(crate) length: usize,
}

/// A request of the guest: the bytes that it wrote, and room for an answer.
///
/// A malformed chain reaches the device too, in its place among the others, but empty: without a request, and
/// without room for an answer unless the location of the status is known. The device answers it as a request
/// that is too short, and does not join its neighbours to one transaction.
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
    /// The index of the status in the answer, and its value for a request that failed.
    failure: Option<(usize, u8)>,
}

impl Chain {
    /// Returns a chain with no guest behind it.
    #[cfg(test)]
    pub(crate) fn detached(queue: usize, request: &[u8], room: usize) -> Self {
        Self { queue, request: request.to_vec(), room, ..Self::default() }
    }

    /// Returns the chain as a former daemon left it in flight.
    #[cfg(test)]
    pub(crate) fn after_interruption(self) -> Self {
        Self { interrupted: true, ..self }
    }

    /// Whether this chain must not be carried out: a former daemon took it and died before it returned it. It
    /// may or may not have been carried out.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Returns the queue of this chain.
    #[must_use]
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// Returns what the driver wrote.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Returns the maximum length of the answer in bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Returns the answer so far.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// Resizes the answer to `length` bytes, or to the room that there is, and returns it together with the
    /// request. New bytes are zero.
    pub fn request_and_answer(&mut self, length: usize) -> (&[u8], &mut [u8]) {
        resize(&mut self.answer, length.min(self.room));
        (&self.request, &mut self.answer)
    }

    /// Replaces the answer. Cuts off what there is no room for: the device checks [`room`](Self::room) first.
    pub fn set_answer(&mut self, answer: &[u8]) {
        self.answer.clear();
        let (_, place) = self.request_and_answer(answer.len());
        place.iter_mut().zip(answer).for_each(|(to, from)| *to = *from);
    }

    /// Sets which byte of the answer is its status, and its value if the answer cannot be delivered as a
    /// whole: the driver must not find the status of a successful request without its data.
    pub fn set_failure_status(&mut self, at: usize, status: u8) {
        self.failure = Some((at, status));
    }

    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// Reads the chain `id` into `self`, whose buffers are reused. A malformed chain becomes empty.
    pub(crate) fn collect(&mut self, memory: &Memory, ring: DescriptorTable, id: ChainId, limits: Limits) {
        if let Err(error) = self.try_collect(memory, ring, id, limits) {
            log::debug!("queue {}: malformed chain {}: {error}", id.queue, id.head);
            self.clear();
        }
    }

    /// Removes the request and the room for an answer.
    fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
        self.request.clear();
        self.answer.clear();
        self.room = 0;
        self.failure = None;
    }

    /// Frees buffers that only an unusually long request needed. They are freed as a whole, since the rest of
    /// a shrunk one would fragment the heap.
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
        ring: DescriptorTable,
        id: ChainId,
        limits: Limits,
    ) -> Result<(), MalformedChain> {
        self.clear();
        (self.queue, self.head, self.interrupted) = (id.queue, id.head, id.interrupted);
        let mut walker = ChainWalker::new(memory, ring, id.head);
        let (mut readable_bytes, mut is_writable) = (0_usize, false);
        while let Some(descriptor) = walker.next()? {
            if is_writable && !descriptor.is_write_only() {
                return Err(MalformedChain::ReadableAfterWritable);
            }
            is_writable = descriptor.is_write_only();
            let length = usize::try_from(descriptor.len()).unwrap_or(usize::MAX);
            let segment = Segment { address: descriptor.addr(), length };
            // The driver may cut a buffer in any way (2.7.4.1). An empty piece adds nothing to it, and its
            // address is not used.
            if length == 0 {
                continue;
            }
            if is_writable {
                self.room = add_within(self.room, length, limits.answer)?;
                self.writable.push(segment);
            } else {
                readable_bytes = readable_bytes.saturating_add(length);
                // Nothing of a request that is too long is kept, but the walk continues to where the status
                // is.
                if readable_bytes <= limits.request {
                    self.readable.push(segment);
                }
            }
        }
        self.size_request(readable_bytes, limits.request);
        Ok(())
    }

    /// Makes space for a request of `bytes` bytes, or for none if it is too long.
    fn size_request(&mut self, bytes: usize, limit: usize) {
        let is_too_long = bytes > limit;
        if is_too_long {
            let (queue, head) = (self.queue, self.head);
            log::debug!("queue {queue}: chain {head}: {}", MalformedChain::TooLong { limit });
            self.readable.clear();
        }
        resize(&mut self.request, if is_too_long { 0 } else { bytes });
    }
}

/// Changes the length of `bytes`; new bytes are zero. Capacities are powers of two: freed buffers of
/// arbitrary sizes would rarely fit the next request, and the heap would grow for hours.
fn resize(bytes: &mut Vec<u8>, length: usize) {
    if bytes.capacity() < length {
        let capacity = length.max(SPARE_BYTES).next_power_of_two();
        bytes.reserve_exact(capacity.saturating_sub(bytes.len()));
    }
    bytes.resize(length, 0);
}

/// Adds the length of a descriptor to its part of the chain.
fn add_within(sum: usize, length: usize, limit: usize) -> Result<usize, MalformedChain> {
    let sum = sum.saturating_add(length);
    if sum > limit {
        return Err(MalformedChain::TooLong { limit });
    }
    Ok(sum)
}

/// A chain of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChainId {
    pub(crate) queue: usize,
    pub(crate) head: u16,
    /// A former daemon had taken it.
    pub(crate) interrupted: bool,
}

/// Capacities that a chain keeps for the next request: enough for nearly every one.
const SPARE_BYTES: usize = 256;
const SPARE_SEGMENTS: usize = 16;

/// Copies the requests of `chains` from the guest. Requests whose memory does not exist, or is not readable,
/// become empty.
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
            let (queue, head) = (chain.queue, chain.head);
            log::debug!("queue {queue}: malformed chain {head}: {}", MalformedChain::NoSuchMemory);
            // There may still be room for an answer.
            chain.request.clear();
        }
    }
}

/// Copies the answers of `chains` to the guest. If one cannot be written as a whole, its status is set to the
/// one for a failed request, if that can be written, and its used length is zero: see [`Chain::used_length`].
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

/// Copies the answers and returns the chains whose answer could not be written as a whole.
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
    /// Clears the answer, which could not be delivered. Returns the address and the value of its status.
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

    /// Returns the length for the used ring: 0 for a malformed chain, and where the answer was not written as
    /// a whole.
    pub(crate) fn used_length(&self) -> u32 {
        u32::try_from(self.answer.len()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The heap has a bound, whatever a hostile guest sends.
    #[test]
    fn buffers_are_powers_of_two_and_freed_as_a_whole() {
        for length in [1, 9, 256, 257, 3000, 8193] {
            let mut chain = Chain { room: length, ..Chain::default() };
            chain.request_and_answer(length).1.fill(7);
            let capacity = chain.answer.capacity();
            assert!(capacity.is_power_of_two() && capacity >= SPARE_BYTES, "{length}: {capacity}");
            chain.readable.reserve_exact(length);
            chain.shrink();
            assert!([0, SPARE_BYTES].contains(&chain.answer.capacity()), "{length}");
            assert!(chain.readable.capacity() <= SPARE_SEGMENTS, "{length}");
        }
    }

    #[test]
    fn an_answer_keeps_its_bytes_when_it_grows() {
        let mut chain = Chain { room: 1000, ..Chain::default() };
        chain.set_answer(&[1, 2, 3]);
        let (_, answer) = chain.request_and_answer(500);
        assert!(answer.starts_with(&[1, 2, 3, 0]) && answer.len() == 500);
    }
}
