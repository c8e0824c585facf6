// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory in which a backend records which requests it has taken, and which outlives it (vhost-user
//! specification, "Inflight I/O tracking").
//!
//! A backend says how large it has to be; the memory is the shim's, and each backend of the device gets the
//! same. What is in it is a matter between one backend and the next: the shim only empties it when the
//! driver begins anew, since then nothing is in flight; and that of one queue when the driver begins that
//! queue anew (virtio 1.3, 2.6.1). That is done before the start is kept, and the start after it: nobody
//! knows how far a worker came with a start that died of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

/// The most that a backend can ask for. The largest record of the specification, for eleven queues of 1024
/// entries, has 177 KiB.
pub const MAX_SIZE: u64 = 1 << 20;

/// Bytes of the part of a queue, without its descriptors, and of each of these (the specification's
/// `QueueRegionSplit`).
const HEADER: u64 = 16;
const ENTRY: u64 = 16;
/// The parts begin at multiples of this.
const ALIGNMENT: u64 = 64;

/// The record of one device.
#[derive(Debug)]
pub struct Inflight {
    file: File,
    queue_size: u16,
}

impl Inflight {
    /// The record in `file`, which nobody else changes, for queues of up to `queue_size` entries.
    #[must_use]
    pub fn new(file: File, queue_size: u16) -> Self {
        Self { file, queue_size }
    }

    /// Makes it a record of `size` bytes, which it has to be already if there is anything in it that the
    /// driver has to do with.
    pub fn prepare(&self, size: u64, is_fresh: bool) -> io::Result<()> {
        let has = self.file.metadata()?.len();
        match has == size {
            true => Ok(()),
            false if is_fresh || has == 0 => self.file.set_len(size),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Forgets all that was in flight: the driver begins anew.
    pub fn clear(&self) -> io::Result<()> {
        // Not by cutting it to nothing: a backend that has it mapped would be killed by its next access.
        self.empty(0, self.file.metadata()?.len())
    }

    /// Forgets what was in flight of one queue, which no backend uses now.
    pub fn clear_queue(&self, queue: u16) -> io::Result<()> {
        let length = (HEADER + ENTRY * u64::from(self.queue_size)).next_multiple_of(ALIGNMENT);
        let start = length * u64::from(queue);
        // There is no record at all if the backend keeps none.
        let end = self.file.metadata()?.len().min(start + length);
        self.empty(start, end.saturating_sub(start))
    }

    fn empty(&self, start: u64, length: u64) -> io::Result<()> {
        self.file.write_all_at(&vec![0; usize::try_from(length).map_err(io::Error::other)?], start)
    }
}

#[cfg(test)]
impl Inflight {
    /// The file, for tests to look into.
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
    fn the_record_is_kept_for_the_next_backend_and_emptied_for_the_next_driver() {
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
        assert_eq!(byte, [7], "a start that died may have been begun");
        inflight.clear().unwrap();
        other.read_exact_at(&mut byte, 127).unwrap();
        assert_eq!((byte, other.metadata().unwrap().len()), ([0], 128));
    }

    #[test]
    fn one_queue_is_forgotten_and_no_other() {
        let file = tempfile::tempfile().unwrap();
        let other = file.try_clone().unwrap();
        let inflight = Inflight::new(file, 2);
        inflight.clear_queue(0).unwrap();
        assert_eq!(other.metadata().unwrap().len(), 0, "there is no record to be emptied");
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
