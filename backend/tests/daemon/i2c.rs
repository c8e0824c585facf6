// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of `backend i2c --sim` from the guest's side (virtio 1.3, 5.16).

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vhost::VhostBackend;
use vhost::vhost_user::Frontend;

use crate::board::Board;
use crate::guest::{Guest, Sent};

const QUEUE: usize = 0;
const F_ZERO_LENGTH_REQUEST: u64 = 1;
pub(crate) const FAIL_NEXT: u32 = 1;
pub(crate) const READ: u32 = 2;
const OK: u8 = 0;
const ERR: u8 = 1;

pub(crate) const THERMOMETER: u16 = 0x48;
const EEPROM: u16 = 0x50;
const CLOCK: u16 = 0x68;

pub(crate) const BOARD: &str = r#"
    [[i2c.target]]
    address = 0x48
    model = "lm75"
    temperature = 23.5
    [[i2c.target]]
    address = 0x50
    model = "at24c02"
    [[i2c.target]]
    address = 0x68
    model = "ds1307"
"#;

/// Starts a daemon whose guest may reach [`THERMOMETER`] only, and negotiates all features except `without`.
pub(crate) fn start(without: u64) -> (Board, Guest) {
    let (board, socket) = Board::start("i2c", BOARD, &["--allow", "0x48"]);
    (board, Guest::connect(socket, 1, without))
}

/// Likewise, with all features and an in-flight record.
pub(crate) fn start_recorded() -> (Board, Guest) {
    let (board, socket) = Board::start("i2c", BOARD, &["--allow", "0x48"]);
    (board, Guest::connect_recorded(socket, 1))
}

/// Checks that the device answers a request.
pub(crate) fn check_service(guest: &mut Guest) {
    let (request, room) = read(THERMOMETER, 0, 2);
    assert_eq!(guest.ask(QUEUE, &request, room), [0x17, 0x80, OK]);
}

struct Bench {
    guest: Guest,
    board: Board,
}

impl Bench {
    fn new() -> Self {
        let (board, socket) = Board::start("i2c", BOARD, &["--allow", "0x48,0x50-0x57"]);
        let guest = Guest::connect(socket, 1, 0);
        Self { guest, board }
    }

    /// Sends all requests at once, and returns the answers.
    fn exchange(&mut self, requests: &[(Vec<u8>, u32)]) -> Vec<Vec<u8>> {
        let sent = self.guest.send_all(QUEUE, requests);
        self.answers(&sent)
    }

    fn answers(&mut self, sent: &[Sent]) -> Vec<Vec<u8>> {
        let answer = |sent: &Sent| {
            let used = self.guest.wait(QUEUE);
            self.guest.answer(*sent, used)
        };
        sent.iter().map(answer).collect()
    }

    /// Returns the messages and the result of each transaction in the journal.
    fn wire(&self) -> Vec<(Value, String)> {
        let line = |line: Value| (line["messages"].clone(), line["result"].as_str().unwrap_or("").to_owned());
        self.board.journal().into_iter().map(line).collect()
    }
}

pub(crate) fn write(address: u16, flags: u32, data: &[u8]) -> (Vec<u8>, u32) {
    (message(address, flags, data), 1)
}

pub(crate) fn read(address: u16, flags: u32, length: u32) -> (Vec<u8>, u32) {
    (message(address, flags | READ, &[]), length + 1)
}

fn message(address: u16, flags: u32, data: &[u8]) -> Vec<u8> {
    [&(address << 1).to_le_bytes()[..], &[0, 0], &flags.to_le_bytes(), data].concat()
}

/// 5.16.6.4: "A device MUST offer the VIRTIO_I2C_F_ZERO_LENGTH_REQUEST feature and MUST reject any driver
/// that doesn't negotiate this feature."
#[test]
fn a_driver_without_zero_length_requests_is_rejected() {
    let (board, socket) = Board::start("i2c", BOARD, &["--allow", "any"]);
    let frontend = Frontend::from_stream(socket, 1);
    frontend.set_owner().expect("an owner");
    let offered = frontend.get_features().expect("features");
    assert_eq!(offered & F_ZERO_LENGTH_REQUEST, F_ZERO_LENGTH_REQUEST);
    frontend.set_features(offered & !F_ZERO_LENGTH_REQUEST).expect("a message");
    assert!(frontend.get_features().is_err(), "the connection is closed");
    assert!(board.ended());
}

/// Zephyr's driver is one.
#[test]
fn with_no_strict_only_empty_messages_of_such_a_driver_fail() {
    let (board, socket) = Board::start("i2c", BOARD, &["--allow", "any", "--no-strict"]);
    let mut guest = Guest::connect(socket, 1, F_ZERO_LENGTH_REQUEST);
    let mut ask = |requests: &[(Vec<u8>, u32)]| {
        let sent = guest.send_all(QUEUE, requests);
        sent.into_iter()
            .map(|sent| {
                let used = guest.wait(QUEUE);
                guest.answer(sent, used)
            })
            .collect::<Vec<_>>()
    };
    let good = read(THERMOMETER, 0, 2);
    let answers = ask(&[write(THERMOMETER, 0, &[]), good.clone(), read(THERMOMETER, 0, 0), good.clone()]);
    assert_eq!(answers, [vec![ERR], vec![0x17, 0x80, OK], vec![ERR], vec![0x17, 0x80, OK]]);
    // A group with one fails as a whole.
    assert_eq!(ask(&[write(THERMOMETER, FAIL_NEXT, &[]), good]), [vec![ERR], vec![0, 0, ERR]]);
    assert_eq!(board.journal().len(), 2);
}

/// A driver that accepts the feature has all of it.
#[test]
fn with_no_strict_a_driver_with_the_feature_sends_empty_messages() {
    let (_board, socket) = Board::start("i2c", BOARD, &["--allow", "any", "--no-strict"]);
    let mut guest = Guest::connect(socket, 1, 0);
    let (request, room) = write(THERMOMETER, 0, &[]);
    assert_eq!(guest.ask(QUEUE, &request, room), [OK]);
}

/// A frontend with REPLY_ACK keeps its session.
#[test]
fn the_rings_of_a_rejected_driver_are_not_processed() {
    let mut bench = Bench::new();
    bench.guest.accept(!F_ZERO_LENGTH_REQUEST).expect_err("a rejection");
    let (request, room) = read(THERMOMETER, 0, 2);
    let sent = bench.guest.send(QUEUE, &request, room);
    assert!(bench.guest.used(QUEUE).is_none());
    bench.guest.accept(u64::MAX).expect("all features");
    bench.guest.continue_at(&[0]);
    assert_eq!(bench.answers(&[sent]), [[0x17, 0x80, OK]]);
    assert_eq!(bench.wire().len(), 1);
}

#[test]
fn joined_requests_are_one_transaction() {
    let mut bench = Bench::new();
    let answers = bench.exchange(&[write(THERMOMETER, FAIL_NEXT, &[0]), read(THERMOMETER, 0, 2)]);
    assert_eq!(answers, [vec![OK], vec![0x17, 0x80, OK]]);
    let messages = json!([{ "address": 72, "write": "00" }, { "address": 72, "read": "1780" }]);
    assert_eq!(bench.wire(), [(messages, "ok".into())]);
}

#[test]
fn requests_that_are_not_joined_are_separate_transactions() {
    let mut bench = Bench::new();
    let answers = bench.exchange(&[write(THERMOMETER, 0, &[0]), read(THERMOMETER, 0, 2)]);
    assert_eq!(answers, [vec![OK], vec![0x17, 0x80, OK]]);
    assert_eq!(bench.wire().len(), 2);
}

#[test]
fn bytes_that_were_written_are_read_back() {
    let mut bench = Bench::new();
    let data: Vec<u8> = (1..=8).collect();
    let page = write(EEPROM, 0, &[&[0x10][..], &data].concat());
    let back = [write(EEPROM, FAIL_NEXT, &[0x10]), read(EEPROM, 0, 8)];
    assert_eq!(bench.exchange(&[page]), [[OK]]);
    assert_eq!(bench.exchange(&back)[1], [&data[..], &[OK]].concat());
}

/// 5.16.6.1: `buf` "will not be present for a zero-length request".
#[test]
fn empty_messages_reach_the_wire() {
    let mut bench = Bench::new();
    let answers = bench.exchange(&[write(THERMOMETER, 0, &[]), read(THERMOMETER, 0, 0), read(0x57, 0, 0)]);
    assert_eq!(answers, [[OK], [OK], [ERR]]);
    let expected = [
        (json!([{ "address": 72, "write": "" }]), "ok".into()),
        (json!([{ "address": 72, "read": "" }]), "ok".into()),
        (json!([{ "address": 87, "read": "" }]), "nak".into()),
    ];
    assert_eq!(bench.wire(), expected);
}

/// 5.16.6.4: "a device MUST set the status of the first failed request to be VIRTIO_I2C_MSG_ERR". Earlier
/// requests succeed, later ones of the group fail, and the next group is not affected.
#[test]
fn a_failure_ends_its_group_only() {
    let mut bench = Bench::new();
    let answers = bench.exchange(&[
        write(THERMOMETER, FAIL_NEXT, &[0]),
        read(0x57, FAIL_NEXT, 2),
        read(THERMOMETER, 0, 2),
        read(THERMOMETER, 0, 2),
    ]);
    assert_eq!(answers, [vec![OK], vec![0, 0, ERR], vec![0, 0, ERR], vec![0x17, 0x80, OK]]);
    let results: Vec<_> = bench.wire().into_iter().map(|(_, result)| result).collect();
    assert_eq!(results, ["nak", "ok"]);
}

#[test]
fn a_group_with_a_forbidden_address_does_not_reach_the_wire() {
    let mut bench = Bench::new();
    let forbidden = [
        vec![read(CLOCK, 0, 7)],
        vec![write(THERMOMETER, FAIL_NEXT, &[0]), read(CLOCK, 0, 1)],
        vec![write(CLOCK, FAIL_NEXT, &[0]), read(THERMOMETER, 0, 1)],
        vec![write(THERMOMETER, FAIL_NEXT, &[0]), write(CLOCK, FAIL_NEXT, &[0]), read(THERMOMETER, 0, 1)],
    ];
    for group in forbidden {
        for answer in bench.exchange(&group) {
            assert_eq!(answer.last(), Some(&ERR), "{group:?}");
        }
    }
    assert_eq!(bench.wire(), []);
    assert_eq!(bench.exchange(&[read(THERMOMETER, 0, 2)]), [[0x17, 0x80, OK]]);
}

/// 5.16.6.1, the table of addresses: A9 and A8 are beside 11110, A7 to A0 in the second byte.
#[test]
fn a_10_bit_address_reaches_its_target() {
    let target = "[[i2c.target]]\naddress = 0xa150\nmodel = \"lm75\"\ntemperature = 23.5\n";
    let (board, socket) = Board::start("i2c", target, &["--allow", "0xa150"]);
    let mut guest = Guest::connect(socket, 1, 0);
    let read = |low: u8, high: u8| [&[low, high, 0, 0][..], &READ.to_le_bytes()].concat();
    assert_eq!(guest.ask(QUEUE, &read(0xf2, 0x50), 3), [0x17, 0x80, OK]);
    for (low, high) in [(0xf0, 0x50), (0xf4, 0x50), (0xf2, 0x51), (0xf3, 0x50), (0xa0, 0)] {
        assert_eq!(guest.ask(QUEUE, &read(low, high), 3), [0, 0, ERR], "{high:#x} {low:#x}");
    }
    let line = json!([{ "address": 0x150, "ten-bit": true, "read": "1780" }]);
    assert_eq!(
        board.journal().into_iter().map(|entry| entry["messages"].clone()).collect::<Vec<_>>(),
        [line]
    );
}

/// The number is that of an allowed 7-bit address.
#[test]
fn a_10_bit_address_must_be_allowed_itself() {
    let mut bench = Bench::new();
    let ten_bit = |low: u8| [&[low, 0x48, 0, 0][..], &READ.to_le_bytes()].concat();
    assert_eq!(bench.exchange(&[(ten_bit(0xf0), 2), (ten_bit(0xf2), 2)]), [[0, ERR], [0, ERR]]);
    assert_eq!(bench.wire(), []);
}

#[test]
fn malformed_requests_fail_alone() {
    let mut bench = Bench::new();
    let (good, room) = read(THERMOMETER, 0, 2);
    let bad = [
        (good[..7].to_vec(), 3),                  // shorter than its header
        (message(THERMOMETER, READ, &[1]), 3),    // a read with data
        (message(THERMOMETER, 0, &[1]), 3),       // a write with a buffer for the device
        (message(THERMOMETER, READ | 4, &[]), 3), // a reserved flag
        (message(0x148, READ, &[]), 3),           // an address of neither form
    ];
    for request in bad {
        assert_eq!(bench.exchange(std::slice::from_ref(&request)), [[0, 0, ERR]], "{request:?}");
    }
    // No room for a status.
    let sent = bench.guest.send(QUEUE, &good, 0);
    assert_eq!(bench.answers(&[sent]), [Vec::<u8>::new()]);
    assert_eq!(bench.wire(), []);
    assert_eq!(bench.exchange(&[(good, room)]), [[0x17, 0x80, OK]]);
}

/// 5.16.6.4: "A device MUST NOT change the value of addr, and reserved bits of flags", nor "the value of the
/// buf for a write request". `padding` is ignored.
#[test]
fn the_bytes_of_the_driver_are_not_changed() {
    let mut bench = Bench::new();
    let mut padded = message(THERMOMETER, 0, &[3, 1, 2]);
    padded[2..4].copy_from_slice(&[0x5a, 0xa5]);
    let requests = [
        (padded, OK),
        (message(0x57, 0, &[1, 2, 3, 4]), ERR),
        (message(CLOCK, 0, &[1, 2, 3, 4]), ERR),
        (message(THERMOMETER, 0xffff_fff0, &[1, 2]), ERR),
    ];
    for (request, status) in requests {
        let sent = bench.guest.send(QUEUE, &request, 1);
        assert_eq!(bench.answers(&[sent]), [[status]], "{request:?}");
        let length = u32::try_from(request.len()).expect("short");
        assert_eq!(bench.guest.memory(sent.request, length), request);
    }
}

/// 5.16.6.4: "A device MUST guarantee the requests in the virtqueue being processed in order if multiple
/// requests are received at a time."
#[test]
fn requests_are_carried_out_and_answered_in_their_order() {
    let mut bench = Bench::new();
    let write_to = |place: u8| write(EEPROM, 0, &[place, place]);
    let requests: Vec<_> = (0..20).map(write_to).collect();
    // `answers` compares the order of the heads.
    assert_eq!(bench.exchange(&requests), vec![[OK]; 20]);
    let expected: Vec<_> = (0..20)
        .map(|place| (json!([{ "address": 80, "write": format!("{place:02x}{place:02x}") }]), "ok".into()))
        .collect();
    assert_eq!(bench.wire(), expected);
}

/// Linux's driver kicks a part of a group when the ring is full, and waits for its answer.
#[test]
fn an_incomplete_group_is_carried_out_after_a_wait() {
    let mut bench = Bench::new();
    assert_eq!(bench.exchange(&[write(THERMOMETER, FAIL_NEXT, &[0])]), [[OK]]);
    assert_eq!(bench.exchange(&[write(0x57, FAIL_NEXT, &[0])]), [[ERR]]);
    assert_eq!(bench.exchange(&[read(THERMOMETER, 0, 2)]), [[0, 0, ERR]], "FAIL_NEXT applies after the wait");
    assert_eq!(bench.exchange(&[read(THERMOMETER, 0, 2)]), [[0x17, 0x80, OK]]);
}

#[test]
fn injected_faults_fail_requests() {
    let mut bench = Bench::new();
    let mut control = bench.board.control();
    let nak = json!({ "inject": { "address": 72, "fault": "nak" } });
    let timeout = json!({ "inject": { "address": 72, "fault": "timeout", "count": 1 } });
    let warmer = json!({ "set-temperature": { "address": 72, "celsius": 30.25 } });
    for command in [nak, timeout, warmer] {
        assert_eq!(control.execute(&command), json!({ "ok": null }));
    }
    assert!(control.execute(&json!({ "explode": {} }))["error"].is_string());
    let requests = vec![read(THERMOMETER, 0, 2); 3];
    assert_eq!(bench.exchange(&requests), [[0, 0, ERR], [0, 0, ERR], [30, 0x40, OK]]);
}

#[test]
fn a_daemon_whose_bus_hangs_can_be_terminated() {
    let mut bench = Bench::new();
    let mut control = bench.board.control();
    control.execute(&json!({ "inject": { "address": 72, "fault": { "delay-ms": 3_600_000 } } }));
    let (request, room) = read(THERMOMETER, 0, 2);
    bench.guest.send(QUEUE, &request, room);
    assert!(!bench.board.terminate().success());
}

/// A frontend takes a daemon for one that hangs if it does not answer for 5 s.
#[test]
fn while_the_bus_is_busy_the_daemon_answers_and_stops_queues() {
    let mut bench = Bench::new();
    let mut control = bench.board.control();
    control.execute(&json!({ "inject": { "address": 72, "fault": { "delay-ms": 5000 } } }));
    let start = Instant::now();
    let sent = bench.guest.send_all(QUEUE, &[read(THERMOMETER, 0, 2), read(THERMOMETER, 0, 2)]);
    // The daemon has both when it answers.
    for _ in 0..1000 {
        bench.guest.features();
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    bench.guest.stop();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(bench.answers(&sent), [[0, 0, ERR], [0, 0, ERR]]);
    // The next driver's requests wait for the transaction on the bus.
    bench.guest.start();
    assert_eq!(bench.exchange(&[read(THERMOMETER, 0, 2)]), [[0x17, 0x80, OK]]);
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert_eq!(bench.wire().len(), 2, "a transaction that had not begun is cancelled");
}

#[test]
fn a_frontend_does_not_see_state_of_the_former_one() {
    let board = Board::listen("i2c", BOARD, &["--allow", "0x48"]);
    for _ in 0..3 {
        let mut guest = Guest::connect(board.connect(), 1, 0);
        let answer = guest.ask(QUEUE, &read(THERMOMETER, 0, 2).0, 3);
        assert_eq!(answer, [0x17, 0x80, OK]);
        // The head of a group, without the rest.
        let (request, room) = write(THERMOMETER, FAIL_NEXT, &[3]);
        guest.send(QUEUE, &request, room);
    }
}

#[test]
fn a_driver_is_served_again_after_each_reset() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        assert_eq!(bench.exchange(&[read(THERMOMETER, 0, 2)]), [[0x17, 0x80, OK]]);
        bench.guest.stop();
        bench.guest.start();
    }
}
