// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The I2C adapter device: groups of requests become transactions (virtio 1.3, 5.16.6).
//!
//! # What is one transaction
//!
//! Requests that VIRTIO_I2C_FLAGS_FAIL_NEXT joins are one transaction, with a repeated start between its messages;
//! a request without the flag ends it. Two requests that the flag does not join are never put into one, even if
//! both are in the ring: between them the guest expects a stop condition.
//!
//! # A group is carried out as a whole, or not at all
//!
//! If any message of a group is bad or goes to an address that the guest may not reach, none of the group reaches
//! the bus, and all of it is answered with VIRTIO_I2C_MSG_ERR: what the guest asked for is one transaction, and half
//! of one is something else (a register pointer moved, without the read that it was for). In the words of 5.16.6.4 the
//! first of the group is then "the first failed request", and the remaining fail with it. The same holds for a
//! group of more messages than the bus can join.
//!
//! # A group that was interrupted
//!
//! A request that a former daemon had in hand when it died is answered with VIRTIO_I2C_MSG_ERR and not tried again,
//! though it may have been carried out: it is in the group like one that cannot be carried out, so that what comes of
//! its group later fails as well. Where the daemon died after it had answered the head of a group, and before the tail came,
//! nothing in the rings tells that the group failed: so that is written down ([`Record`]), before the answer is.
//!
//! # A group whose end does not come
//!
//! A driver makes the requests of a group available one by one, so that a look at the ring can find a part of it. The
//! device waits for the rest, but not for ever: Linux's driver kicks what it has, and waits for that, when the ring is too
//! small for all of a group. After [`GROUP_WAIT`] what is there is a transaction of its own. If it
//! fails, what may come of the group later fails too, as FAIL_NEXT says.
//!
//! # The bus is for all
//!
//! Other guests wait while a transaction is on the bus, so that its time there has a bound:
//! [`LONGEST`](super::time). A group that would take longer fails. The device does not wait for the bus: a
//! [`Transaction`] is carried out beside it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::bus::{Address, Bus, Cause, Failure};
use super::policy::AllowList;
use super::request::{DATA, Direction, parse};
use super::spec::{F_ZERO_LENGTH_REQUEST, MSG_ERR, MSG_OK};
use super::time::{Clock, LONGEST, PATIENCE};
use super::transaction::Transaction;
use super::turn::Turn;
use crate::chain::{Chain, Limits};
use crate::device::{Device, Left, QueueLimits, RING_SIZE, Refused, Start, Stop, Work};
use crate::inflight::Tail;
use crate::watch::Watcher;

/// How long the rest of a group may take to come: far longer than a driver needs that is not interrupted, far
/// shorter than a guest's time-out.
const GROUP_WAIT: Duration = Duration::from_millis(10);

/// The longest message that Linux takes (`i2c-dev`).
const MESSAGE_BYTES: usize = 8192;

/// A guest's kernel sends messages of any length that has 16 bits. One that is too long is refused, and has to be read for that:
/// a driver takes a status that was not written for MSG_OK.
const QUEUES: [QueueLimits; 1] = [QueueLimits {
    size: RING_SIZE,
    chain: Limits { request: DATA + SIXTEEN_BITS, answer: SIXTEEN_BITS + 1 },
}];
const SIXTEEN_BITS: usize = u16::MAX as usize;

const TIMER: u32 = 0;
const FIRST_OF_BUS: u32 = 1;

/// Where the failure of the present group is written down for a daemon that takes over: in the only word.
///
/// It may be older than the used ring by the answers of one batch. Their requests are in flight then, fail as such, and end the
/// group that the word speaks of where they ended it before.
struct Record(Tail);

impl Record {
    const BYTES: usize = Tail::WORD;

    fn is_failing(&self) -> bool {
        let Self(tail) = self;
        tail.word(0) != 0
    }

    fn set_failing(&self, failing: bool) {
        let Self(tail) = self;
        tail.set_word(0, failing.into());
    }
}

/// A virtio I2C adapter on top of a bus.
pub struct I2c {
    transaction: Arc<Transaction>,
    /// How many messages the bus can join.
    longest: usize,
    clock: Clock,
    policy: AllowList,
    /// Requests that come after what is on the bus.
    waiting: VecDeque<Chain>,
    /// The group that is on the bus.
    under_way: Vec<Member>,
    /// Whether that is all of its group.
    ended: bool,
    /// The group that is being collected.
    group: Vec<Member>,
    /// A part of the present group failed: the rest fails too, up to the end of the group.
    failing: bool,
    record: Option<Record>,
    timer: OwnedFd,
}

/// A request in its group.
struct Member {
    chain: Chain,
    /// What the guest asked for, if that is a message, and allowed.
    message: Option<Allowed>,
}

#[derive(Clone, Copy)]
struct Allowed {
    address: Address,
    direction: Direction,
    length: usize,
}

impl I2c {
    /// A device that gives its guest those addresses of `bus` that `policy` allows, and uses the bus in its
    /// `turn`.
    ///
    /// # Errors
    /// When the kernel has no timer left.
    pub fn new(bus: Box<dyn Bus>, policy: AllowList, turn: Option<Turn>) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let (longest, clock) = (bus.longest_transaction(), bus.clock());
        Ok(Self {
            transaction: Arc::new(Transaction::new(bus, turn)),
            longest,
            clock,
            policy,
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            ended: false,
            group: Vec::new(),
            failing: false,
            record: None,
            timer,
        })
    }

    /// Adds a request to the group, and says whether that ends the group.
    fn admit(&mut self, chain: Chain) -> bool {
        let parsed = parse(chain.request(), chain.room());
        let message = match parsed.request {
            // It may have been on the bus already: what is written twice is not what the guest asked for.
            _ if chain.was_interrupted() => None,
            Ok(request) if request.length > MESSAGE_BYTES => {
                log::debug!("a message of {} bytes is longer than any that can be sent", request.length);
                None
            }
            Ok(request) => {
                let address = self.policy.authorise(request.address);
                if address.is_none() {
                    log::debug!("the guest may not reach {:?}", request.address);
                }
                let (direction, length) = (request.direction, request.length);
                address.map(|address| Allowed { address, direction, length })
            }
            Err(bad) => {
                log::debug!("not an I2C request: {bad}");
                None
            }
        };
        // A request that cannot be read may be in the middle of a group. If one is open, that stays open: rather
        // fail a request too many than carry out the tail of a transaction that lost its head.
        let open = self.failing || !self.group.is_empty();
        let goes_on = parsed.fail_next.unwrap_or(open);
        self.group.push(Member { chain, message });
        !goes_on
    }

    /// Whether the group is more than one transaction can be.
    fn is_too_much(&self) -> bool {
        let time = self.clock.time(self.group.iter().map(Member::bytes));
        if time > LONGEST {
            log::warn!(
                "a transaction of {} messages would have the bus for {time:?} at {} Hz, and others wait for it: the \
                 request fails, since {LONGEST:?} is the longest",
                self.group.len(),
                self.clock.hertz()
            );
        }
        self.group.len() > self.longest || time > LONGEST
    }

    fn set_failing(&mut self, failing: bool) {
        self.failing = failing;
        if let Some(record) = &self.record {
            record.set_failing(failing);
        }
    }

    /// Collects groups of what waits, until there is one for the bus.
    fn advance(&mut self, finished: &mut Vec<Chain>) {
        let waited = !self.group.is_empty();
        while self.transaction.is_idle()
            && let Some(chain) = self.waiting.pop_front()
        {
            let ended = self.admit(chain);
            let too_much = self.is_too_much();
            if ended || too_much {
                self.failing |= too_much;
                self.conclude(ended, finished);
            }
        }
        match (waited, self.group.is_empty()) {
            (_, false) => self.set_timer(Some(GROUP_WAIT)),
            (true, true) => self.set_timer(None),
            (false, true) => {}
        }
    }

    /// Gives what was collected of a group to the bus, or fails it. `ended` says whether that is all of it.
    fn conclude(&mut self, ended: bool, finished: &mut Vec<Chain>) {
        self.ended = ended;
        std::mem::swap(&mut self.group, &mut self.under_way);
        if self.failing || !self.submit() {
            self.answer(0, finished);
        }
    }

    /// Makes one transaction of the group, unless one of its requests must not be carried out.
    fn submit(&self) -> bool {
        self.transaction.clear();
        for member in &self.under_way {
            let Some(Allowed { address, direction, length }) = member.message else { return false };
            match direction {
                Direction::Write => {
                    self.transaction
                        .add_write(address, member.chain.request().get(DATA..).unwrap_or_default());
                }
                Direction::Read => self.transaction.add_read(address, length),
            }
        }
        self.transaction.submit();
        true
    }

    /// Answers the group that was on the bus by what has become of it: nothing, if that is not known.
    fn settle(&mut self, result: Option<Result<(), Failure>>, finished: &mut Vec<Chain>) {
        let count = self.under_way.len();
        let done = match result {
            Some(Ok(())) => count,
            Some(Err(Failure { done, cause })) => {
                // The operator hears of a bus in trouble, not of everything that a guest tries.
                let trouble = matches!(cause, Cause::Timeout | Cause::ArbitrationLost);
                let level = if trouble { log::Level::Warn } else { log::Level::Debug };
                log::log!(level, "a transaction of {count} messages failed after {done}: {cause}");
                done.min(count)
            }
            None => 0,
        };
        self.answer(done, finished);
    }

    /// Gives the group back that was on the bus, or was to be: `done` of its messages were carried out.
    fn answer(&mut self, done: usize, finished: &mut Vec<Chain>) {
        self.set_failing(done < self.under_way.len() && !self.ended);
        for (index, mut member) in self.under_way.drain(..).enumerate() {
            if index < done {
                self.transaction.bytes(index, |bytes| member.succeed(bytes));
            } else {
                member.fail();
            }
            finished.push(member.chain);
        }
    }

    fn set_timer(&self, wait: Option<Duration>) {
        let nanoseconds = wait.map_or(0, |wait| wait.subsec_nanos());
        let it_value = Timespec { tv_sec: 0, tv_nsec: nanoseconds.into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            log::error!("cannot set the timer for an unfinished group: {error}");
        }
    }
}

impl Member {
    /// How many bytes of it are neither header nor status.
    fn bytes(&self) -> usize {
        (self.chain.request().len() + self.chain.room()).saturating_sub(DATA + 1)
    }

    /// Answers that it was carried out, with what was read.
    fn succeed(&mut self, bytes: &[u8]) {
        if let Some(Allowed { direction: Direction::Read, .. }) = self.message {
            self.chain.set_answer(bytes);
        }
        self.set_status(MSG_OK);
    }

    /// Answers that it was not carried out, with zeros in place of what was to be read.
    fn fail(&mut self) {
        self.chain.set_answer(&[]);
        self.set_status(MSG_ERR);
    }

    /// The status is the last byte that there is room for.
    fn set_status(&mut self, value: u8) {
        let room = self.chain.room();
        if let (_, [.., status]) = self.chain.parts(room) {
            *status = value;
            self.chain.on_failure(room - 1, MSG_ERR);
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

    fn accept_features(&mut self, features: u64) -> Result<(), Refused> {
        if features & (1 << F_ZERO_LENGTH_REQUEST) == 0 {
            return Err(Refused {
                missing: "VIRTIO_I2C_F_ZERO_LENGTH_REQUEST",
                clause: "virtio 1.3, 5.16.6.4",
            });
        }
        Ok(())
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn process(&mut self, _queue: usize, requests: &mut Vec<Chain>, finished: &mut Vec<Chain>) {
        self.waiting.extend(requests.drain(..));
        self.advance(finished);
    }

    fn work(&mut self) -> Option<Arc<dyn Work>> {
        self.transaction.waits().then(|| Arc::clone(&self.transaction) as Arc<dyn Work>)
    }

    fn worked(&mut self, finished: &mut Vec<Chain>) {
        // Those for whom it was on the bus may be gone.
        if let Some(result) = self.transaction.result()
            && !self.under_way.is_empty()
        {
            self.settle(Some(result), finished);
        }
        self.advance(finished);
    }

    fn deadline(&self) -> Option<Instant> {
        self.transaction.deadline()
    }

    fn event(&mut self, token: u32, finished: &mut Vec<Chain>) {
        if token != TIMER {
            return self.transaction.with_bus(|bus| bus.event(token));
        }
        // Nothing to read means that the group was completed at the last moment.
        let mut expirations = [0; 8];
        if read(&self.timer, &mut expirations).is_ok() && !self.group.is_empty() {
            self.conclude(false, finished);
        }
    }

    fn start(&mut self, _queue: usize, start: Start) {
        let failing = match (start, &self.record) {
            (Start::Anew, _) => false,
            (Start::AsRecorded, Some(record)) => record.is_failing(),
            (Start::AsRecorded, None) | (Start::Again, _) => self.failing,
        };
        self.set_failing(failing);
    }

    /// What has not begun fails, and so does what comes of its group if the driver goes on. What is on the bus may be done,
    /// and what became of it is worth waiting for.
    fn stop(&mut self, _queue: usize, _meaning: Stop, finished: &mut Vec<Chain>) {
        let result = self.transaction.end(PATIENCE);
        if !self.under_way.is_empty() {
            if result.is_none() {
                log::debug!("a transaction is given up, since its queue is stopped");
            }
            self.settle(result, finished);
        }
        let mut ended = false;
        while let Some(chain) = self.waiting.pop_front() {
            ended = self.admit(chain);
        }
        if !self.group.is_empty() {
            self.set_failing(!ended);
        }
        finished.extend(self.group.drain(..).map(|mut member| {
            member.fail();
            member.chain
        }));
        self.set_timer(None);
    }

    fn reset(&mut self) {
        let Self {
            transaction,
            longest: _,
            clock: _,
            policy: _,
            waiting,
            under_way,
            ended: _,
            group,
            failing: _,
            record: _,
            timer: _,
        } = self;
        // One that is on the bus comes to its end there, before the next one.
        transaction.end(Duration::ZERO);
        waiting.clear();
        under_way.clear();
        group.clear();
        self.set_failing(false);
        self.set_timer(None);
    }

    fn record_bytes(&self) -> usize {
        Record::BYTES
    }

    fn take_over(&mut self, tail: Tail) {
        let record = Record(tail);
        self.failing = record.is_failing();
        self.record = Some(record);
    }

    fn survives(&self) -> bool {
        false
    }

    fn leave(&mut self, _left: Left) {
        self.record = None;
        self.reset();
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        watcher.add(&self.timer, TIMER)?;
        self.transaction.with_bus(|bus| bus.watch(watcher, FIRST_OF_BUS))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::i2c::bus::{Data, Message};
    use crate::inflight;

    /// Remembers how many messages each transaction had, and fails at a write of 0xff.
    #[derive(Clone)]
    struct Fake {
        transactions: Arc<Mutex<Vec<usize>>>,
        /// In hertz.
        clock: u32,
    }

    impl Bus for Fake {
        fn longest_transaction(&self) -> usize {
            3
        }

        fn clock(&self) -> Clock {
            Clock::new(self.clock).unwrap()
        }

        fn transfer(&mut self, messages: &mut [Message<'_>]) -> Result<(), Failure> {
            self.transactions.lock().unwrap().push(messages.len());
            for (done, message) in messages.iter_mut().enumerate() {
                match &mut message.data {
                    Data::Write(bytes) if bytes.contains(&0xff) => {
                        return Err(Failure { done, cause: Cause::Nak });
                    }
                    Data::Write(_) => {}
                    Data::Read(bytes) => bytes.fill(7),
                }
            }
            Ok(())
        }

        fn watch(&mut self, _watcher: &Watcher, _first: u32) -> io::Result<()> {
            Ok(())
        }

        fn event(&mut self, _token: u32) {}
    }

    const FAIL_NEXT: u8 = 1;

    fn write(flags: u8, data: u8) -> Chain {
        Chain::detached(0, &[0x90, 0, 0, 0, flags, 0, 0, 0, data], 1)
    }

    fn device() -> (I2c, Fake) {
        at(100_000)
    }

    fn at(clock: u32) -> (I2c, Fake) {
        let bus = Fake { transactions: Arc::default(), clock };
        (I2c::new(Box::new(bus.clone()), "0x48".parse().unwrap(), None).unwrap(), bus)
    }

    /// Carries out what the device gives to the bus.
    fn carry_out(device: &mut I2c, finished: &mut Vec<Chain>) {
        while let Some(work) = device.work() {
            work.run();
            device.worked(finished);
        }
    }

    /// Has the device work on a batch: returns the statuses, and the transactions so far.
    fn process(device: &mut I2c, bus: &Fake, batch: Vec<Chain>) -> (Vec<u8>, Vec<usize>) {
        let (mut batch, mut finished) = (batch, Vec::new());
        device.process(0, &mut batch, &mut finished);
        assert!(batch.is_empty());
        carry_out(device, &mut finished);
        (statuses(&finished), bus.transactions.lock().unwrap().clone())
    }

    fn statuses(finished: &[Chain]) -> Vec<u8> {
        finished.iter().filter_map(|chain| chain.answer().last().copied()).collect()
    }

    #[test]
    fn flags_make_groups_and_batches_do_not() {
        let (mut device, bus) = device();
        let batch = vec![write(FAIL_NEXT, 1), write(0, 2), write(0, 3), write(FAIL_NEXT, 4)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_OK; 3], vec![2, 1]));
        let batch = vec![write(0, 5)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_OK; 2], vec![2, 1, 2]));
    }

    #[test]
    fn a_group_that_the_bus_cannot_join_fails_and_is_not_cut_up() {
        let (mut device, bus) = device();
        let batch = vec![write(FAIL_NEXT, 1), write(FAIL_NEXT, 2), write(FAIL_NEXT, 3), write(FAIL_NEXT, 4)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR; 4], vec![]));
        let batch = vec![write(0, 5), write(0, 6)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_OK], vec![1]), "up to its end");
    }

    fn long(flags: u8, length: usize) -> Chain {
        let header = [0x90, 0, 0, 0, flags, 0, 0, 0].to_vec();
        Chain::detached(0, &[header, vec![1; length]].concat(), 1)
    }

    /// Another guest may be waiting for the bus. What is long is a matter of time.
    #[test]
    fn a_group_that_would_have_the_bus_for_long_fails_and_is_not_cut_up() {
        for (clock, length) in [(10_000, 400), (100_000, 4096), (200_000, MESSAGE_BYTES)] {
            let (mut device, bus) = at(clock);
            let batch = || vec![long(FAIL_NEXT, length), long(0, length), long(0, 1)];
            assert_eq!(process(&mut device, &bus, batch()), (vec![MSG_OK; 3], vec![2, 1]), "at {clock} Hz");
            let (mut device, bus) = at(clock * 9 / 10);
            let statuses = vec![MSG_ERR, MSG_ERR, MSG_OK];
            assert_eq!(process(&mut device, &bus, batch()), (statuses, vec![1]), "slower than {clock} Hz");
        }
    }

    /// The bus may be somebody else's for a while: the device serves its driver all the same.
    #[test]
    fn a_stop_does_not_wait_for_what_has_not_begun() {
        let (mut device, bus) = device();
        let (mut batch, mut finished) = (vec![write(FAIL_NEXT, 1), write(0, 2), write(0, 3)], Vec::new());
        device.process(0, &mut batch, &mut finished);
        let work = device.work().unwrap();
        device.stop(0, Stop::Queue, &mut finished);
        assert_eq!(statuses(&finished), [MSG_ERR; 3]);
        work.run();
        device.worked(&mut finished);
        assert_eq!((finished.len(), bus.transactions.lock().unwrap().len()), (3, 0));
        assert_eq!(process(&mut device, &bus, vec![write(0, 4)]), (vec![MSG_OK], vec![1]));
    }

    /// It is on the bus when its driver resets the device: what comes back is not taken for the next
    /// driver's.
    #[test]
    fn what_a_former_driver_had_on_the_bus_is_not_the_next_ones() {
        let (mut device, bus) = device();
        let mut finished = Vec::new();
        device.process(0, &mut vec![write(0, 1)], &mut finished);
        device.work().unwrap().run();
        device.reset();
        device.process(0, &mut vec![write(0, 0xff)], &mut finished);
        device.worked(&mut finished);
        carry_out(&mut device, &mut finished);
        assert_eq!((statuses(&finished), bus.transactions.lock().unwrap().len()), (vec![MSG_ERR], 2));
    }

    /// Linux takes a status that nobody wrote for success.
    #[test]
    fn a_message_that_is_too_long_fails_and_is_in_its_group_all_the_same() {
        let (mut device, bus) = device();
        let batch = vec![write(FAIL_NEXT, 1), long(0, 8193), write(0, 2)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_ERR, MSG_OK], vec![1]));
        let read = Chain::detached(0, &[0x90, 0, 0, 0, 2, 0, 0, 0], 8194);
        assert_eq!(process(&mut device, &bus, vec![read]), (vec![MSG_ERR], vec![1]));
    }

    #[test]
    fn an_unreadable_request_fails_the_group_that_it_is_in() {
        let (mut device, bus) = device();
        let void = || Chain::detached(0, &[], 0);
        let batch = vec![write(FAIL_NEXT, 1), void(), write(0, 2), void(), write(0, 3)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_ERR, MSG_OK], vec![1]));
    }

    /// A write is never silently repeated, and the tail of a transaction never carried out without its head.
    #[test]
    fn an_interrupted_request_fails_with_what_comes_of_its_group() {
        let (mut device, bus) = device();
        let batch = vec![write(0, 1).after_interruption(), write(FAIL_NEXT, 2).after_interruption()];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR], vec![]));
        let batch = vec![write(FAIL_NEXT, 3), write(0, 4), write(0, 5)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_ERR, MSG_ERR, MSG_OK], vec![1]));
    }

    #[test]
    fn what_is_left_of_a_group_is_carried_out_when_the_time_is_over() {
        let (mut device, bus) = device();
        assert_eq!(process(&mut device, &bus, vec![write(FAIL_NEXT, 0xff)]), (vec![], vec![]));
        let mut finished = Vec::new();
        while finished.is_empty() {
            device.event(TIMER, &mut finished);
            carry_out(&mut device, &mut finished);
        }
        assert_eq!(statuses(&finished), [MSG_ERR]);
        let batch = vec![write(FAIL_NEXT, 1), write(0, 2), write(0, 3)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_ERR, MSG_OK], vec![1, 1]));
    }

    #[test]
    fn a_reset_forgets_the_group_and_its_failure() {
        let (mut device, bus) = device();
        process(&mut device, &bus, vec![write(FAIL_NEXT, 1)]);
        device.reset();
        assert_eq!(process(&mut device, &bus, vec![write(0, 2)]), (vec![MSG_OK], vec![1]));
    }

    #[test]
    fn a_stop_gives_the_group_back_undone() {
        let (mut device, bus) = device();
        process(&mut device, &bus, vec![write(FAIL_NEXT, 1)]);
        let mut finished = Vec::new();
        device.stop(0, Stop::Queue, &mut finished);
        assert_eq!(statuses(&finished), [MSG_ERR]);
        device.start(0, Start::Anew);
        assert_eq!(process(&mut device, &bus, vec![write(0, 2)]), (vec![MSG_OK], vec![1]));
    }

    /// A driver that was only paused sends the tail, of which the head has failed.
    #[test]
    fn the_failure_of_a_group_outlasts_a_pause() {
        for answered_before in [false, true] {
            let (mut device, bus) = device();
            process(&mut device, &bus, vec![write(FAIL_NEXT, 0xff)]);
            let mut finished = Vec::new();
            while answered_before && finished.is_empty() {
                device.event(TIMER, &mut finished);
                carry_out(&mut device, &mut finished);
            }
            let before = bus.transactions.lock().unwrap().len();
            device.stop(0, Stop::PerhapsReset, &mut finished);
            device.start(0, Start::Again);
            let batch = vec![write(FAIL_NEXT, 2), write(0, 3), write(0, 4)];
            let (statuses, transactions) = process(&mut device, &bus, batch);
            assert_eq!((statuses, transactions.len()), (vec![MSG_ERR, MSG_ERR, MSG_OK], before + 1));
        }
    }

    /// Wherever the former daemon died, the next one fails what is left of a group that failed, and no more.
    #[test]
    fn the_failure_of_a_group_outlasts_the_daemon() {
        let group = || [write(FAIL_NEXT, 0xff), write(FAIL_NEXT, 1), write(0, 2)];
        // How many were answered when it died, and how many it had.
        for (answered, taken) in [(0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)] {
            let tail = inflight::tests::tail(Record::BYTES);
            let (mut device, _) = device();
            device.take_over(tail.clone());
            device.start(0, Start::AsRecorded);
            for chain in group().into_iter().take(taken) {
                process_alone(&mut device, chain);
            }
            let (mut device, bus) = self::device();
            device.take_over(tail.clone());
            device.start(0, Start::AsRecorded);
            let left = group().into_iter().enumerate().skip(answered);
            let left =
                left.map(|(index, chain)| if index < taken { chain.after_interruption() } else { chain });
            let batch = left.chain([write(0, 3)]).collect();
            let expected = [vec![MSG_ERR; 3 - answered], vec![MSG_OK]].concat();
            assert_eq!(process(&mut device, &bus, batch), (expected, vec![1]), "{answered} of {taken}");
            assert_eq!(tail.word(0), 0);
        }
    }

    /// As if the rest of its group did not come in time.
    fn process_alone(device: &mut I2c, chain: Chain) {
        let mut finished = Vec::new();
        device.process(0, &mut vec![chain], &mut finished);
        carry_out(device, &mut finished);
        while finished.is_empty() {
            device.event(TIMER, &mut finished);
            carry_out(device, &mut finished);
        }
    }

    /// What a driver resets is told by zeros, to a daemon that lives and to the next.
    #[test]
    fn a_reset_ends_a_group_that_failed() {
        let tail = inflight::tests::tail(Record::BYTES);
        let resets: [fn(&mut I2c, &Tail); 2] = [|device, _| device.reset(), |_, tail| tail.set_word(0, 0)];
        for reset in resets {
            let (mut device, bus) = device();
            device.take_over(tail.clone());
            process_alone(&mut device, write(FAIL_NEXT, 0xff));
            assert_eq!(tail.word(0), 1);
            reset(&mut device, &tail);
            device.start(0, Start::AsRecorded);
            assert_eq!(process(&mut device, &bus, vec![write(0, 2)]), (vec![MSG_OK], vec![1, 1]));
        }
    }
}
