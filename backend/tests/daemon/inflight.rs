// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of a daemon that dies and another that continues (vhost-user specification, "Inflight I/O
//! tracking").

use std::os::unix::fs::FileExt;

use serde_json::json;

use crate::board::Board;
use crate::guest::RING;
use crate::i2c::{FAIL_NEXT, THERMOMETER, check_service, read, start_recorded, write};

const QUEUE: usize = 0;
const ERR: u8 = 1;
/// In milliseconds, longer than any test.
const FOR_EVER: u64 = 3_600_000;

/// Offsets in `QueueRegionSplit`.
const VERSION: u64 = 8;
const ENTRIES: u64 = 10;
const LAST_BATCH_HEAD: u64 = 12;
const USED_INDEX: u64 = 14;
const DESCRIPTORS: u64 = 16;

/// Makes the next transaction hang: before it is on the wire for `delay-ms`, after it for `late-ms`.
fn hang(board: &Board, how: &str) {
    let fault = json!({ how: FOR_EVER });
    board.control().execute(&json!({ "inject": { "address": THERMOMETER, "fault": fault } }));
}

#[test]
fn a_write_that_was_on_the_wire_fails_and_is_not_repeated() {
    let (mut board, mut guest) = start_recorded();
    hang(&board, "late-ms");
    let (request, room) = write(THERMOMETER, 0, &[0]);
    let interrupted = guest.send(QUEUE, &request, room);
    board.wait_journal(1);
    // The bus is busy, so the daemon does not take this chain.
    let waiting = guest.send(QUEUE, &request, room);
    let socket = board.replace();
    guest.continue_with(socket);
    let used = guest.wait(QUEUE);
    assert_eq!(guest.answer(interrupted, used), [ERR]);
    // A chain that was not taken is carried out.
    let used = guest.wait(QUEUE);
    assert_eq!(guest.answer(waiting, used), [0]);
    assert_eq!(board.journal().len(), 2);
    check_service(&mut guest);
}

/// The journal is empty, so only the mark of the chain shows that the daemon has taken it. A chain that is
/// sent now can be part of the same batch, so the test sends none.
#[test]
fn a_write_that_was_taken_and_not_on_the_wire_fails_and_is_not_carried_out() {
    let (mut board, mut guest) = start_recorded();
    hang(&board, "delay-ms");
    let (request, room) = write(THERMOMETER, 0, &[0]);
    let interrupted = guest.send(QUEUE, &request, room);
    guest.wait_marked(interrupted);
    let socket = board.replace();
    guest.continue_with(socket);
    let used = guest.wait(QUEUE);
    assert_eq!(guest.answer(interrupted, used), [ERR]);
    assert_eq!(board.journal().len(), 0);
    check_service(&mut guest);
}

/// The daemon dies after the head of a group has failed, and before the tail comes.
#[test]
fn the_tail_of_a_group_that_failed_is_not_carried_out_by_the_next_daemon() {
    let (mut board, mut guest) = start_recorded();
    let (request, room) = write(THERMOMETER + 1, FAIL_NEXT, &[0]);
    assert_eq!(guest.ask(QUEUE, &request, room), [ERR], "an address that is not allowed");
    for tail in [read(THERMOMETER, FAIL_NEXT, 2), read(THERMOMETER, 0, 2)] {
        let socket = board.replace();
        guest.continue_with(socket);
        assert_eq!(guest.ask(QUEUE, &tail.0, tail.1), [0, 0, ERR]);
        assert_eq!(board.journal().len(), 0);
    }
    // The next group is not affected.
    let socket = board.replace();
    guest.continue_with(socket);
    check_service(&mut guest);
}

/// Each chain that was taken and not returned fails once.
#[test]
fn a_batch_in_flight_fails_in_order() {
    let (mut board, mut guest) = start_recorded();
    check_service(&mut guest);
    hang(&board, "late-ms");
    let requests =
        [write(THERMOMETER, 0, &[1, 1]), write(THERMOMETER, FAIL_NEXT, &[0]), read(THERMOMETER, 0, 2)];
    let sent = guest.send_all(QUEUE, &requests);
    board.wait_journal(2);
    let socket = board.replace();
    guest.continue_with(socket);
    for (sent, expected) in sent.iter().zip([vec![ERR], vec![ERR], vec![0, 0, ERR]]) {
        let used = guest.wait(QUEUE);
        assert_eq!(guest.answer(*sent, used), expected);
    }
    assert_eq!(guest.used(QUEUE), None);
    assert_eq!(board.journal().len(), 2);
    check_service(&mut guest);
}

#[test]
fn daemons_that_die_idle_lose_nothing() {
    let (mut board, mut guest) = start_recorded();
    for round in 1..=5 {
        // Over all rounds, more than the size of the ring.
        for _ in 0..RING / 3 {
            check_service(&mut guest);
        }
        let socket = board.replace();
        guest.continue_with(socket);
        assert_eq!(board.journal().len(), round * usize::from(RING / 3));
    }
    check_service(&mut guest);
}

/// The daemon died after it had written the used ring and before it had cleared the mark.
#[test]
fn a_used_chain_that_is_still_marked_is_not_answered_again() {
    let (mut board, mut guest) = start_recorded();
    let (request, room) = read(THERMOMETER, 0, 2);
    for _ in 0..3 {
        check_service(&mut guest);
    }
    let sent = guest.send(QUEUE, &request, room);
    guest.wait(QUEUE);
    // As it was before the last two stores.
    let record = guest.record();
    record.write_all_at(&[1], DESCRIPTORS + 16 * u64::from(sent.head)).expect("memory");
    record.write_all_at(&3_u16.to_ne_bytes(), USED_INDEX).expect("memory");
    let socket = board.replace();
    guest.continue_with(socket);
    check_service(&mut guest);
    assert_eq!(guest.used(QUEUE), None);
}

/// The frontend clears the record when the driver resets the device.
#[test]
fn after_a_reset_no_chain_is_in_flight() {
    let (mut board, mut guest) = start_recorded();
    hang(&board, "delay-ms");
    let (request, room) = read(THERMOMETER, 0, 2);
    let sent = guest.send(QUEUE, &request, room);
    guest.wait_marked(sent);
    let socket = board.replace();
    let record = guest.record();
    let length = usize::try_from(record.metadata().expect("a file").len()).expect("small");
    record.write_all_at(&vec![0; length], 0).expect("memory");
    guest.reset_with(socket);
    check_service(&mut guest);
    assert_eq!(guest.used(QUEUE), None);
}

/// The daemon continues, and serves a driver that resets the device.
#[test]
fn a_forged_record_does_no_harm() {
    let numbers = [0, 1, RING - 1, RING, 0x7fff, u16::MAX];
    let (mut board, mut guest) = start_recorded();
    let mut seed = 1_u64;
    let mut chance = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).expect("small")
    };
    for round in 0..60 {
        check_service(&mut guest);
        let mut bytes: Vec<u8> = (0..DESCRIPTORS + 16 * u64::from(RING))
            .map(|_| if round % 3 == 0 { 0xff } else { u8::try_from(chance() % 256).expect("a byte") })
            .collect();
        for (at, value) in [(VERSION, 1), (ENTRIES, RING)] {
            if round % 5 != 4 {
                let at = usize::try_from(at).expect("small");
                bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
            }
        }
        for at in [LAST_BATCH_HEAD, USED_INDEX] {
            let (at, value) = (usize::try_from(at).expect("small"), numbers[chance() % numbers.len()]);
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        guest.record().write_all_at(&bytes, 0).expect("memory");
        let socket = board.replace();
        guest.continue_with(socket);
        // The driver resets the device.
        guest.stop();
        guest.record().write_all_at(&vec![0; bytes.len()], 0).expect("memory");
        guest.start();
    }
    check_service(&mut guest);
}

#[test]
fn a_record_of_a_wrong_size_is_refused() {
    let (_board, mut guest) = start_recorded();
    guest.stop();
    let length = guest.record().metadata().expect("a file").len();
    for (bytes, offset, queues, size) in [
        (16, 0, 1, RING),                // too short for its queues
        (1 << 20, 0, 1, RING),           // beyond its file
        (length, u64::MAX - 1, 1, RING), // beyond everything
        (length, 0, 2, RING),            // a queue that does not exist
        (length, 0, 1, u16::MAX),        // larger than any queue
    ] {
        assert!(
            guest.send_record_as(bytes, offset, queues, size).is_err(),
            "{bytes} {offset} {queues} {size}"
        );
    }
    // With fewer entries than the queue has, it does not start.
    assert!(guest.send_record_as(length, 0, 1, RING / 2).is_ok());
    assert!(guest.try_continue_at(&[0]).is_err());
    assert!(guest.send_record_as(length, 0, 1, RING).is_ok());
    guest.start();
    check_service(&mut guest);
    // While queues run, these stop, since their record is unknown.
    assert!(guest.send_record_as(length, 0, 1, RING).is_err());
    guest.wait_failed(QUEUE);
    guest.try_continue_at(&[0]).expect_err("a start without a record");
    assert!(guest.send_record_as(length, 0, 1, RING).is_ok());
    guest.start();
    check_service(&mut guest);
}

/// The reply has no field for an error, and the frontend must not wait for it.
#[test]
fn a_message_that_cannot_be_answered_closes_the_connection() {
    for (queues, size) in [(2, RING), (1, u16::MAX)] {
        let (board, mut guest) = start_recorded();
        assert!(guest.ask_record(queues, size).is_err());
        assert!(board.ended());
    }
    let (board, guest) = start_recorded();
    assert!(guest.try_stop(7).is_err());
    assert!(board.ended());
}
