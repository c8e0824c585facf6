// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio I2C device: groups of requests become transactions (virtio 1.3, 5.16.6).
//!
//! # Groups
//!
//! Requests that VIRTIO_I2C_FLAGS_FAIL_NEXT joins are one transaction, with a repeated start between its
//! messages; a request without the flag ends it. Requests that the flag does not join are never put into one
//! transaction, even if both are in the ring: the guest expects a stop condition between them.
//!
//! # A group is carried out as a whole, or not at all
//!
//! If any message of a group is malformed or goes to an address that the guest may not reach, none of the
//! group reaches the bus, and all of it is answered with VIRTIO_I2C_MSG_ERR: the guest asked for one
//! transaction, and half of it is a different one (a register pointer moves, and the read that it was for
//! does not follow). In terms of 5.16.6.4 the first request of the group is "the first failed request", and
//! the remaining ones fail with it. The same holds for a group of more messages than the bus can join.
//!
//! # Interrupted groups
//!
//! A request that a former daemon had taken when it died is answered with VIRTIO_I2C_MSG_ERR and not
//! repeated, since it may have been carried out. It counts as a malformed request of its group, so that the
//! rest of the group fails as well. If the daemon died after it had answered the head of a group and before
//! the tail came, the rings do not show that the group failed; therefore [`GroupRecord`] is written before
//! the answer.
//!
//! # Incomplete groups
//!
//! A driver makes the requests of a group available one by one, so that the ring may hold a part of it. The
//! device waits for the rest, up to [`GROUP_WAIT`]: when the ring is too small for a group, Linux's driver
//! kicks the part that fits and waits for its answer. The part becomes a transaction of its own then. If it
//! fails, the rest of the group fails too, as FAIL_NEXT demands.
//!
//! # Time on the bus
//!
//! Other guests wait while a transaction is on the bus, so its time is limited: a group that would take
//! longer than [`TRANSACTION_TIME_MAX`] fails. The device itself does not wait for the bus: a [`Transaction`]
//! is run as [`BlockingWork`].

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::bus::{Bus, Cause, Failure};
use super::group::{AllowedMessage, GroupRecord, GroupedRequest};
use super::policy::AllowList;
use super::request::{DATA, Direction};
use super::spec::F_ZERO_LENGTH_REQUEST;
use super::time::{Clock, STOP_WAIT, TRANSACTION_TIME_MAX};
use super::transaction::Transaction;
use super::turn::BusTurn;
use crate::chain::{Chain, Limits};
use crate::device::{
    BlockingWork, Device, Disconnect, MissingFeature, Persistence, QueueLimits, QueueStart, QueueStop,
    RING_SIZE,
};
use crate::inflight::DeviceRecord;
use crate::watch::Watcher;

/// Maximum time to wait for the rest of a group: far longer than a running driver needs, far shorter than a
/// guest's time-out.
const GROUP_WAIT: Duration = Duration::from_millis(10);

/// The limits of the queue. A message may have any length of 16 bits: one that is longer than
/// [`MESSAGE_BYTES_MAX`](super::group::MESSAGE_BYTES_MAX) is refused, and must be read for that, since the
/// driver takes a status that was not written for MSG_OK.
const QUEUES: [QueueLimits; 1] = [QueueLimits {
    size: RING_SIZE,
    chain: Limits { request: DATA + SIXTEEN_BITS, answer: SIXTEEN_BITS + 1 },
}];
const SIXTEEN_BITS: usize = u16::MAX as usize;

/// Tokens of the watched descriptors.
const TIMER: u32 = 0;
const FIRST_OF_BUS: u32 = 1;

/// A virtio I2C adapter on top of a bus.
pub struct I2c {
    transaction: Arc<Transaction>,
    /// Maximum number of messages of a transaction.
    messages_max: usize,
    clock: Clock,
    policy: AllowList,
    /// Whether a driver without VIRTIO_I2C_F_ZERO_LENGTH_REQUEST is refused.
    strict: bool,
    /// Whether the driver may send messages of length 0.
    may_be_empty: bool,
    /// Requests behind those on the bus.
    waiting: VecDeque<Chain>,
    /// The group on the bus.
    on_bus: Vec<GroupedRequest>,
    /// Whether that is the end of its group.
    is_group_end: bool,
    /// The group that is being collected.
    group: Vec<GroupedRequest>,
    /// A request of the present group failed, so the rest of it fails too.
    group_failed: bool,
    record: Option<GroupRecord>,
    timer: OwnedFd,
}

impl I2c {
    /// Creates a device that gives its guest the addresses of `bus` that `policy` allows, and uses the bus
    /// only in its `turn`.
    ///
    /// # Errors
    /// When the kernel has no timer left.
    pub fn new(bus: Box<dyn Bus>, policy: AllowList, turn: Option<BusTurn>) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let (messages_max, clock) = (bus.longest_transaction(), bus.clock());
        Ok(Self {
            transaction: Arc::new(Transaction::new(bus, turn)),
            messages_max,
            clock,
            policy,
            strict: true,
            may_be_empty: true,
            waiting: VecDeque::new(),
            on_bus: Vec::new(),
            is_group_end: false,
            group: Vec::new(),
            group_failed: false,
            record: None,
            timer,
        })
    }

    /// Sets whether a driver without VIRTIO_I2C_F_ZERO_LENGTH_REQUEST is refused (virtio 1.3, 5.16.6.4).
    /// That is the default. Otherwise only its messages of length 0 fail.
    #[must_use]
    pub fn strict(self, strict: bool) -> Self {
        Self { strict, ..self }
    }

    /// Adds a request to the group. Returns whether it ends the group.
    fn add_to_group(&mut self, chain: Chain) -> bool {
        let (request, fail_next) = GroupedRequest::new(chain, &self.policy, self.may_be_empty);
        // A request without a header may be in the middle of a group, so an open group stays open: rather
        // fail a request too many than carry out the tail of a transaction without its head.
        let is_open = self.group_failed || !self.group.is_empty();
        self.group.push(request);
        !fail_next.unwrap_or(is_open)
    }

    /// Whether the group is more than one transaction can be.
    fn exceeds_limits(&self) -> bool {
        let time = self.clock.time(self.group.iter().map(GroupedRequest::bytes));
        if time > TRANSACTION_TIME_MAX {
            log::warn!(
                "a transaction of {} messages fails: it would take the bus for {time:?} at {} Hz, and \
                 {TRANSACTION_TIME_MAX:?} is the maximum",
                self.group.len(),
                self.clock.hertz()
            );
        }
        self.group.len() > self.messages_max || time > TRANSACTION_TIME_MAX
    }

    fn set_group_failed(&mut self, failed: bool) {
        self.group_failed = failed;
        if let Some(record) = &self.record {
            record.set_failed(failed);
        }
    }

    /// Collects waiting requests to groups, until one is on the bus.
    fn form_groups(&mut self, finished: &mut Vec<Chain>) {
        let was_open = !self.group.is_empty();
        while self.transaction.is_idle()
            && let Some(chain) = self.waiting.pop_front()
        {
            let is_end = self.add_to_group(chain);
            let exceeds_limits = self.exceeds_limits();
            if is_end || exceeds_limits {
                self.group_failed |= exceeds_limits;
                self.finish_group(is_end, finished);
            }
        }
        match (was_open, self.group.is_empty()) {
            (_, false) => self.set_timer(Some(GROUP_WAIT)),
            (true, true) => self.set_timer(None),
            (false, true) => {}
        }
    }

    /// Puts the collected requests on the bus, or fails them. `is_end` tells whether the group is complete.
    fn finish_group(&mut self, is_end: bool, finished: &mut Vec<Chain>) {
        self.is_group_end = is_end;
        std::mem::swap(&mut self.group, &mut self.on_bus);
        if self.group_failed || !self.queue_transaction() {
            self.answer(0, finished);
        }
    }

    /// Queues the group as one transaction, unless one of its requests must not be carried out.
    fn queue_transaction(&self) -> bool {
        self.transaction.clear();
        for request in &self.on_bus {
            let Some(AllowedMessage { address, direction, length }) = request.message else { return false };
            match direction {
                Direction::Write => {
                    let data = request.chain.request().get(DATA..).unwrap_or_default();
                    self.transaction.add_write(address, data);
                }
                Direction::Read => self.transaction.add_read(address, length),
            }
        }
        self.transaction.queue();
        true
    }

    /// Answers the group on the bus after `result`, which is `None` if it is unknown.
    fn answer_result(&mut self, result: Option<Result<(), Failure>>, finished: &mut Vec<Chain>) {
        let count = self.on_bus.len();
        let done = match result {
            Some(Ok(())) => count,
            Some(Err(Failure { done, cause })) => {
                // A warning only for a fault of the bus: a guest can cause the others at will.
                let is_bus_fault = matches!(cause, Cause::Timeout | Cause::ArbitrationLost);
                let level = if is_bus_fault { log::Level::Warn } else { log::Level::Debug };
                log::log!(level, "a transaction of {count} messages failed after {done}: {cause}");
                done.min(count)
            }
            None => 0,
        };
        self.answer(done, finished);
    }

    /// Answers the group on the bus, `done` of whose messages were carried out.
    fn answer(&mut self, done: usize, finished: &mut Vec<Chain>) {
        self.set_group_failed(done < self.on_bus.len() && !self.is_group_end);
        for (index, mut request) in self.on_bus.drain(..).enumerate() {
            if index < done {
                self.transaction.bytes(index, |bytes| request.succeed(bytes));
            } else {
                request.fail();
            }
            finished.push(request.chain);
        }
    }

    fn set_timer(&self, wait: Option<Duration>) {
        let nanoseconds = wait.map_or(0, |wait| wait.subsec_nanos());
        let it_value = Timespec { tv_sec: 0, tv_nsec: nanoseconds.into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            log::error!("cannot set the timer for an incomplete group: {error}");
        }
    }
}

impl Device for I2c {
    fn queues(&self) -> &'static [QueueLimits] {
        &QUEUES
    }

    fn features(&self) -> u64 {
        1 << F_ZERO_LENGTH_REQUEST
    }

    fn accept_features(&mut self, features: u64) -> Result<(), MissingFeature> {
        self.may_be_empty = features & (1 << F_ZERO_LENGTH_REQUEST) != 0;
        if self.strict && !self.may_be_empty {
            return Err(MissingFeature {
                feature: "VIRTIO_I2C_F_ZERO_LENGTH_REQUEST",
                clause: "virtio 1.3, 5.16.6.4",
            });
        }
        Ok(())
    }

    fn process(&mut self, _queue: usize, requests: &mut Vec<Chain>, finished: &mut Vec<Chain>) {
        self.waiting.extend(requests.drain(..));
        self.form_groups(finished);
    }

    fn next_work(&mut self) -> Option<Arc<dyn BlockingWork>> {
        self.transaction.is_queued().then(|| Arc::clone(&self.transaction) as Arc<dyn BlockingWork>)
    }

    fn finish_work(&mut self, finished: &mut Vec<Chain>) {
        // After a reset the requests of the transaction are gone.
        if let Some(result) = self.transaction.take_result()
            && !self.on_bus.is_empty()
        {
            self.answer_result(Some(result), finished);
        }
        self.form_groups(finished);
    }

    fn deadline(&self) -> Option<Instant> {
        self.transaction.deadline()
    }

    fn handle_event(&mut self, token: u32, finished: &mut Vec<Chain>) {
        if token != TIMER {
            return self.transaction.with_bus(|bus| bus.handle_event(token));
        }
        // Nothing to read means that the group was completed after the timer had expired.
        let mut expirations = [0; 8];
        if read(&self.timer, &mut expirations).is_ok() && !self.group.is_empty() {
            self.finish_group(false, finished);
        }
    }

    fn start(&mut self, _queue: usize, start: QueueStart) {
        let failed = match (start, &self.record) {
            (QueueStart::NewDriver, _) => false,
            (QueueStart::AsRecorded, Some(record)) => record.has_failed(),
            (QueueStart::AsRecorded, None) | (QueueStart::SameDriver, _) => self.group_failed,
        };
        self.set_group_failed(failed);
    }

    /// Waits for the transaction on the bus, up to [`STOP_WAIT`], and fails all other requests, together with
    /// the rest of their group if the driver continues.
    fn stop(&mut self, _queue: usize, _stop: QueueStop, finished: &mut Vec<Chain>) {
        let result = self.transaction.cancel(STOP_WAIT);
        if !self.on_bus.is_empty() {
            if result.is_none() {
                log::debug!("a transaction is cancelled, because its queue stops");
            }
            self.answer_result(result, finished);
        }
        let mut is_end = false;
        while let Some(chain) = self.waiting.pop_front() {
            is_end = self.add_to_group(chain);
        }
        if !self.group.is_empty() {
            self.set_group_failed(!is_end);
        }
        finished.extend(self.group.drain(..).map(|mut request| {
            request.fail();
            request.chain
        }));
        self.set_timer(None);
    }

    fn reset(&mut self) {
        // A transaction on the bus ends there, before the next one.
        self.transaction.cancel(Duration::ZERO);
        self.waiting.clear();
        self.on_bus.clear();
        self.group.clear();
        self.set_group_failed(false);
        self.set_timer(None);
    }
    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        watcher.add(&self.timer, TIMER)?;
        self.transaction.with_bus(|bus| bus.watch(watcher, FIRST_OF_BUS))
    }

    fn persistence(&mut self) -> Option<&mut dyn Persistence> {
        Some(self)
    }
}

impl Persistence for I2c {
    fn record_bytes(&self) -> usize {
        GroupRecord::BYTES
    }

    fn restore(&mut self, record: DeviceRecord) {
        let record = GroupRecord::new(record);
        self.group_failed = record.has_failed();
        self.record = Some(record);
    }

    /// A transaction sets up no hardware that could stay.
    fn keeps_hardware(&self) -> bool {
        false
    }

    fn disconnect(&mut self, _disconnect: Disconnect) {
        self.record = None;
        self.reset();
    }
}
