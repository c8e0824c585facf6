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

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use smallvec::SmallVec;

use super::bus::{Address, Bus, Cause, Data, FEW, Failure, Message};
use super::policy::AllowList;
use super::request::{DATA, Direction, parse};
use super::spec::{F_ZERO_LENGTH_REQUEST, MSG_ERR, MSG_OK};
use crate::chain::{Chain, Limits};
use crate::device::{Device, Left, QueueLimits, RING_SIZE, Refused, Start, Stop};
use crate::inflight::Tail;
use crate::watch::Watcher;

/// How long the rest of a group may take to come: far longer than a driver needs that is not interrupted, far
/// shorter than a guest's time-out.
const GROUP_WAIT: Duration = Duration::from_millis(10);

/// The longest message that Linux takes (`i2c-dev`).
const MESSAGE_BYTES: usize = 8192;

/// The most bytes of a transaction. At 100 kHz they have the bus for 1.5 s: meanwhile other guests wait for it, whose daemons
/// would be taken for hanging after some seconds; and the memory of a group that is being collected has a bound.
const TRANSACTION_BYTES: usize = 2 * MESSAGE_BYTES;

/// So long other requests wait to be given back when requests of one batch take their time. Not all of a batch must be slow
/// before the frontend sees a buffer used, and gets a turn.
const TURN: Duration = Duration::from_millis(500);

/// A guest's kernel sends messages of any length that has 16 bits. One that is too long is refused, and has to be read for that:
/// a driver takes a status that was not written for MSG_OK.
const QUEUES: [QueueLimits; 1] =
    [QueueLimits { size: RING_SIZE, chain: Limits { request: DATA + LONGEST, answer: LONGEST + 1 } }];
const LONGEST: usize = u16::MAX as usize;

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
    bus: Box<dyn Bus>,
    policy: AllowList,
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
    /// A device that gives its guest those addresses of `bus` that `policy` allows.
    ///
    /// # Errors
    /// When the kernel has no timer left.
    pub fn new(bus: Box<dyn Bus>, policy: AllowList) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { bus, policy, group: Vec::new(), failing: false, record: None, timer })
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
        let bytes: usize = self.group.iter().map(Member::bytes).sum();
        self.group.len() > self.bus.longest_transaction() || bytes > TRANSACTION_BYTES
    }

    /// Carries out what was collected of a group. `ended` says whether that is all of it.
    fn carry_out(&mut self, ended: bool, finished: &mut Vec<Chain>) {
        let done = if self.failing { 0 } else { self.transfer() };
        let failed = done < self.group.len();
        for (index, mut member) in self.group.drain(..).enumerate() {
            member.answer(index < done);
            finished.push(member.chain);
        }
        self.set_failing(failed && !ended);
    }

    fn set_failing(&mut self, failing: bool) {
        self.failing = failing;
        if let Some(record) = &self.record {
            record.set_failing(failing);
        }
    }

    /// Carries out the group as one transaction, and says how many messages were done.
    fn transfer(&mut self) -> usize {
        let count = self.group.len();
        let messages: Option<SmallVec<[_; FEW]>> = self.group.iter_mut().map(Member::message).collect();
        let Some(mut messages) = messages else { return 0 };
        match self.bus.transfer(&mut messages) {
            Ok(()) => count,
            Err(Failure { done, cause }) => {
                // The operator hears of a bus in trouble, not of everything that a guest tries.
                let trouble = matches!(cause, Cause::Timeout | Cause::ArbitrationLost);
                let level = if trouble { log::Level::Warn } else { log::Level::Debug };
                log::log!(level, "a transaction of {count} messages failed after {done}: {cause}");
                done.min(count)
            }
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

    fn message(&mut self) -> Option<Message<'_>> {
        let Allowed { address, direction, length } = self.message?;
        let (written, answer) = self.chain.parts(match direction {
            Direction::Write => 0,
            Direction::Read => length,
        });
        let data = match direction {
            Direction::Write => Data::Write(written.get(DATA..)?),
            Direction::Read => Data::Read(answer),
        };
        Some(Message { address, data })
    }

    /// Completes the answer: what was read, or zeros instead, and the status in the last byte that there is room for.
    fn answer(&mut self, done: bool) {
        if !done {
            self.chain.set_answer(&[]);
        }
        let room = self.chain.room();
        if let (_, [.., status]) = self.chain.parts(room) {
            *status = if done { MSG_OK } else { MSG_ERR };
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
        let waited = !self.group.is_empty();
        let end = (requests.len() > 1).then(|| Instant::now() + TURN);
        // No more than a batch, so that it makes no difference where a request is taken from.
        while !requests.is_empty() {
            let ended = self.admit(requests.remove(0));
            let too_much = self.is_too_much();
            if ended || too_much {
                self.failing |= too_much;
                self.carry_out(ended, finished);
                if !requests.is_empty() && end.is_some_and(|end| Instant::now() >= end) {
                    break;
                }
            }
        }
        match (waited, self.group.is_empty()) {
            (_, false) => self.set_timer(Some(GROUP_WAIT)),
            (true, true) => self.set_timer(None),
            (false, true) => {}
        }
    }

    fn event(&mut self, token: u32, finished: &mut Vec<Chain>) {
        if token != TIMER {
            return self.bus.event(token);
        }
        // Nothing to read means that the group was completed at the last moment.
        let mut expirations = [0; 8];
        if read(&self.timer, &mut expirations).is_ok() && !self.group.is_empty() {
            self.carry_out(false, finished);
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

    /// What there is of a group fails, and so does what comes of it if the driver goes on.
    fn stop(&mut self, _queue: usize, _meaning: Stop, finished: &mut Vec<Chain>) {
        if !self.group.is_empty() {
            self.failing = true;
            self.carry_out(false, finished);
        }
        self.set_timer(None);
    }

    fn reset(&mut self) {
        self.group.clear();
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
        self.bus.watch(watcher, FIRST_OF_BUS)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::inflight;

    /// Remembers how many messages each transaction had, and fails at a write of 0xff.
    #[derive(Clone, Default)]
    struct Fake {
        transactions: Arc<Mutex<Vec<usize>>>,
        /// Whether a transaction takes longer than a turn may.
        slow: Arc<AtomicBool>,
    }

    impl Bus for Fake {
        fn longest_transaction(&self) -> usize {
            3
        }

        fn transfer(&mut self, messages: &mut [Message<'_>]) -> Result<(), Failure> {
            self.transactions.lock().unwrap().push(messages.len());
            if self.slow.load(Ordering::Relaxed) {
                std::thread::sleep(TURN);
            }
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
        let bus = Fake::default();
        (I2c::new(Box::new(bus.clone()), "0x48".parse().unwrap()).unwrap(), bus)
    }

    /// Has the device work on a batch: returns the statuses, and the transactions so far.
    fn process(device: &mut I2c, bus: &Fake, batch: Vec<Chain>) -> (Vec<u8>, Vec<usize>) {
        let (mut batch, mut finished) = (batch, Vec::new());
        device.process(0, &mut batch, &mut finished);
        assert!(batch.is_empty());
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

    /// Another guest may be waiting for the bus.
    #[test]
    fn a_group_that_would_have_the_bus_for_long_fails_and_is_not_cut_up() {
        let (mut device, bus) = device();
        let long = |flags: u8, length| {
            let header = [0x90, 0, 0, 0, flags, 0, 0, 0].to_vec();
            Chain::detached(0, &[header, vec![1; length]].concat(), 1)
        };
        let batch = vec![long(FAIL_NEXT, 8192), long(0, 8192)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_OK; 2], vec![2]));
        let batch = vec![long(FAIL_NEXT, 8192), long(FAIL_NEXT, 8192), long(0, 1), long(0, 1)];
        let statuses = vec![MSG_ERR, MSG_ERR, MSG_ERR, MSG_OK];
        assert_eq!(process(&mut device, &bus, batch), (statuses, vec![2, 1]));
    }

    /// Linux takes a status that nobody wrote for success.
    #[test]
    fn a_message_that_is_too_long_fails_and_is_in_its_group_all_the_same() {
        let (mut device, bus) = device();
        let long = |flags: u8| {
            let header = [0x90, 0, 0, 0, flags, 0, 0, 0].to_vec();
            Chain::detached(0, &[header, vec![1; 8193]].concat(), 1)
        };
        let batch = vec![write(FAIL_NEXT, 1), long(0), write(0, 2)];
        assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_ERR, MSG_OK], vec![1]));
        let read = Chain::detached(0, &[0x90, 0, 0, 0, 2, 0, 0, 0], 8194);
        assert_eq!(process(&mut device, &bus, vec![read]), (vec![MSG_ERR], vec![1]));
    }

    /// The frontend would take a daemon that gives nothing back for one that hangs.
    #[test]
    fn slow_requests_are_given_back_before_all_of_a_batch_is_done() {
        let (mut device, bus) = device();
        bus.slow.store(true, Ordering::Relaxed);
        let (mut batch, mut finished) = (vec![write(0, 1), write(0, 2), write(0, 3)], Vec::new());
        device.process(0, &mut batch, &mut finished);
        assert_eq!((statuses(&finished), batch.len()), (vec![MSG_OK], 2));
        bus.slow.store(false, Ordering::Relaxed);
        device.process(0, &mut batch, &mut finished);
        assert_eq!((statuses(&finished), batch.len()), (vec![MSG_OK; 3], 0));
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
        while finished.is_empty() {
            device.event(TIMER, &mut finished);
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
