// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio console device: fills the driver's buffers with text, and takes the lines that the driver
//! writes.

use std::collections::VecDeque;
use std::io;

use crate::chain::{Chain, Limits};
use crate::device::{Device, Disconnect, Persistence, QueueLimits, QueueStart, QueueStop};
use crate::inflight::DeviceRecord;
use crate::watch::Watcher;

use super::lines::Lines;
use super::source::Source;
use super::spec::{self, RECEIVE_QUEUE};

/// Size of the rings. The device keeps a buffer for each entry of the receive queue.
const SIZE: u16 = 256;

/// Maximum length in bytes of a buffer that the driver fills. Linux writes up to 32 KiB at once.
const WRITE_MAX: usize = 32 * 1024;
/// Maximum length in bytes of a buffer that the driver provides.
const BUFFER_MAX: usize = 64 * 1024;
/// Maximum number of bytes that are written to a buffer, so that all buffers together have a bound.
const FILL_MAX: usize = 4096;

/// The limits of the queues, by index.
const QUEUES: [QueueLimits; spec::QUEUES] = [
    QueueLimits { size: SIZE, chain: Limits { request: 0, answer: BUFFER_MAX } },
    QueueLimits { size: SIZE, chain: Limits { request: WRITE_MAX, answer: 0 } },
];

/// The words of the device's part of the in-flight record: the halves of the source's position.
const RECORD_WORDS: usize = 2;

/// A console whose text comes from a source.
pub struct Console {
    source: Box<dyn Source>,
    /// Buffers of the driver that wait for text, the oldest first.
    buffers: VecDeque<Chain>,
    /// Text of the source that the driver does not have yet.
    text: Vec<u8>,
    lines: Lines,
    record: Option<DeviceRecord>,
    failure: Option<io::Error>,
}

impl Console {
    /// Creates a console for `source`.
    #[must_use]
    pub fn new(source: Box<dyn Source>) -> Self {
        Self {
            source,
            buffers: VecDeque::new(),
            text: Vec::new(),
            lines: Lines::default(),
            record: None,
            failure: None,
        }
    }

    /// Takes a buffer for text. One that has no room, or is more than the ring can have, is returned empty. A
    /// buffer that a former daemon kept is like a new one: nothing was done for it.
    fn take_buffer(&mut self, chain: Chain, finished: &mut Vec<Chain>) {
        if chain.room() == 0 || self.buffers.len() >= SIZE.into() {
            log::debug!("a receive buffer is returned: it has no room, or too many wait");
            return finished.push(chain);
        }
        self.buffers.push_back(chain);
    }

    /// Takes text of the driver. A request that a former daemon took is not repeated.
    fn take_text(&mut self, chain: &Chain) {
        if chain.is_interrupted() {
            return;
        }
        let Self { lines, source, failure, .. } = self;
        lines.push(chain.request(), |line| {
            if let Err(error) = source.request(line) {
                failure.get_or_insert(error);
            }
        });
    }

    /// Fills buffers while there are both text and buffers.
    fn deliver(&mut self, finished: &mut Vec<Chain>) {
        while let Some(mut buffer) = self.buffers.pop_front() {
            let length = self.read(buffer.room().min(FILL_MAX));
            if length == 0 {
                self.buffers.push_front(buffer);
                break;
            }
            buffer.set_answer(self.text.get(..length).unwrap_or_default());
            self.text.drain(..length);
            finished.push(buffer);
        }
        self.record_position();
        self.wait_for_text();
    }

    /// Reads the source until `wanted` bytes of text are there or there is no more. Returns how many of them
    /// are there.
    fn read(&mut self, wanted: usize) -> usize {
        while self.text.len() < wanted && self.failure.is_none() {
            let before = self.text.len();
            self.failure = self.source.read(&mut self.text).err();
            if self.text.len() == before {
                break;
            }
        }
        wanted.min(self.text.len())
    }

    fn wait_for_text(&mut self) {
        if let Err(error) = self.source.set_awaited(!self.buffers.is_empty()) {
            self.failure.get_or_insert(error);
        }
    }

    /// Writes the source's position to the record. It may be after text that the driver does not have yet:
    /// that is lost with the daemon, at most a piece of the source.
    fn record_position(&self) {
        if let (Some(record), Some(position)) = (&self.record, self.source.position()) {
            let [low, high] = halves(position);
            record.set_word(1, high);
            record.set_word(0, low);
        }
    }

    /// Drops what belongs to the driver.
    fn forget_driver(&mut self) {
        self.buffers.clear();
        self.text.clear();
        self.lines.clear();
        self.source.reset();
        self.wait_for_text();
    }
}

/// Returns the lower and the upper half.
fn halves(position: u64) -> [u32; RECORD_WORDS] {
    let half = |shift: u32| u32::try_from((position >> shift) & u64::from(u32::MAX)).unwrap_or(0);
    [half(0), half(32)]
}

impl Device for Console {
    fn queues(&self) -> &'static [QueueLimits] {
        &QUEUES
    }

    fn config(&self) -> &[u8] {
        &spec::CONFIG
    }

    fn process(&mut self, queue: usize, requests: &mut Vec<Chain>, finished: &mut Vec<Chain>) {
        for chain in requests.drain(..) {
            if queue == RECEIVE_QUEUE {
                self.take_buffer(chain, finished);
            } else {
                self.take_text(&chain);
                finished.push(chain);
            }
        }
        self.deliver(finished);
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.source.watch(watcher)
    }

    fn handle_event(&mut self, token: u32, finished: &mut Vec<Chain>) {
        if let Err(error) = self.source.handle_event(token) {
            self.failure.get_or_insert(error);
        }
        self.deliver(finished);
    }

    fn start(&mut self, queue: usize, start: QueueStart) {
        if queue == RECEIVE_QUEUE && start == QueueStart::NewDriver {
            self.forget_driver();
        }
    }

    /// Returns the buffers that wait. A driver that was paused queues them again.
    fn stop(&mut self, queue: usize, _stop: QueueStop, finished: &mut Vec<Chain>) {
        if queue == RECEIVE_QUEUE {
            finished.extend(self.buffers.drain(..));
            self.wait_for_text();
        }
    }

    fn reset(&mut self) {
        self.forget_driver();
    }

    fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    fn persistence(&mut self) -> Option<&mut dyn Persistence> {
        Some(self)
    }
}

impl Persistence for Console {
    fn record_bytes(&self) -> usize {
        RECORD_WORDS * DeviceRecord::WORD
    }

    fn restore(&mut self, record: DeviceRecord) {
        let position = u64::from(record.word(1)) << 32 | u64::from(record.word(0));
        if position > 0 {
            self.source.set_position(position);
        }
        self.record = Some(record);
    }

    fn keeps_hardware(&self) -> bool {
        false
    }

    fn disconnect(&mut self, _disconnect: Disconnect) {
        self.record = None;
        self.forget_driver();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
