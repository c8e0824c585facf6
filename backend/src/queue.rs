// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One split virtqueue: takes everything that is available at once, completes everything that is finished at once, and
//! decides whether the guest needs to hear of it (virtio 1.3, 2.7.6 to 2.7.14).

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::chain::{self, Chain, Position, Table};
use crate::device::QueueLimits;
use crate::inflight::Tracker;
use crate::memory::Memory;

/// Where a batch ends, though there is more in the ring: so much memory it may take.
const BATCH_BYTES: usize = 16 * 1024;
/// The same for requests without many bytes, which fail if their queue is stopped meanwhile. Few guests have
/// as many in flight.
const BATCH_CHAINS: usize = 16;

/// What a frontend sets before it starts a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Size,
    Addresses,
    Base,
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Size => "size",
            Self::Addresses => "addresses",
            Self::Base => "base",
        })
    }
}

/// A ring as the frontend set it up, with its two event descriptors.
#[derive(Debug)]
pub(crate) struct Ring {
    index: usize,
    limits: QueueLimits,
    queue: Queue,
    /// What was not set yet, or refused when it was set last.
    lacking: Vec<Setting>,
    pub(crate) indirect: bool,
    pub(crate) enabled: bool,
    pub(crate) kick: Option<File>,
    pub(crate) call: Option<File>,
    /// Where the frontend learns that the ring has become unusable.
    pub(crate) err: Option<File>,
    /// There may be something to take.
    pub(crate) pending: bool,
    /// Somebody looks at the ring all the time: the driver need not kick.
    polled: bool,
    /// The guest wrote an index that cannot be: nothing more is taken until the ring is set up anew.
    unusable: bool,
    /// The frontend has not been told of that.
    tells_failure: bool,
    /// Chains that were completed, kept for their buffers.
    spare: Vec<Chain>,
    /// Where the frontend wants the chains in flight to be recorded.
    tracker: Option<Tracker>,
    /// Chains that a former daemon left in flight; the last is the next.
    interrupted: Vec<u16>,
}

impl Ring {
    pub(crate) fn new(index: usize, limits: QueueLimits) -> Result<Self, Error> {
        Ok(Self {
            index,
            limits,
            queue: Queue::new(limits.size)?,
            // The base is zero for a frontend that does not say it.
            lacking: vec![Setting::Size, Setting::Addresses],
            indirect: false,
            enabled: false,
            kick: None,
            call: None,
            err: None,
            pending: false,
            polled: false,
            unusable: false,
            tells_failure: false,
            spare: Vec::new(),
            tracker: None,
            interrupted: Vec::new(),
        })
    }

    /// Started and enabled, in the words of the vhost-user specification ("Ring states").
    pub(crate) fn is_running(&self) -> bool {
        self.queue.ready() && self.enabled
    }

    /// What has to be set before it can start.
    pub(crate) fn lacks(&self) -> Option<Setting> {
        self.lacking.first().copied()
    }

    /// A setting was accepted, or refused.
    pub(crate) fn note(&mut self, setting: Setting, accepted: bool) {
        self.lacking.retain(|other| *other != setting);
        if !accepted {
            self.lacking.push(setting);
        }
    }

    pub(crate) fn set_size(&mut self, size: u32) -> Result<(), Error> {
        let size = u16::try_from(size).map_err(|_| Error::InvalidSize)?;
        if self.queue.ready() {
            return Err(Error::InvalidSize);
        }
        self.queue.try_set_size(size)
    }

    /// Takes the addresses of the ring's three parts, and goes on in the used ring where it stands: after a restart
    /// of this daemon that is where the former one stopped.
    pub(crate) fn set_addresses(&mut self, memory: &Memory, parts: [GuestAddress; 3]) -> Result<(), Error> {
        let [descriptors, available, used] = parts;
        self.queue.try_set_desc_table_address(descriptors)?;
        self.queue.try_set_avail_ring_address(available)?;
        self.queue.try_set_used_ring_address(used)?;
        if !self.is_mapped(memory) {
            return Err(Error::FindMemoryRegion);
        }
        let index = self.queue.used_idx(memory.map(), Ordering::Relaxed)?;
        self.queue.set_next_used(index.0);
        self.unusable = false;
        Ok(())
    }

    /// Where its parts are, in the order in which they are set.
    pub(crate) fn addresses(&self) -> [GuestAddress; 3] {
        [self.queue.desc_table(), self.queue.avail_ring(), self.queue.used_ring()].map(GuestAddress)
    }

    /// Whether the ring's three parts are in memory (their sizes: virtio 1.3, 2.7, with an event index at the end of the rings).
    fn is_mapped(&self, memory: &Memory) -> bool {
        let entries = u64::from(self.queue.size());
        let parts = [
            (self.queue.desc_table(), 16 * entries),
            (self.queue.avail_ring(), 6 + 2 * entries),
            (self.queue.used_ring(), 6 + 8 * entries),
        ];
        parts.into_iter().all(|(address, bytes)| memory.is_mapped(GuestAddress(address), bytes))
    }

    /// To be called when the memory under a ring that may be running became another.
    pub(crate) fn check_memory(&mut self, memory: &Memory) {
        if self.queue.ready() && !self.is_mapped(memory) {
            self.fail(format_args!("the frontend took its memory away without stopping it"));
        }
    }

    pub(crate) fn set_next_available(&mut self, index: u16) {
        self.queue.set_next_avail(index);
        self.unusable = false;
    }

    pub(crate) fn next_available(&self) -> u16 {
        self.queue.next_avail()
    }

    pub(crate) fn set_event_idx(&mut self, enabled: bool) {
        self.queue.set_event_idx(enabled);
    }

    /// Started, though perhaps not enabled.
    pub(crate) fn is_started(&self) -> bool {
        self.queue.ready()
    }

    /// Has the chains in flight recorded from the next start on.
    pub(crate) fn track(&mut self, tracker: Option<Tracker>) {
        self.tracker = tracker;
    }

    /// Forgets what was in flight, in the frontend's memory too.
    pub(crate) fn forget(&mut self) {
        self.interrupted.clear();
        if let Some(tracker) = &self.tracker {
            tracker.forget();
        }
    }

    /// Starts where the frontend said; or, if a former daemon recorded what it did, where that one died.
    pub(crate) fn start(&mut self, memory: &Memory) -> Result<(), Error> {
        // It may have another size than when its addresses were looked at.
        if !self.is_mapped(memory) {
            return Err(Error::FindMemoryRegion);
        }
        if !self.queue.ready()
            && let Some(tracker) = &mut self.tracker
        {
            let size = self.queue.size();
            if tracker.entries() < size {
                return Err(Error::InvalidSize);
            }
            let used = self.queue.next_used();
            if let Some(mut interrupted) = tracker.resume(used) {
                // No driver of this ring can have made these available.
                interrupted.extract_if(.., |head| *head >= size).for_each(|head| tracker.unmark(head));
                let taken = u16::try_from(interrupted.len()).map_err(|_| Error::InvalidSize)?;
                self.queue.set_next_avail(used.wrapping_add(taken));
                if taken > 0 {
                    log::info!("queue {}: {taken} chains were in flight when a daemon died", self.index);
                }
                interrupted.reverse();
                self.interrupted = interrupted;
            }
        }
        self.queue.set_ready(true);
        self.pending = true;
        Ok(())
    }

    pub(crate) fn stop(&mut self) {
        self.queue.set_ready(false);
        // The crate keeps a count for event indices, of which only its state is free: it is none of the next driver's.
        if let Ok(queue) = Queue::try_from(self.queue.state()) {
            self.queue = queue;
        }
        self.pending = false;
        self.interrupted.clear();
    }

    /// From now on somebody calls [`look`](Self::look) again and again, or not any more.
    pub(crate) fn set_polled(&mut self, memory: &Memory, polled: bool) {
        self.polled = polled;
        if !polled && self.is_running() && !self.unusable {
            // What came since the last look has not been kicked.
            self.pending |= self.queue.enable_notification(memory.map()).unwrap_or(true);
        }
    }

    /// Looks whether the driver has made something available that is not taken yet.
    pub(crate) fn look(&mut self, memory: &Memory) {
        if self.is_running() && !self.unusable {
            let available = self.queue.avail_idx(memory.map(), Ordering::Acquire);
            self.pending |= available.map_or(true, |index| index.0 != self.queue.next_avail());
        }
    }

    /// The guest kicked: resets the event, so that the next kick is seen.
    pub(crate) fn kicked(&mut self) {
        let mut count = [0; 8];
        if let Some(kick) = &mut self.kick
            && let Err(error) = kick.read_exact(&mut count)
            // Nothing to read: it was of the ring before a reset.
            && error.kind() != ErrorKind::WouldBlock
        {
            log::warn!("queue {}: cannot read the kick: {error}", self.index);
        }
        self.pending = true;
    }

    /// Moves everything that the guest made available to `requests`.
    pub(crate) fn take(&mut self, memory: &Memory, requests: &mut Vec<Chain>) {
        self.pending = false;
        if !self.is_running() || self.unusable {
            return;
        }
        if let Err(error) = self.pop_all(memory, requests) {
            self.fail(format_args!("{error}"));
        }
        chain::copy_in(memory, requests);
    }

    /// What the ring says cannot be, and there is no chain to answer: that leaves the frontend to be told.
    pub(crate) fn fail(&mut self, why: fmt::Arguments<'_>) {
        log::error!("queue {}: unusable until the driver sets it up anew: {why}", self.index);
        (self.unusable, self.tells_failure) = (true, true);
    }

    /// Whether there is something for [`tell_failure`](Self::tell_failure) to tell.
    pub(crate) fn has_failed(&self) -> bool {
        self.tells_failure
    }

    /// Tells the frontend of a ring that has become unusable, which has the driver reset the device (virtio 1.3, 2.1.2;
    /// vhost-user, "VHOST_USER_SET_VRING_ERR"). To be called when all that was taken of it has been given back.
    pub(crate) fn tell_failure(&mut self) {
        if std::mem::take(&mut self.tells_failure)
            && let Some(err) = &mut self.err
            && let Err(error) = err.write_all(&1_u64.to_ne_bytes())
        {
            log::warn!("queue {}: cannot tell the frontend: {error}", self.index);
        }
    }

    fn pop_all(&mut self, memory: &Memory, requests: &mut Vec<Chain>) -> Result<(), Error> {
        let mut bytes = 0;
        let mut is_more = false;
        let _ = self.queue.disable_notification(memory.map());
        loop {
            let before = requests.len();
            while bytes < BATCH_BYTES
                && requests.len() < BATCH_CHAINS
                && let Some((head, interrupted)) = self.pop(memory)?
            {
                let mut chain = self.spare.pop().unwrap_or_default();
                let table = Table {
                    address: GuestAddress(self.queue.desc_table()),
                    size: self.queue.size(),
                    may_be_indirect: self.indirect,
                };
                let at = Position { queue: self.index, head, interrupted };
                chain.collect(memory, table, at, self.limits.chain);
                bytes += chain.request().len() + chain.room();
                requests.push(chain);
            }
            // What comes in meanwhile waits for the next turn, so that the frontend gets a turn as well.
            if requests.len() >= BATCH_CHAINS || bytes >= BATCH_BYTES {
                self.pending = true;
                return Ok(());
            }
            // The index has moved and is back: it lies where the device writes, in the used ring, and would do so for ever.
            if is_more && requests.len() == before {
                return Err(Error::InvalidAvailRingIndex);
            }
            if self.polled || !self.queue.enable_notification(memory.map())? {
                return Ok(());
            }
            is_more = true;
            let _ = self.queue.disable_notification(memory.map());
        }
    }

    /// The next chain, marked before anything is done for it, and whether a former daemon had it.
    fn pop(&mut self, memory: &Memory) -> Result<Option<(u16, bool)>, Error> {
        if let Some(head) = self.interrupted.pop() {
            return Ok(Some((head, true)));
        }
        let next = self.queue.iter(memory.map())?.next();
        let Some(head) = next.map(|chain| chain.head_index()) else { return Ok(None) };
        // virtio 1.3, 2.7.13.2: what a driver places there is an index of its table. No used entry could name this one.
        if head >= self.queue.size() {
            return Err(Error::InvalidDescriptorIndex);
        }
        if let Some(tracker) = &mut self.tracker {
            tracker.mark(head);
        }
        Ok(Some((head, false)))
    }

    /// Gives finished chains back to the guest, in their order, and notifies it if it wants to be. `finished` is empty
    /// afterwards. What was taken before the ring became unusable is no worse for that.
    pub(crate) fn complete(&mut self, memory: &Memory, finished: &mut Vec<Chain>) {
        if finished.is_empty() || !self.queue.ready() {
            finished.clear();
            return;
        }
        chain::copy_out(memory, finished);
        for mut chain in finished.drain(..) {
            self.give_back(memory, &chain);
            chain.shrink();
            self.spare.push(chain);
        }
        if self.wants_notification(memory) {
            self.notify();
        }
    }

    fn give_back(&mut self, memory: &Memory, chain: &Chain) {
        let head = chain.head();
        if let Some(tracker) = &self.tracker {
            tracker.giving_back(head);
        }
        match (self.queue.add_used(memory.map(), head, chain.used_length()), &self.tracker) {
            (Ok(()), Some(tracker)) => tracker.gave_back(head, self.queue.next_used()),
            (Ok(()), None) => {}
            (Err(error), _) => {
                log::debug!("queue {}: chain {head} cannot be returned: {error}", self.index);
            }
        }
    }

    fn wants_notification(&mut self, memory: &Memory) -> bool {
        if !self.queue.event_idx_enabled() {
            // virtio 1.3, 2.7.7.2: the flag is a hint that virtio-queue leaves to us. The driver clears it and then looks at the
            // used index; so the index must be there before the flag is read, which no ordering of the two alone says.
            fence(Ordering::SeqCst);
            let flags = memory.map().load::<u16>(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed);
            return flags
                .map_or(true, |flags| u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        self.queue.needs_notification(memory.map()).unwrap_or(true)
    }

    fn notify(&mut self) {
        if let Some(call) = &mut self.call
            && let Err(error) = call.write_all(&1_u64.to_ne_bytes())
        {
            log::warn!("queue {}: cannot notify the guest: {error}", self.index);
        }
    }
}

// With the feature, guest memory is Xen's.
#[cfg(all(test, not(feature = "xen")))]
#[allow(clippy::expect_used, clippy::indexing_slicing)]
mod properties;
