// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The transaction that the device has queued for its bus.
//!
//! ```text
//!   Idle ── queue ──▶ Queued ── this guest's turn ──▶ OnBus ── transferred ──▶ Done ── take_result ──▶ Idle
//!    ▲                  │                               │
//!    └───── cancel ─────┘                               └─ cancel waits for it, for a limited time
//! ```
//!
//! [`BlockingWork::run`] carries it out in a thread that may block, while the device is free. Therefore the
//! bytes are copied here: the device may return the guest's chains at any time.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::bus::{Address, Bus, Data, Failure, INLINE_MESSAGES, Message};
use super::request::Direction;
use super::time::TRANSFER_LIMIT;
use super::turn::BusTurn;
use crate::device::BlockingWork;

/// Maximum size of a buffer that is kept for the next transaction.
const SPARE_BYTES: usize = 4096;

/// The phase of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Queued,
    OnBus { since: Instant },
    Done(Result<(), Failure>),
}

/// The bus, and space for one transaction.
pub(super) struct Transaction {
    phase: Mutex<Phase>,
    changed: Condvar,
    /// Locked from the change of the phase to `OnBus` until the transfer is done.
    content: Mutex<Content>,
    turn: Option<BusTurn>,
}

struct Content {
    bus: Box<dyn Bus>,
    parts: SmallVec<[Part; INLINE_MESSAGES]>,
    bytes: Vec<u8>,
}

/// A message. Its bytes follow those of the one before it.
struct Part {
    address: Address,
    direction: Direction,
    length: usize,
}

impl Transaction {
    pub(super) fn new(bus: Box<dyn Bus>, turn: Option<BusTurn>) -> Self {
        let content = Content { bus, parts: SmallVec::new(), bytes: Vec::new() };
        Self { phase: Mutex::new(Phase::Idle), changed: Condvar::new(), content: Mutex::new(content), turn }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` with the bus, between transactions.
    pub(super) fn with_bus<T>(&self, f: impl FnOnce(&mut dyn Bus) -> T) -> T {
        f(&mut *self.content().bus)
    }

    /// Whether there is no transaction.
    pub(super) fn is_idle(&self) -> bool {
        *self.phase() == Phase::Idle
    }

    /// Whether there is one that has not begun.
    pub(super) fn is_queued(&self) -> bool {
        *self.phase() == Phase::Queued
    }

    /// Returns when the transaction on the bus has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self.phase() {
            Phase::OnBus { since } => Some(since + TRANSFER_LIMIT),
            _ => None,
        }
    }

    /// Begins a transaction without messages. There must be none.
    pub(super) fn clear(&self) {
        let Content { parts, bytes, .. } = &mut *self.content();
        parts.clear();
        bytes.clear();
        if bytes.capacity() > SPARE_BYTES {
            *bytes = Vec::new();
        }
    }

    /// Adds a message that writes `data`.
    pub(super) fn add_write(&self, address: Address, data: &[u8]) {
        let Content { parts, bytes, .. } = &mut *self.content();
        parts.push(Part { address, direction: Direction::Write, length: data.len() });
        bytes.extend_from_slice(data);
    }

    /// Adds a message that reads `length` bytes.
    pub(super) fn add_read(&self, address: Address, length: usize) {
        let Content { parts, bytes, .. } = &mut *self.content();
        parts.push(Part { address, direction: Direction::Read, length });
        bytes.resize(bytes.len() + length, 0);
    }

    /// Queues the transaction.
    pub(super) fn queue(&self) {
        *self.phase() = Phase::Queued;
    }

    /// Takes the result of the transaction, if it is done.
    pub(super) fn take_result(&self) -> Option<Result<(), Failure>> {
        let mut phase = self.phase();
        let Phase::Done(result) = *phase else { return None };
        *phase = Phase::Idle;
        Some(result)
    }

    /// Calls `take` with the bytes of message `index` of a transaction that is done.
    pub(super) fn bytes(&self, index: usize, take: impl FnOnce(&[u8])) {
        let content = self.content();
        if let Some(bytes) = content.range(index).and_then(|range| content.bytes.get(range)) {
            take(bytes);
        }
    }

    /// Cancels a transaction that has not begun. Waits up to `limit` for one on the bus, and returns its
    /// result. A later result is discarded.
    pub(super) fn cancel(&self, limit: Duration) -> Option<Result<(), Failure>> {
        let mut phase = self.phase();
        if *phase == Phase::Queued {
            *phase = Phase::Idle;
            return None;
        }
        let is_on_bus = |phase: &mut Phase| matches!(phase, Phase::OnBus { .. });
        let waited = self.changed.wait_timeout_while(phase, limit, is_on_bus);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.take_result()
    }
}

impl BlockingWork for Transaction {
    fn run(&self) {
        // The transaction may be cancelled while other daemons of this guest have the turn.
        let _turn = self.turn.as_ref().map(BusTurn::lock);
        let mut content = self.content();
        {
            let mut phase = self.phase();
            if *phase != Phase::Queued {
                return;
            }
            *phase = Phase::OnBus { since: Instant::now() };
        }
        let result = content.transfer();
        drop(content);
        *self.phase() = Phase::Done(result);
        self.changed.notify_all();
    }
}

impl Content {
    fn transfer(&mut self) -> Result<(), Failure> {
        let Self { bus, parts, bytes } = self;
        let mut rest = bytes.as_mut_slice();
        let mut messages: SmallVec<[Message<'_>; INLINE_MESSAGES]> = SmallVec::new();
        for Part { address, direction, length } in parts.iter() {
            // Always succeeds: `bytes` has the sum of the lengths.
            let (bytes, others) = rest.split_at_mut_checked(*length).unwrap_or_default();
            rest = others;
            let data = match direction {
                Direction::Write => Data::Write(bytes),
                Direction::Read => Data::Read(bytes),
            };
            messages.push(Message { address: *address, data });
        }
        bus.transfer(&mut messages)
    }

    fn range(&self, index: usize) -> Option<Range<usize>> {
        let length = self.parts.get(index)?.length;
        let start = self.parts.iter().take(index).map(|part| part.length).sum();
        Some(start..start + length)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

    use super::super::time::Clock;
    use super::*;
    use crate::watch::Watcher;

    /// A bus that blocks until the test sends something.
    struct BlockedBus(Receiver<()>);

    impl Bus for BlockedBus {
        fn longest_transaction(&self) -> usize {
            42
        }
        fn clock(&self) -> Clock {
            Clock::STANDARD
        }
        fn transfer(&mut self, messages: &mut [Message<'_>]) -> Result<(), Failure> {
            self.0.recv().unwrap();
            for (message, value) in messages.iter_mut().zip(1..) {
                if let Data::Read(bytes) = &mut message.data {
                    bytes.fill(value);
                }
            }
            Ok(())
        }
        fn watch(&mut self, _: &Watcher, _: u32) -> io::Result<()> {
            Ok(())
        }
        fn handle_event(&mut self, _: u32) {}
    }

    fn queued(bus: BlockedBus, turn: Option<BusTurn>) -> Arc<Transaction> {
        let transaction = Transaction::new(Box::new(bus), turn);
        transaction.clear();
        let address = Address::SevenBit(0x50);
        transaction.add_write(address, &[0x10]);
        transaction.add_read(address, 2);
        transaction.queue();
        Arc::new(transaction)
    }

    fn run(transaction: &Arc<Transaction>) -> thread::JoinHandle<()> {
        let transaction = Arc::clone(transaction);
        thread::spawn(move || transaction.run())
    }

    #[test]
    fn the_bytes_are_there_after_the_transfer() {
        let (unblock, wait) = channel();
        let transaction = queued(BlockedBus(wait), None);
        unblock.send(()).unwrap();
        assert!(transaction.is_queued() && transaction.deadline().is_none());
        run(&transaction).join().unwrap();
        assert_eq!(transaction.take_result(), Some(Ok(())));
        transaction.bytes(1, |bytes| assert_eq!(bytes, [2, 2]));
        assert!(transaction.is_idle());
    }

    #[test]
    fn cancel_waits_for_a_transaction_on_the_bus_up_to_its_limit() {
        let (unblock, wait) = channel();
        let transaction = queued(BlockedBus(wait), None);
        let before = Instant::now();
        let running = run(&transaction);
        while transaction.is_queued() {
            thread::yield_now();
        }
        assert!(transaction.deadline().unwrap() >= before + TRANSFER_LIMIT);
        assert_eq!(transaction.cancel(Duration::from_millis(10)), None);
        assert!(!transaction.is_idle(), "the bus is not free yet");
        unblock.send(()).unwrap();
        assert_eq!(transaction.cancel(Duration::MAX), Some(Ok(())));
        running.join().unwrap();
        assert!(transaction.is_idle());
    }

    /// Other daemons of the same guest may have the turn: a driver that stops its queue does not wait for
    /// them.
    #[test]
    fn a_transaction_that_waits_for_its_turn_is_cancelled_at_once() {
        let root = tempfile::tempdir().unwrap();
        let open = || BusTurn::open(root.path(), "i2c-0").unwrap();
        let (other, (_unblock, wait)) = (open(), channel());
        let guard = other.lock();
        let transaction = queued(BlockedBus(wait), Some(open()));
        let running = run(&transaction);
        assert_eq!(transaction.cancel(Duration::MAX), None);
        drop(guard);
        // Would block if the bus were used.
        running.join().unwrap();
        assert!(transaction.is_idle());
    }
}
