// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A daemon dies, and another goes on (vhost-user specification, "Inflight I/O tracking").

use std::os::unix::fs::FileExt;

use serde_json::json;

use crate::board::Board;
use crate::guest::{Guest, RING};
use crate::i2c::{BOARD, FAIL_NEXT, THERMOMETER, read, write};

const QUEUE: usize = 0;
const ERR: u8 = 1;
/// Longer than any test.
const FOR_EVER: u64 = 3_600_000;

/// Where the fields of `QueueRegionSplit` and `DescStateSplit` are.
const VERSION: u64 = 8;
const ENTRIES: u64 = 10;
const LAST_BATCH_HEAD: u64 = 12;
const USED_INDEX: u64 = 14;
const DESCRIPTORS: u64 = 16;

fn bench() -> (Board, Guest) {
    let (board, socket) = Board::start("i2c", BOARD, &["--allow", "0x48"]);
    (board, Guest::connect_recorded(socket, 1))
}

fn works(guest: &mut Guest) {
    let (request, room) = read(THERMOMETER, 0, 2);
    assert_eq!(guest.ask(QUEUE, &request, room), [0x17, 0x80, 0]);
}

/// Has the next transaction hang: with `delay-ms` before anything is on the wire, with `late-ms` after it.
fn hang(board: &Board, how: &str) {
    let fault = json!({ how: FOR_EVER });
    board.control().tell(&json!({ "inject": { "address": THERMOMETER, "fault": fault } }));
}

/// A write that was on the wire when the daemon died is not put there again.
#[test]
fn a_write_in_flight_fails_and_is_not_repeated() {
    for (how, entries) in [("late-ms", 1), ("delay-ms", 0)] {
        let (mut board, mut guest) = bench();
        hang(&board, how);
        let (request, room) = write(THERMOMETER, 0, &[0]);
        let interrupted = guest.send(QUEUE, &request, room);
        board.wait_journal(entries);
        if entries == 0 {
            // Nothing tells from outside that the transaction has begun, except that the daemon took the chain.
            guest.wait_marked(interrupted);
        }
        let waiting = guest.send(QUEUE, &request, room);
        let socket = board.replace();
        guest.go_on_with(socket);
        let used = guest.wait(QUEUE);
        assert_eq!(guest.answer(interrupted, used), [ERR]);
        // What was not taken from the ring is carried out.
        let used = guest.wait(QUEUE);
        assert_eq!(guest.answer(waiting, used), [0]);
        assert_eq!(board.journal().len(), entries + 1);
        works(&mut guest);
    }
}

/// The daemon dies after the head of a group has come back with an error, and before the tail comes.
#[test]
fn the_tail_of_a_group_that_failed_is_not_carried_out_by_the_next_daemon() {
    let (mut board, mut guest) = bench();
    let (request, room) = write(THERMOMETER + 1, FAIL_NEXT, &[0]);
    assert_eq!(guest.ask(QUEUE, &request, room), [ERR], "an address that is not this guest's");
    for tail in [read(THERMOMETER, FAIL_NEXT, 2), read(THERMOMETER, 0, 2)] {
        let socket = board.replace();
        guest.go_on_with(socket);
        assert_eq!(guest.ask(QUEUE, &tail.0, tail.1), [0, 0, ERR]);
        assert_eq!(board.journal().len(), 0);
    }
    // The next group is another matter, for the next daemon as well.
    let socket = board.replace();
    guest.go_on_with(socket);
    works(&mut guest);
}

/// Of a batch, all that was taken and not answered fails: each once, in the order in which it came.
#[test]
fn a_batch_in_flight_fails_in_order() {
    let (mut board, mut guest) = bench();
    works(&mut guest);
    hang(&board, "late-ms");
    let requests =
        [write(THERMOMETER, 0, &[1, 1]), write(THERMOMETER, FAIL_NEXT, &[0]), read(THERMOMETER, 0, 2)];
    let sent = guest.send_all(QUEUE, &requests);
    board.wait_journal(2);
    let socket = board.replace();
    guest.go_on_with(socket);
    for (sent, expected) in sent.iter().zip([vec![ERR], vec![ERR], vec![0, 0, ERR]]) {
        let used = guest.wait(QUEUE);
        assert_eq!(guest.answer(*sent, used), expected);
    }
    assert_eq!(guest.used(QUEUE), None);
    assert_eq!(board.journal().len(), 2);
    works(&mut guest);
}

#[test]
fn daemons_may_die_again_and_again_with_nothing_in_flight() {
    let (mut board, mut guest) = bench();
    for round in 1..=5 {
        // More than the ring has entries, over all rounds.
        for _ in 0..RING / 3 {
            works(&mut guest);
        }
        let socket = board.replace();
        guest.go_on_with(socket);
        assert_eq!(board.journal().len(), round * usize::from(RING / 3));
    }
    works(&mut guest);
}

/// A daemon that dies between the used ring and the mark: the chain was answered, and is not answered again.
#[test]
fn a_mark_that_was_left_over_is_recognised() {
    let (mut board, mut guest) = bench();
    let (request, room) = read(THERMOMETER, 0, 2);
    for _ in 0..3 {
        works(&mut guest);
    }
    let sent = guest.send(QUEUE, &request, room);
    guest.wait(QUEUE);
    // As it was before the last two stores.
    let region = guest.inflight();
    region.write_all_at(&[1], DESCRIPTORS + 16 * u64::from(sent.head)).expect("memory");
    region.write_all_at(&3_u16.to_ne_bytes(), USED_INDEX).expect("memory");
    let socket = board.replace();
    guest.go_on_with(socket);
    works(&mut guest);
    assert_eq!(guest.used(QUEUE), None);
}

/// After the driver has reset the device the region is all zeros, and the ring begins anew.
#[test]
fn a_reset_leaves_nothing_in_flight() {
    let (mut board, mut guest) = bench();
    hang(&board, "delay-ms");
    let (request, room) = read(THERMOMETER, 0, 2);
    let sent = guest.send(QUEUE, &request, room);
    guest.wait_marked(sent);
    let socket = board.replace();
    let region = guest.inflight();
    let length = usize::try_from(region.metadata().expect("a file").len()).expect("small");
    region.write_all_at(&vec![0; length], 0).expect("memory");
    guest.reset_with(socket);
    works(&mut guest);
    assert_eq!(guest.used(QUEUE), None);
}

/// Whatever is in the region, the daemon lives, and serves the next driver that resets.
#[test]
fn a_region_of_anybodys_making_harms_nobody() {
    let numbers = [0, 1, RING - 1, RING, 0x7fff, u16::MAX];
    let (mut board, mut guest) = bench();
    let mut seed = 1_u64;
    let mut chance = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).expect("small")
    };
    for round in 0..60 {
        works(&mut guest);
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
        guest.inflight().write_all_at(&bytes, 0).expect("memory");
        let socket = board.replace();
        guest.go_on_with(socket);
        // Whatever that made of the ring, a driver that resets finds all in order.
        guest.stop();
        guest.inflight().write_all_at(&vec![0; bytes.len()], 0).expect("memory");
        guest.start();
    }
    works(&mut guest);
}

#[test]
fn a_region_that_does_not_fit_is_refused() {
    let (_board, mut guest) = bench();
    guest.stop();
    let length = guest.inflight().metadata().expect("a file").len();
    for (bytes, offset, queues, size) in [
        (16, 0, 1, RING),                // too short for its queues
        (1 << 20, 0, 1, RING),           // beyond its file
        (length, u64::MAX - 1, 1, RING), // beyond everything
        (length, 0, 2, RING),            // a queue that there is not
        (length, 0, 1, u16::MAX),        // larger than any queue
    ] {
        assert!(
            guest.offer_inflight(bytes, offset, queues, size).is_err(),
            "{bytes} {offset} {queues} {size}"
        );
    }
    // Fewer entries than the queue has: it does not start.
    assert!(guest.offer_inflight(length, 0, 1, RING / 2).is_ok());
    assert!(guest.try_go_on(&[0]).is_err());
    assert!(guest.offer_inflight(length, 0, 1, RING).is_ok());
    guest.start();
    works(&mut guest);
    // Not while queues run: these stop, as nobody knows where their chains are recorded.
    assert!(guest.offer_inflight(length, 0, 1, RING).is_err());
    guest.wait_failed(QUEUE);
    guest.try_go_on(&[0]).expect_err("a start without memory for chains in flight");
    assert!(guest.offer_inflight(length, 0, 1, RING).is_ok());
    guest.start();
    works(&mut guest);
}

/// A frontend that asks for what there cannot be gets no answer; it must not wait for one.
#[test]
fn a_question_without_an_answer_ends_the_connection() {
    for (queues, size) in [(2, RING), (1, u16::MAX)] {
        let (board, mut guest) = bench();
        assert!(guest.ask_inflight(queues, size).is_err());
        assert!(board.ended());
    }
    let (board, guest) = bench();
    assert!(guest.try_stop(7).is_err());
    assert!(board.ended());
}
