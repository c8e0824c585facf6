// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The transaction that the device has given to its bus.
//!
//! ```text
//!   Idle ── give ──▶ Waits ── it is this guest's turn ──▶ OnBus ── the bus is done ──▶ Done ── result ──▶ Idle
//!    ▲                 │                                    │
//!    └───── end ───────┘                                    └─ end waits for it, though not for ever
//! ```
//!
//! A thread that may be kept waiting carries it out ([`Work::run`]), and the device stays free meanwhile. So
//! the bytes are here, and not in the guest's chains, which the device can give back at any time.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::bus::{Address, Bus, Data, FEW, Failure, Message};
use super::request::Direction;
use super::time::GIVEN_UP;
use super::turn::Turn;
use crate::device::Work;

/// A buffer that is no longer than this is kept for the next transaction.
const SPARE_BYTES: usize = 4096;

/// How far the transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Waits,
    OnBus { since: Instant },
    Done(Result<(), Failure>),
}

/// The bus, and room for one transaction.
pub(super) struct Transaction {
    phase: Mutex<Phase>,
    changed: Condvar,
    /// Whoever changes the phase from or to `OnBus` has it in between.
    content: Mutex<Content>,
    turn: Option<Turn>,
}

struct Content {
    bus: Box<dyn Bus>,
    parts: SmallVec<[Part; FEW]>,
    bytes: Vec<u8>,
}

/// A message, whose bytes follow those of the one before it.
struct Part {
    address: Address,
    direction: Direction,
    length: usize,
}

impl Transaction {
    pub(super) fn new(bus: Box<dyn Bus>, turn: Option<Turn>) -> Self {
        let content = Content { bus, parts: SmallVec::new(), bytes: Vec::new() };
        Self { phase: Mutex::new(Phase::Idle), changed: Condvar::new(), content: Mutex::new(content), turn }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the bus, between transactions.
    pub(super) fn with_bus<T>(&self, what: impl FnOnce(&mut dyn Bus) -> T) -> T {
        what(&mut *self.content().bus)
    }

    /// Whether there is none.
    pub(super) fn is_idle(&self) -> bool {
        *self.phase() == Phase::Idle
    }

    /// Whether there is one that nobody has taken up.
    pub(super) fn waits(&self) -> bool {
        *self.phase() == Phase::Waits
    }

    /// When one that is on the bus is to be given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self.phase() {
            Phase::OnBus { since } => Some(since + GIVEN_UP),
            _ => None,
        }
    }

    /// Begins a transaction, to which [`Self::add`] adds messages. There must be none.
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

    /// From now on the transaction waits to be carried out.
    pub(super) fn submit(&self) {
        *self.phase() = Phase::Waits;
    }

    /// What has become of it, if it is over. Then there is none.
    pub(super) fn result(&self) -> Option<Result<(), Failure>> {
        let mut phase = self.phase();
        let Phase::Done(result) = *phase else { return None };
        *phase = Phase::Idle;
        Some(result)
    }

    /// Hands the bytes of message `index` to `take`, once the transaction is over.
    pub(super) fn bytes(&self, index: usize, take: impl FnOnce(&[u8])) {
        let content = self.content();
        if let Some(bytes) = content.range(index).and_then(|range| content.bytes.get(range)) {
            take(bytes);
        }
    }

    /// Ends it: if it has not begun it never will; if it is on the bus it has `patience` to come to its end.
    /// What it comes to later is nobody's then.
    pub(super) fn end(&self, patience: Duration) -> Option<Result<(), Failure>> {
        let mut phase = self.phase();
        if *phase == Phase::Waits {
            *phase = Phase::Idle;
            return None;
        }
        let is_on_bus = |phase: &mut Phase| matches!(phase, Phase::OnBus { .. });
        let waited = self.changed.wait_timeout_while(phase, patience, is_on_bus);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.result()
    }
}

impl Work for Transaction {
    fn run(&self) {
        // Others of this guest may have the turn, and it may be given up meanwhile.
        let _turn = self.turn.as_ref().map(Turn::wait);
        let mut content = self.content();
        {
            let mut phase = self.phase();
            if *phase != Phase::Waits {
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
        let mut messages: SmallVec<[Message<'_>; FEW]> = SmallVec::new();
        for Part { address, direction, length } in parts.iter() {
            // The lengths are those of what was added.
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

    /// A bus that is somebody else's until it is told to go on.
    struct Taken(Receiver<()>);

    impl Bus for Taken {
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
        fn event(&mut self, _: u32) {}
    }

    fn submitted(bus: Taken, turn: Option<Turn>) -> Arc<Transaction> {
        let transaction = Transaction::new(Box::new(bus), turn);
        transaction.clear();
        let address = Address::SevenBit(0x50);
        transaction.add_write(address, &[0x10]);
        transaction.add_read(address, 2);
        transaction.submit();
        Arc::new(transaction)
    }

    fn run(transaction: &Arc<Transaction>) -> thread::JoinHandle<()> {
        let transaction = Arc::clone(transaction);
        thread::spawn(move || transaction.run())
    }

    #[test]
    fn its_bytes_are_there_when_it_is_over() {
        let (go_on, wait) = channel();
        let transaction = submitted(Taken(wait), None);
        go_on.send(()).unwrap();
        assert!(transaction.waits() && transaction.deadline().is_none());
        run(&transaction).join().unwrap();
        assert_eq!(transaction.result(), Some(Ok(())));
        transaction.bytes(1, |bytes| assert_eq!(bytes, [2, 2]));
        assert!(transaction.is_idle());
    }

    /// A time-out of the kernel's adapter, or other guests, may be the reason; up to a time.
    #[test]
    fn one_that_is_on_the_bus_is_given_some_patience_and_some_time() {
        let (go_on, wait) = channel();
        let transaction = submitted(Taken(wait), None);
        let before = Instant::now();
        let running = run(&transaction);
        while transaction.waits() {
            thread::yield_now();
        }
        assert!(transaction.deadline().unwrap() >= before + GIVEN_UP);
        assert_eq!(transaction.end(Duration::from_millis(10)), None);
        assert!(!transaction.is_idle(), "the bus is not free yet");
        go_on.send(()).unwrap();
        assert_eq!(transaction.end(Duration::MAX), Some(Ok(())));
        running.join().unwrap();
        assert!(transaction.is_idle());
    }

    /// Ten others of the same guest may come first: a driver that stops its queue does not wait for them.
    #[test]
    fn one_that_waits_for_its_turn_can_be_given_up() {
        let root = tempfile::tempdir().unwrap();
        let open = || Turn::open(root.path(), "i2c-0").unwrap();
        let (other, (_go_on, wait)) = (open(), channel());
        let others = other.wait();
        let transaction = submitted(Taken(wait), Some(open()));
        let running = run(&transaction);
        assert_eq!(transaction.end(Duration::MAX), None);
        drop(others);
        // The bus would wait for a word that does not come.
        running.join().unwrap();
        assert!(transaction.is_idle());
    }
}
