// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use super::*;
use crate::i2c::bus::{Data, Message};
use crate::i2c::group::MESSAGE_BYTES_MAX;
use crate::i2c::spec::{MSG_ERR, MSG_OK};
use crate::inflight;

/// A bus that records the number of messages of each transaction, and fails at a write of 0xff.
#[derive(Clone)]
struct FakeBus {
    transactions: Arc<Mutex<Vec<usize>>>,
    /// In hertz.
    clock: u32,
}

impl Bus for FakeBus {
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

    fn handle_event(&mut self, _token: u32) {}
}

const FAIL_NEXT: u8 = 1;

fn write(flags: u8, data: u8) -> Chain {
    Chain::detached(0, &[0x90, 0, 0, 0, flags, 0, 0, 0, data], 1)
}

fn device() -> (I2c, FakeBus) {
    at(100_000)
}

fn at(clock: u32) -> (I2c, FakeBus) {
    let bus = FakeBus { transactions: Arc::default(), clock };
    (I2c::new(Box::new(bus.clone()), "0x48".parse().unwrap(), None).unwrap(), bus)
}

/// Runs the transactions that the device queues.
fn run_work(device: &mut I2c, finished: &mut Vec<Chain>) {
    while let Some(work) = device.next_work() {
        work.run();
        device.finish_work(finished);
    }
}

/// Processes a batch. Returns the statuses, and the transactions so far.
fn process(device: &mut I2c, bus: &FakeBus, batch: Vec<Chain>) -> (Vec<u8>, Vec<usize>) {
    let (mut batch, mut finished) = (batch, Vec::new());
    device.process(0, &mut batch, &mut finished);
    assert!(batch.is_empty());
    run_work(device, &mut finished);
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
fn a_group_of_too_many_messages_fails_as_a_whole() {
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

/// Another guest may be waiting for the bus.
#[test]
fn a_group_that_would_take_too_long_fails_as_a_whole() {
    for (clock, length) in [(10_000, 400), (100_000, 4096), (200_000, MESSAGE_BYTES_MAX)] {
        let (mut device, bus) = at(clock);
        let batch = || vec![long(FAIL_NEXT, length), long(0, length), long(0, 1)];
        assert_eq!(process(&mut device, &bus, batch()), (vec![MSG_OK; 3], vec![2, 1]), "at {clock} Hz");
        let (mut device, bus) = at(clock * 9 / 10);
        let statuses = vec![MSG_ERR, MSG_ERR, MSG_OK];
        assert_eq!(process(&mut device, &bus, batch()), (statuses, vec![1]), "slower than {clock} Hz");
    }
}

#[test]
fn a_stop_does_not_wait_for_a_transaction_that_has_not_begun() {
    let (mut device, bus) = device();
    let (mut batch, mut finished) = (vec![write(FAIL_NEXT, 1), write(0, 2), write(0, 3)], Vec::new());
    device.process(0, &mut batch, &mut finished);
    let work = device.next_work().unwrap();
    device.stop(0, QueueStop::QueueOnly, &mut finished);
    assert_eq!(statuses(&finished), [MSG_ERR; 3]);
    work.run();
    device.finish_work(&mut finished);
    assert_eq!((finished.len(), bus.transactions.lock().unwrap().len()), (3, 0));
    assert_eq!(process(&mut device, &bus, vec![write(0, 4)]), (vec![MSG_OK], vec![1]));
}

/// The transaction is on the bus when its driver resets the device.
#[test]
fn the_result_of_a_former_drivers_transaction_is_discarded() {
    let (mut device, bus) = device();
    let mut finished = Vec::new();
    device.process(0, &mut vec![write(0, 1)], &mut finished);
    device.next_work().unwrap().run();
    device.reset();
    device.process(0, &mut vec![write(0, 0xff)], &mut finished);
    device.finish_work(&mut finished);
    run_work(&mut device, &mut finished);
    assert_eq!((statuses(&finished), bus.transactions.lock().unwrap().len()), (vec![MSG_ERR], 2));
}

/// Linux takes a status that was not written for success.
#[test]
fn a_message_that_is_too_long_fails_with_its_group() {
    let (mut device, bus) = device();
    let batch = vec![write(FAIL_NEXT, 1), long(0, 8193), write(0, 2)];
    assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_ERR, MSG_OK], vec![1]));
    let read = Chain::detached(0, &[0x90, 0, 0, 0, 2, 0, 0, 0], 8194);
    assert_eq!(process(&mut device, &bus, vec![read]), (vec![MSG_ERR], vec![1]));
}

#[test]
fn a_request_without_a_header_fails_its_group() {
    let (mut device, bus) = device();
    let void = || Chain::detached(0, &[], 0);
    let batch = vec![write(FAIL_NEXT, 1), void(), write(0, 2), void(), write(0, 3)];
    assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_ERR, MSG_OK], vec![1]));
}

/// A write is never repeated, and the tail of a transaction never carried out without its head.
#[test]
fn an_interrupted_request_fails_with_the_rest_of_its_group() {
    let (mut device, bus) = device();
    let batch = vec![write(0, 1).after_interruption(), write(FAIL_NEXT, 2).after_interruption()];
    assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR], vec![]));
    let batch = vec![write(FAIL_NEXT, 3), write(0, 4), write(0, 5)];
    assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_ERR, MSG_ERR, MSG_OK], vec![1]));
}

#[test]
fn an_incomplete_group_is_carried_out_after_the_wait() {
    let (mut device, bus) = device();
    assert_eq!(process(&mut device, &bus, vec![write(FAIL_NEXT, 0xff)]), (vec![], vec![]));
    let mut finished = Vec::new();
    while finished.is_empty() {
        device.handle_event(TIMER, &mut finished);
        run_work(&mut device, &mut finished);
    }
    assert_eq!(statuses(&finished), [MSG_ERR]);
    let batch = vec![write(FAIL_NEXT, 1), write(0, 2), write(0, 3)];
    assert_eq!(process(&mut device, &bus, batch), (vec![MSG_ERR, MSG_ERR, MSG_OK], vec![1, 1]));
}

#[test]
fn a_reset_drops_the_group_and_its_failure() {
    let (mut device, bus) = device();
    process(&mut device, &bus, vec![write(FAIL_NEXT, 1)]);
    device.reset();
    assert_eq!(process(&mut device, &bus, vec![write(0, 2)]), (vec![MSG_OK], vec![1]));
}

#[test]
fn a_stop_fails_an_incomplete_group() {
    let (mut device, bus) = device();
    process(&mut device, &bus, vec![write(FAIL_NEXT, 1)]);
    let mut finished = Vec::new();
    device.stop(0, QueueStop::QueueOnly, &mut finished);
    assert_eq!(statuses(&finished), [MSG_ERR]);
    device.start(0, QueueStart::NewDriver);
    assert_eq!(process(&mut device, &bus, vec![write(0, 2)]), (vec![MSG_OK], vec![1]));
}

/// A driver that was paused sends the tail after the head has failed.
#[test]
fn the_failure_of_a_group_persists_over_a_pause() {
    for answered_before in [false, true] {
        let (mut device, bus) = device();
        process(&mut device, &bus, vec![write(FAIL_NEXT, 0xff)]);
        let mut finished = Vec::new();
        while answered_before && finished.is_empty() {
            device.handle_event(TIMER, &mut finished);
            run_work(&mut device, &mut finished);
        }
        let before = bus.transactions.lock().unwrap().len();
        device.stop(0, QueueStop::MaybeReset, &mut finished);
        device.start(0, QueueStart::SameDriver);
        let batch = vec![write(FAIL_NEXT, 2), write(0, 3), write(0, 4)];
        let (statuses, transactions) = process(&mut device, &bus, batch);
        assert_eq!((statuses, transactions.len()), (vec![MSG_ERR, MSG_ERR, MSG_OK], before + 1));
    }
}

/// Wherever the former daemon died, the next one fails the rest of the failed group, and no more.
#[test]
fn the_failure_of_a_group_persists_over_daemons() {
    let group = || [write(FAIL_NEXT, 0xff), write(FAIL_NEXT, 1), write(0, 2)];
    // The number of requests that were answered when it died, and that it had taken.
    for (answered, taken) in [(0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)] {
        let record = inflight::tests::device_record(GroupRecord::BYTES);
        let (mut device, _) = device();
        device.restore(record.clone());
        device.start(0, QueueStart::AsRecorded);
        for chain in group().into_iter().take(taken) {
            process_alone(&mut device, chain);
        }
        let (mut device, bus) = self::device();
        device.restore(record.clone());
        device.start(0, QueueStart::AsRecorded);
        let left = group().into_iter().enumerate().skip(answered);
        let left = left.map(|(index, chain)| if index < taken { chain.after_interruption() } else { chain });
        let batch = left.chain([write(0, 3)]).collect();
        let expected = [vec![MSG_ERR; 3 - answered], vec![MSG_OK]].concat();
        assert_eq!(process(&mut device, &bus, batch), (expected, vec![1]), "{answered} of {taken}");
        assert_eq!(record.word(0), 0);
    }
}

/// Processes a request whose group is not completed in time.
fn process_alone(device: &mut I2c, chain: Chain) {
    let mut finished = Vec::new();
    device.process(0, &mut vec![chain], &mut finished);
    run_work(device, &mut finished);
    while finished.is_empty() {
        device.handle_event(TIMER, &mut finished);
        run_work(device, &mut finished);
    }
}

/// The frontend clears the record when the driver resets the device, whether the daemon runs or not.
#[test]
fn a_reset_ends_a_failed_group() {
    let record = inflight::tests::device_record(GroupRecord::BYTES);
    let resets: [fn(&mut I2c, &DeviceRecord); 2] =
        [|device, _| device.reset(), |_, record| record.set_word(0, 0)];
    for reset in resets {
        let (mut device, bus) = device();
        device.restore(record.clone());
        process_alone(&mut device, write(FAIL_NEXT, 0xff));
        assert_eq!(record.word(0), 1);
        reset(&mut device, &record);
        device.start(0, QueueStart::AsRecorded);
        assert_eq!(process(&mut device, &bus, vec![write(0, 2)]), (vec![MSG_OK], vec![1, 1]));
    }
}
