// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sets up, starts and stops a ring.

use std::fmt;
use std::sync::atomic::Ordering;

use virtio_queue::{Error, Queue, QueueT};
use vm_memory::GuestAddress;

use super::Ring;
use crate::inflight::QueueRecord;
use crate::memory::Memory;

/// A setting that the frontend must send before it starts a ring.
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

impl Ring {
    /// Returns a setting that is missing before the ring can start.
    pub(crate) fn missing_setting(&self) -> Option<Setting> {
        self.missing.first().copied()
    }

    /// Records that a setting was accepted or refused.
    pub(crate) fn record_setting(&mut self, setting: Setting, accepted: bool) {
        self.missing.retain(|other| *other != setting);
        if !accepted {
            self.missing.push(setting);
        }
    }

    pub(crate) fn set_size(&mut self, size: u32) -> Result<(), Error> {
        let size = u16::try_from(size).map_err(|_| Error::InvalidSize)?;
        if self.queue.ready() {
            return Err(Error::InvalidSize);
        }
        self.queue.try_set_size(size)
    }

    /// Sets the addresses of the ring's three parts, and continues at the used ring's index: after a restart
    /// of the daemon that is where the former one stopped.
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

    /// Returns the addresses of the ring's parts, in the order of [`set_addresses`](Self::set_addresses).
    pub(crate) fn addresses(&self) -> [GuestAddress; 3] {
        [self.queue.desc_table(), self.queue.avail_ring(), self.queue.used_ring()].map(GuestAddress)
    }

    /// Whether the ring's three parts are in memory. Their sizes, with event indices: virtio 1.3, 2.7.
    fn is_mapped(&self, memory: &Memory) -> bool {
        let entries = u64::from(self.queue.size());
        let parts = [
            (self.queue.desc_table(), 16 * entries),
            (self.queue.avail_ring(), 6 + 2 * entries),
            (self.queue.used_ring(), 6 + 8 * entries),
        ];
        parts.into_iter().all(|(address, bytes)| memory.is_mapped(GuestAddress(address), bytes))
    }

    /// Checks a started ring against a new memory table.
    pub(crate) fn check_memory(&mut self, memory: &Memory) {
        if self.queue.ready() && !self.is_mapped(memory) {
            self.mark_unusable(format_args!("the frontend removed its memory while it was started"));
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

    /// Sets the in-flight record, which is used from the next start on.
    pub(crate) fn set_record(&mut self, record: Option<QueueRecord>) {
        self.record = record;
    }

    /// Drops what was in flight, also from the in-flight record.
    pub(crate) fn clear_record(&mut self) {
        self.interrupted.clear();
        if let Some(record) = &self.record {
            record.invalidate();
        }
    }

    /// Starts at the frontend's base, or where the in-flight record says that a former daemon ended.
    pub(crate) fn start(&mut self, memory: &Memory) -> Result<(), Error> {
        // The size may have changed since the addresses were checked.
        if !self.is_mapped(memory) {
            return Err(Error::FindMemoryRegion);
        }
        if !self.queue.ready() {
            self.recover_interrupted()?;
        }
        self.queue.set_ready(true);
        self.pending = true;
        Ok(())
    }

    /// Reads the chains in flight from the record, if there is one that was used before.
    fn recover_interrupted(&mut self) -> Result<(), Error> {
        let Some(record) = &mut self.record else { return Ok(()) };
        let size = self.queue.size();
        if record.entries() < size {
            return Err(Error::InvalidSize);
        }
        let used = self.queue.next_used();
        let Some(mut interrupted) = record.recover(used) else { return Ok(()) };
        // No driver of this ring can have made these available.
        interrupted.extract_if(.., |head| *head >= size).for_each(|head| record.clear_mark(head));
        let taken = u16::try_from(interrupted.len()).map_err(|_| Error::InvalidSize)?;
        self.queue.set_next_avail(used.wrapping_add(taken));
        if taken > 0 {
            log::info!("queue {}: a former daemon left {taken} chains in flight", self.index);
        }
        interrupted.reverse();
        self.interrupted = interrupted;
        Ok(())
    }

    /// Stops the ring and drops what was in flight.
    pub(crate) fn stop(&mut self) {
        self.queue.set_ready(false);
        // The crate's count for event indices is not part of the state that it restores: it must not reach
        // the next driver.
        if let Ok(queue) = Queue::try_from(self.queue.state()) {
            self.queue = queue;
        }
        self.pending = false;
        self.interrupted.clear();
    }
}
