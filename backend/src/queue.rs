// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A split virtqueue: takes all available chains at once, completes all finished chains at once, and decides
//! whether the driver is notified (virtio 1.3, 2.7.6 to 2.7.14). `setup` has the settings, the start and the
//! stop.

mod setup;

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

pub(crate) use self::setup::Setting;
use crate::chain::{self, Chain, ChainId, DescriptorTable};
use crate::device::QueueLimits;
use crate::inflight::QueueRecord;
use crate::memory::Memory;

/// Bytes of requests and answers after which a batch ends.
const BATCH_BYTES: usize = 16 * 1024;
/// Chains after which a batch ends. Few guests have as many in flight.
const BATCH_CHAINS: usize = 16;

/// A ring as the frontend set it up, with its two event descriptors.
#[derive(Debug)]
pub(crate) struct Ring {
    index: usize,
    limits: QueueLimits,
    queue: Queue,
    /// Settings that were not sent yet, or were refused last.
    missing: Vec<Setting>,
    pub(crate) indirect: bool,
    pub(crate) enabled: bool,
    pub(crate) kick: Option<File>,
    pub(crate) call: Option<File>,
    /// The descriptor that reports an unusable ring to the frontend.
    pub(crate) err: Option<File>,
    /// There may be available chains.
    pub(crate) pending: bool,
    /// [`poll`](Self::poll) is called continuously: the driver need not kick.
    polled: bool,
    /// The guest wrote an invalid index: nothing is taken until the ring is set up again.
    unusable: bool,
    /// The frontend has not been notified that the ring is unusable.
    failure_unreported: bool,
    /// Completed chains, kept for their buffers.
    spare: Vec<Chain>,
    /// The ring's part of the in-flight record.
    record: Option<QueueRecord>,
    /// Chains that a former daemon left in flight, the next one last.
    interrupted: Vec<u16>,
}

impl Ring {
    pub(crate) fn new(index: usize, limits: QueueLimits) -> Result<Self, Error> {
        Ok(Self {
            index,
            limits,
            queue: Queue::new(limits.size)?,
            // A frontend that sends no base means 0.
            missing: vec![Setting::Size, Setting::Addresses],
            indirect: false,
            enabled: false,
            kick: None,
            call: None,
            err: None,
            pending: false,
            polled: false,
            unusable: false,
            failure_unreported: false,
            spare: Vec::new(),
            record: None,
            interrupted: Vec::new(),
        })
    }

    /// Started and enabled (vhost-user, "Ring states").
    pub(crate) fn is_running(&self) -> bool {
        self.queue.ready() && self.enabled
    }

    /// Started, though perhaps not enabled.
    pub(crate) fn is_started(&self) -> bool {
        self.queue.ready()
    }

    /// Announces that [`poll`](Self::poll) is called continuously, or no longer is.
    pub(crate) fn set_polled(&mut self, memory: &Memory, polled: bool) {
        self.polled = polled;
        if !polled && self.is_running() && !self.unusable {
            // For chains since the last poll there was no kick.
            self.pending |= self.queue.enable_notification(memory.map()).unwrap_or(true);
        }
    }

    /// Marks the ring as pending if the driver has made chains available.
    pub(crate) fn poll(&mut self, memory: &Memory) {
        if self.is_running() && !self.unusable {
            let available = self.queue.avail_idx(memory.map(), Ordering::Acquire);
            self.pending |= available.map_or(true, |index| index.0 != self.queue.next_avail());
        }
    }

    /// Reads the kick descriptor, so that the next kick is seen, and marks the ring as pending.
    pub(crate) fn read_kick(&mut self) {
        let mut count = [0; 8];
        if let Some(kick) = &mut self.kick
            && let Err(error) = kick.read_exact(&mut count)
            // Nothing to read: the kick came before a reset.
            && error.kind() != ErrorKind::WouldBlock
        {
            log::warn!("queue {}: cannot read the kick: {error}", self.index);
        }
        self.pending = true;
    }

    /// Moves the available chains to `requests`.
    pub(crate) fn take(&mut self, memory: &Memory, requests: &mut Vec<Chain>) {
        self.pending = false;
        if !self.is_running() || self.unusable {
            return;
        }
        if let Err(error) = self.pop_all(memory, requests) {
            self.mark_unusable(format_args!("{error}"));
        }
        chain::copy_in(memory, requests);
    }

    /// Marks the ring as unusable: it has an invalid index, and there is no chain by which to answer.
    pub(crate) fn mark_unusable(&mut self, why: fmt::Arguments<'_>) {
        log::error!("queue {}: unusable until the driver sets it up again: {why}", self.index);
        (self.unusable, self.failure_unreported) = (true, true);
    }

    /// Whether [`report_failure`](Self::report_failure) has something to report.
    pub(crate) fn has_failure(&self) -> bool {
        self.failure_unreported
    }

    /// Notifies the frontend of an unusable ring, so that the driver resets the device (virtio 1.3, 2.1.2;
    /// vhost-user, "VHOST_USER_SET_VRING_ERR"). All chains that were taken must have been returned.
    pub(crate) fn report_failure(&mut self) {
        if std::mem::take(&mut self.failure_unreported)
            && let Some(err) = &mut self.err
            && let Err(error) = err.write_all(&1_u64.to_ne_bytes())
        {
            log::warn!("queue {}: cannot report to the frontend that it is unusable: {error}", self.index);
        }
    }

    fn pop_all(&mut self, memory: &Memory, requests: &mut Vec<Chain>) -> Result<(), Error> {
        let mut bytes = 0;
        let mut looks_again = false;
        let _ = self.queue.disable_notification(memory.map());
        loop {
            let before = requests.len();
            while bytes < BATCH_BYTES
                && requests.len() < BATCH_CHAINS
                && let Some((head, interrupted)) = self.pop(memory)?
            {
                let mut chain = self.spare.pop().unwrap_or_default();
                let table = DescriptorTable {
                    address: GuestAddress(self.queue.desc_table()),
                    size: self.queue.size(),
                    may_be_indirect: self.indirect,
                };
                let id = ChainId { queue: self.index, head, interrupted };
                chain.collect(memory, table, id, self.limits.chain);
                bytes += chain.request().len() + chain.room();
                requests.push(chain);
            }
            // The rest waits for the next turn, so that the frontend's messages are handled between the two.
            if requests.len() >= BATCH_CHAINS || bytes >= BATCH_BYTES {
                self.pending = true;
                return Ok(());
            }
            // The index moved and is back: it overlaps the used ring, which the device writes, and would move
            // for ever.
            if looks_again && requests.len() == before {
                return Err(Error::InvalidAvailRingIndex);
            }
            if self.polled || !self.queue.enable_notification(memory.map())? {
                return Ok(());
            }
            looks_again = true;
            let _ = self.queue.disable_notification(memory.map());
        }
    }

    /// Takes the next chain and marks it in the record; also returns whether a former daemon had taken it.
    fn pop(&mut self, memory: &Memory) -> Result<Option<(u16, bool)>, Error> {
        if let Some(head) = self.interrupted.pop() {
            return Ok(Some((head, true)));
        }
        let next = self.queue.iter(memory.map())?.next();
        let Some(head) = next.map(|chain| chain.head_index()) else { return Ok(None) };
        // virtio 1.3, 2.7.13.2: an entry is an index into the descriptor table. No used entry could name this
        // one.
        if head >= self.queue.size() {
            return Err(Error::InvalidDescriptorIndex);
        }
        if let Some(record) = &mut self.record {
            record.mark(head);
        }
        Ok(Some((head, false)))
    }

    /// Returns finished chains to the driver, in their order, and notifies it if it wants that. Leaves
    /// `finished` empty. Chains that were taken before the ring became unusable are returned as well.
    pub(crate) fn complete(&mut self, memory: &Memory, finished: &mut Vec<Chain>) {
        if finished.is_empty() || !self.queue.ready() {
            finished.clear();
            return;
        }
        chain::copy_out(memory, finished);
        for mut chain in finished.drain(..) {
            self.return_chain(memory, &chain);
            chain.shrink();
            self.spare.push(chain);
        }
        if self.wants_notification(memory) {
            self.notify();
        }
    }

    fn return_chain(&mut self, memory: &Memory, chain: &Chain) {
        let head = chain.head();
        if let Some(record) = &self.record {
            record.begin_return(head);
        }
        match (self.queue.add_used(memory.map(), head, chain.used_length()), &self.record) {
            (Ok(()), Some(record)) => record.end_return(head, self.queue.next_used()),
            (Ok(()), None) => {}
            (Err(error), _) => {
                log::debug!("queue {}: chain {head} cannot be returned: {error}", self.index);
            }
        }
    }

    fn wants_notification(&mut self, memory: &Memory) -> bool {
        if !self.queue.event_idx_enabled() {
            // virtio 1.3, 2.7.7.2: virtio-queue leaves this flag to its user. The driver clears it and then
            // reads the used index, so the index must be visible before the flag is read, which takes a full
            // fence.
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
