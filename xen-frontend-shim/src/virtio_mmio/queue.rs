// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers of one queue (virtio 1.3, 4.2.2: QueueSize to QueueDevice), and the ring that they describe.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::memory::{AddressError, GuestAddress, GuestMemory, Ring};
use crate::virtio_mmio::registers::{Half, Part};

/// A queue as the driver has described it so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    size: u32,
    ready: bool,
    /// Whether the queue was stopped without a reset. Its position in the ring is lost, so it cannot start
    /// again before a reset of the queue or of the device (2.6.1).
    spent: bool,
    descriptors: GuestAddress,
    available: GuestAddress,
    used: GuestAddress,
}

/// Why a queue cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// Virtio 1.3, 2.7: a power of two, and at most QueueSizeMax (4.2.2.2).
    #[error("queue {0}: size {1} is not a power of two up to {2}")]
    Size(u16, u32, u16),
    /// An address is not valid.
    #[error("queue {0}: {1}")]
    Address(u16, AddressError),
}

impl Queue {
    /// Whether the driver has declared the queue ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the queue was stopped and not been reset since.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// Sets QueueReady.
    pub fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
    }

    /// Stops a queue that the device uses: QueueReady is cleared.
    pub fn spend(&mut self) {
        self.ready = false;
        self.spent = true;
    }

    /// Sets QueueSize, unless the queue is ready (4.2.2.2).
    pub fn set_size(&mut self, size: u32) {
        if !self.ready {
            self.size = size;
        }
    }

    /// Sets half of QueueDesc, QueueDriver or QueueDevice, unless the queue is ready (4.2.2.2).
    pub fn set_address(&mut self, part: Part, half: Half, value: u32) {
        if self.ready {
            return;
        }
        let address = match part {
            Part::Descriptors => &mut self.descriptors,
            Part::Available => &mut self.available,
            Part::Used => &mut self.used,
        };
        *address = match half {
            Half::Low => address.with_low(value),
            Half::High => address.with_high(value),
        };
    }

    /// The ring in `memory`, if size and addresses are valid. `index` is the number of the queue, `max` is
    /// QueueSizeMax.
    pub fn ring(&self, index: u16, max: u16, memory: &GuestMemory) -> Result<Ring, QueueError> {
        let size = u16::try_from(self.size).ok().filter(|size| size.is_power_of_two() && *size <= max);
        let size = size.ok_or(QueueError::Size(index, self.size, max))?;
        Ring::new(index, size, self.descriptors, self.available, self.used, memory)
            .map_err(|error| QueueError::Address(index, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(size: u32) -> Queue {
        let mut queue = Queue::default();
        queue.set_size(size);
        for (part, low) in [(Part::Descriptors, 0x8000), (Part::Available, 0x8400), (Part::Used, 0x9000)] {
            queue.set_address(part, Half::High, 1 << 31);
            queue.set_address(part, Half::Low, low);
        }
        queue
    }

    #[test]
    fn the_size_is_a_power_of_two_up_to_the_maximum() {
        for size in [1, 2, 64, 256] {
            assert!(queue(size).ring(0, 256, &GuestMemory::Granted).is_ok(), "{size}");
        }
        for size in [0, 3, 255, 512, 0x1_0000, 0x1_0040, u32::MAX] {
            assert_eq!(queue(size).ring(0, 256, &GuestMemory::Granted), Err(QueueError::Size(0, size, 256)));
        }
    }

    #[test]
    fn a_ready_queue_cannot_be_moved() {
        let mut queue = queue(64);
        queue.set_ready(true);
        let before = queue;
        queue.set_size(128);
        queue.set_address(Part::Used, Half::Low, 0);
        assert_eq!(queue, before);
    }

    #[test]
    fn an_address_that_is_no_grant_is_named() {
        let mut queue = queue(64);
        queue.set_address(Part::Used, Half::High, 0);
        let error = queue.ring(3, 256, &GuestMemory::Granted).expect_err("refused");
        assert!(error.to_string().starts_with("queue 3: address 0x9000 is not a grant"), "{error}");
    }
}
