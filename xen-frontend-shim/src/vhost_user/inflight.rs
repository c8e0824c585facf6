// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The record of requests in flight: memory in which a backend notes which requests it has taken (vhost-user
//! specification, "Inflight I/O tracking").
//!
//! A backend states the size. The memory belongs to the shim and outlives the backend: each backend of the
//! device gets it. Only backends read what is in it. The shim clears it when the driver starts the device,
//! and the part of a queue when the driver resets that queue (virtio 1.3, 2.6.1): nothing is in flight then.
//! The order is clear, persist the state of the transport, start: a worker that finds a started device
//! cannot tell how far the start has come.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

/// The most bytes that a backend may request. The largest record of the specification, for eleven queues of
/// 1024 entries, has 177 KiB.
pub const MAX_SIZE: u64 = 1 << 20;

/// Bytes of the part of a queue without its descriptors, and of each descriptor (`QueueRegionSplit` of the
/// specification).
const HEADER: u64 = 16;
const ENTRY: u64 = 16;
/// The alignment of the parts.
const ALIGNMENT: u64 = 64;

/// The record of one device.
#[derive(Debug)]
pub struct Inflight {
    file: File,
    queue_size: u16,
}

impl Inflight {
    /// The record in `file`, for queues of up to `queue_size` entries.
    #[must_use]
    pub fn new(file: File, queue_size: u16) -> Self {
        Self { file, queue_size }
    }

    /// Gives the record `size` bytes. A record that may hold requests of the driver must have that size
    /// already.
    ///
    /// # Errors
    /// `InvalidData` if it has another size and the start is not `is_fresh`.
    pub fn prepare(&self, size: u64, is_fresh: bool) -> io::Result<()> {
        let has = self.file.metadata()?.len();
        match has == size {
            true => Ok(()),
            false if is_fresh || has == 0 => self.file.set_len(size),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Clears the record of all queues.
    pub fn clear(&self) -> io::Result<()> {
        // It is not truncated: the next access of a backend that has it mapped would raise SIGBUS.
        self.zero(0, self.file.metadata()?.len())
    }

    /// Clears the record of one queue, which must not be in use.
    pub fn clear_queue(&self, queue: u16) -> io::Result<()> {
        let length = (HEADER + ENTRY * u64::from(self.queue_size)).next_multiple_of(ALIGNMENT);
        let start = length * u64::from(queue);
        // The file is empty if the backend keeps no record.
        let end = self.file.metadata()?.len().min(start + length);
        self.zero(start, end.saturating_sub(start))
    }

    fn zero(&self, start: u64, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.file.write_all_at(&vec![0; length], start)
    }
}

#[cfg(test)]
impl Inflight {
    /// The file, to read it in tests.
    pub(crate) fn try_clone(&self) -> File {
        self.file.try_clone().unwrap()
    }
}

impl AsRawFd for Inflight {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepare_keeps_the_content_and_clear_zeroes_it() {
        let file = tempfile::tempfile().unwrap();
        let other = file.try_clone().unwrap();
        let inflight = Inflight::new(file, 2);
        inflight.prepare(128, false).unwrap();
        other.write_all_at(&[7], 127).unwrap();
        inflight.prepare(128, false).unwrap();
        let mut byte = [0];
        other.read_exact_at(&mut byte, 127).unwrap();
        assert_eq!(byte, [7]);
        assert!(inflight.prepare(256, false).is_err());
        inflight.prepare(128, true).unwrap();
        other.read_exact_at(&mut byte, 127).unwrap();
        assert_eq!(byte, [7], "a backend may have served requests of a start that failed");
        inflight.clear().unwrap();
        other.read_exact_at(&mut byte, 127).unwrap();
        assert_eq!((byte, other.metadata().unwrap().len()), ([0], 128));
    }

    #[test]
    fn the_record_of_one_queue_is_cleared_and_no_other() {
        let file = tempfile::tempfile().unwrap();
        let other = file.try_clone().unwrap();
        let inflight = Inflight::new(file, 2);
        inflight.clear_queue(0).unwrap();
        assert_eq!(other.metadata().unwrap().len(), 0, "there is no record to clear");
        other.write_all_at(&[7; 150], 0).unwrap();
        for (queue, left) in
            [(1, (0..64).chain(128..150)), (2, (0..64).chain(0..0)), (3, (0..64).chain(0..0))]
        {
            inflight.clear_queue(queue).unwrap();
            let mut bytes = [0; 150];
            other.read_exact_at(&mut bytes, 0).unwrap();
            let marked = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at);
            assert!(marked.eq(left), "queue {queue}");
        }
    }
}
