// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `backend gpio --sim` from the guest's side (virtio 1.3, 5.18).

use serde_json::{Value, json};
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use crate::board::{Board, Control, until};
use crate::guest::{Descriptor, Guest, NEXT, RING, WRITE};

const REQUESTS: usize = 0;
const EVENTS: usize = 1;
const F_IRQ: u64 = 1;

const BOARD: &str = r#"
    [gpio]
    lines = ["led", "mirror", "", "button"]
    wires = [[0, 1]]
"#;

const BUTTON: u16 = 3;

const GET_DIRECTION: u16 = 2;
const SET_DIRECTION: u16 = 3;
const GET_VALUE: u16 = 4;
const SET_VALUE: u16 = 5;
const SET_IRQ_TYPE: u16 = 6;

const NONE: u32 = 0;
const OUTPUT: u32 = 1;
const INPUT: u32 = 2;
const BOTH: u32 = 3;
const HIGH: u32 = 4;

/// The board, its guest, and who pushes the button.
struct Bench {
    guest: Guest,
    control: Control,
    board: Board,
}

impl Bench {
    fn new() -> Self {
        let (board, socket) = Board::start("gpio", BOARD, &[]);
        let guest = Guest::connect(socket, 2, 0);
        let control = board.control();
        Self { guest, control, board }
    }

    /// With chains in flight recorded.
    fn recorded() -> Self {
        let (board, socket) = Board::start("gpio", BOARD, &[]);
        let guest = Guest::connect_recorded(socket, 2);
        let control = board.control();
        Self { guest, control, board }
    }

    fn ask(&mut self, message: u16, line: u16, value: u32) -> Vec<u8> {
        self.guest.ask(REQUESTS, &request(message, line, value), 2)
    }

    fn does(&mut self, message: u16, line: u16, value: u32) {
        assert_eq!(self.ask(message, line, value), [0, 0], "message {message} for line {line}");
    }

    fn drive(&mut self, line: u16, value: u8) {
        let answer = self.control.tell(&json!({ "drive": { "line": line, "value": value } }));
        assert_eq!(answer, json!({ "ok": {} }));
    }

    fn read(&mut self, line: u16) -> Value {
        self.control.tell(&json!({ "read": { "line": line } }))["ok"].clone()
    }

    /// Unmasks a line, waits for its buffer, and returns its status.
    fn unmask_and_wait(&mut self, line: u16) -> u8 {
        let sent = self.guest.send(EVENTS, &line.to_le_bytes(), 1);
        let used = self.guest.wait(EVENTS);
        let answer = self.guest.answer(sent, used);
        assert_eq!(answer.len(), 1);
        answer[0]
    }

    /// Nothing comes back on the event queue. The daemon has seen all that happened before this when it has answered
    /// a request, as it does one thing after another.
    fn quiet(&mut self) {
        self.ask(GET_VALUE, 0, 0);
        assert_eq!(self.guest.used(EVENTS), None);
    }
}

fn request(message: u16, line: u16, value: u32) -> Vec<u8> {
    [&message.to_le_bytes()[..], &line.to_le_bytes(), &value.to_le_bytes()].concat()
}

#[test]
fn configuration_and_names_are_those_of_the_board() {
    let mut bench = Bench::new();
    let names = b"led\0mirror\0\0button\0";
    assert_eq!(bench.guest.config(8), [4, 0, 0, 0, 19, 0, 0, 0]);
    let answer = bench.guest.ask(REQUESTS, &request(1, 0, 0), 20);
    assert_eq!(answer, [&[0], &names[..]].concat());
}

/// 5.18.6.9: "The device MUST process multiple messages, for the same GPIO line, sequentially and respond to them in
/// the order they were received on the virtqueue."
#[test]
fn requests_for_one_line_are_carried_out_and_answered_in_their_order() {
    let mut bench = Bench::new();
    bench.does(SET_DIRECTION, 0, OUTPUT);
    let batch: Vec<_> = (0..15)
        .flat_map(|turn| [(request(SET_VALUE, 0, turn % 2), 2), (request(GET_VALUE, 0, 0), 2)])
        .collect();
    for (index, sent) in bench.guest.send_all(REQUESTS, &batch).into_iter().enumerate() {
        let used = bench.guest.wait(REQUESTS);
        let level = u8::from(index % 4 == 3);
        assert_eq!(bench.guest.answer(sent, used), [0, level], "message {index}");
    }
}

/// Virtio 1.3, 2.6.1: the driver resets a queue alone.
#[test]
fn a_queue_is_reset_while_the_other_runs() {
    reset_queues(Bench::new());
    reset_queues(Bench::recorded());
}

fn reset_queues(mut bench: Bench) {
    bench.does(SET_DIRECTION, BUTTON, INPUT);
    for round in 0..3 {
        bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
        bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
        // The buffer that waits for an event is the driver's again, and nothing will be said of it.
        bench.guest.reset_queue(EVENTS);
        bench.drive(BUTTON, 1);
        bench.quiet();
        bench.does(SET_IRQ_TYPE, BUTTON, NONE);
        bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
        let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
        bench.drive(BUTTON, 0);
        let used = bench.guest.wait(EVENTS);
        assert_eq!(bench.guest.answer(sent, used), [1], "round {round}");
        // And the other way round.
        bench.guest.reset_queue(REQUESTS);
        assert_eq!(bench.ask(GET_VALUE, BUTTON, 0), [0, 0]);
        bench.does(SET_IRQ_TYPE, BUTTON, NONE);
    }
}

#[test]
fn an_output_shows_on_the_board_and_on_what_it_is_wired_to() {
    let mut bench = Bench::new();
    bench.does(SET_VALUE, 0, 1);
    bench.does(SET_DIRECTION, 0, OUTPUT);
    bench.does(SET_DIRECTION, 1, INPUT);
    assert_eq!(bench.read(0), json!({ "direction": "output", "value": 1 }));
    assert_eq!(bench.ask(GET_VALUE, 1, 0), [0, 1]);
    bench.does(SET_VALUE, 0, 0);
    assert_eq!(bench.ask(GET_VALUE, 1, 0), [0, 0]);
    assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 1]);
    let journal = bench.board.journal();
    let first = json!({ "seq": 1, "bus": "gpio", "line": 0, "event": "direction", "value": "output" });
    assert_eq!(journal.first(), Some(&first));
    assert_eq!(journal.len(), 4, "{journal:?}");
}

#[test]
fn an_edge_from_outside_reaches_the_guest_and_a_masked_one_is_latched() {
    let mut bench = Bench::new();
    bench.does(SET_DIRECTION, BUTTON, INPUT);
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
    bench.drive(BUTTON, 1);
    let used = bench.guest.wait(EVENTS);
    assert_eq!(bench.guest.answer(sent, used), [1]);
    assert_eq!(bench.ask(GET_VALUE, BUTTON, 0), [0, 1]);
    // Masked now.
    bench.drive(BUTTON, 0);
    bench.drive(BUTTON, 1);
    bench.quiet();
    assert_eq!(bench.unmask_and_wait(BUTTON), 1);
    bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
}

#[test]
fn disabling_leaves_nothing_latched_and_returns_the_buffer() {
    let mut bench = Bench::new();
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    bench.drive(BUTTON, 1);
    bench.does(SET_IRQ_TYPE, BUTTON, NONE);
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
    bench.does(SET_IRQ_TYPE, BUTTON, NONE);
    let used = bench.guest.wait(EVENTS);
    assert_eq!(bench.guest.answer(sent, used), [0]);
    bench.drive(BUTTON, 0);
    bench.quiet();
}

#[test]
fn a_level_is_told_as_long_as_it_lasts() {
    let mut bench = Bench::new();
    bench.does(SET_IRQ_TYPE, BUTTON, HIGH);
    bench.drive(BUTTON, 1);
    bench.drive(BUTTON, 0);
    let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
    bench.drive(BUTTON, 1);
    let used = bench.guest.wait(EVENTS);
    assert_eq!(bench.guest.answer(sent, used), [1]);
    assert_eq!(bench.unmask_and_wait(BUTTON), 1);
}

/// Upstream's daemon panics on the first.
#[test]
fn lines_and_messages_that_do_not_exist_are_refused() {
    let mut bench = Bench::new();
    for line in [4, 5, 0x100, u16::MAX] {
        for message in [GET_DIRECTION, SET_DIRECTION, GET_VALUE, SET_VALUE, SET_IRQ_TYPE] {
            assert_eq!(bench.ask(message, line, 0), [1, 0]);
        }
        assert_eq!(bench.unmask_and_wait(line), 0);
    }
    for message in [0, 7, u16::MAX] {
        assert_eq!(bench.ask(message, 0, 0), [1, 0]);
    }
    bench.does(SET_VALUE, 0, 1);
}

#[test]
fn a_malformed_chain_costs_itself_only() {
    let mut bench = Bench::new();
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    let good = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    let nowhere = Descriptor { address: 0xdead_beef_0000, length: 8, flags: 0, next: 0 };
    for queue in [REQUESTS, EVENTS] {
        let buffer = bench.guest.place(&[0; 64]);
        let somewhere = Descriptor { address: buffer, ..nowhere };
        let chains: [&[Descriptor]; 6] = [
            &[nowhere],
            &[Descriptor { flags: WRITE, ..nowhere }],
            &[Descriptor { length: u32::MAX, ..somewhere }],
            &[Descriptor { length: 0, ..somewhere }],
            &[Descriptor { flags: NEXT, next: RING, ..somewhere }],
            &[Descriptor { flags: NEXT | WRITE, next: 0, ..somewhere }],
        ];
        for chain in chains {
            let head = bench.guest.send_raw(queue, chain);
            let used = bench.guest.wait(queue);
            assert_eq!(used.head, head, "{chain:?}");
        }
    }
    bench.does(SET_VALUE, 0, 1);
    bench.drive(BUTTON, 1);
    let used = bench.guest.wait(EVENTS);
    assert_eq!(bench.guest.answer(good, used), [1]);
}

/// How a request or an event buffer is cut makes no difference, pieces of no bytes included (2.7.4.1).
#[test]
fn how_a_buffer_is_cut_into_descriptors_makes_no_difference() {
    let mut bench = Bench::new();
    let empty = |flags| Descriptor { address: 0xdead_beef_0000, length: 0, flags, next: 0 };
    let at = |address, length, flags| Descriptor { address, length, flags, next: 0 };
    let (set, answer) = (bench.guest.place(&request(SET_VALUE, 0, 1)), bench.guest.place(&[0xaa; 2]));
    let mut chain = [
        empty(0),
        at(set, 3, 0),
        at(set + 3, 5, 0),
        empty(WRITE),
        at(answer, 1, WRITE),
        at(answer + 1, 1, WRITE),
        empty(WRITE),
    ];
    assert_eq!(bench.guest.send_linked(REQUESTS, &mut chain).length, 2);
    assert_eq!(bench.guest.memory(answer, 2), [0, 0]);
    let (line, status) = (bench.guest.place(&BUTTON.to_le_bytes()), bench.guest.place(&[0xaa]));
    let mut chain = [at(line, 1, 0), empty(0), at(line + 1, 1, 0), empty(WRITE), at(status, 1, WRITE)];
    assert_eq!(bench.guest.send_linked(EVENTS, &mut chain).length, 1);
    assert_eq!(bench.guest.memory(status, 1), [0], "no interrupt is enabled");
    // The names have no place, and the status has: it says that the request failed.
    let names = bench.guest.place(&request(1, 0, 0));
    let mut chain = [at(names, 8, 0), at(status, 1, WRITE), at(0xdead_beef_0000, 19, WRITE)];
    assert_eq!(bench.guest.send_linked(REQUESTS, &mut chain).length, 0);
    assert_eq!(bench.guest.memory(status, 1), [1]);
}

#[test]
fn buffers_of_a_wrong_size_come_back() {
    let mut bench = Bench::new();
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    for (request, room) in [(&[3][..], 1), (&[3, 0, 0], 1), (&[3, 0], 0), (&[], 1)] {
        bench.guest.send(EVENTS, request, room);
        assert_eq!(bench.guest.wait(EVENTS).length, room.min(1));
    }
    for (request, room) in [(vec![], 2), (vec![2], 2), (request(GET_VALUE, 0, 0), 1)] {
        let answer = bench.guest.ask(REQUESTS, &request, room);
        assert_eq!(answer.first(), Some(&1));
    }
}

/// What is left of a guest that reset its device: nothing that writes to its memory, no line, no interrupt.
#[test]
fn a_reset_leaves_nothing_behind() {
    let mut bench = Bench::new();
    bench.does(SET_DIRECTION, 0, OUTPUT);
    bench.does(SET_VALUE, 0, 1);
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
    for _ in 0..3 {
        bench.guest.stop();
        // The buffer came back before the queue stopped, and an edge finds none any more.
        assert_eq!(bench.guest.used(EVENTS).map(|used| used.length), Some(1));
        bench.drive(BUTTON, 1);
        bench.drive(BUTTON, 0);
        assert_eq!(bench.read(0), json!({ "direction": "none", "value": 0 }));
        assert_eq!(bench.guest.used(EVENTS), None);

        bench.guest.start();
        assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 0]);
        assert_eq!(bench.unmask_and_wait(BUTTON), 0, "the interrupt is not enabled any more");
        bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
        let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
        bench.quiet();
        bench.drive(BUTTON, 1);
        let used = bench.guest.wait(EVENTS);
        assert_eq!(bench.guest.answer(sent, used), [1]);
        bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
        bench.quiet();
    }
}

/// QEMU pauses a machine by stopping the rings, and goes on where they were: to the guest nothing has happened.
#[test]
fn a_pause_leaves_everything_as_it_was() {
    let mut bench = Bench::new();
    bench.does(SET_VALUE, 0, 1);
    bench.does(SET_DIRECTION, 0, OUTPUT);
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
    let bases = bench.guest.stop();
    assert_eq!(bench.guest.used(EVENTS).map(|used| used.length), Some(1));
    assert_eq!(bench.read(0), json!({ "direction": "none", "value": 0 }));
    bench.guest.go_on(&bases);
    assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 1]);
    assert_eq!(bench.read(0), json!({ "direction": "output", "value": 1 }));
    let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
    bench.drive(BUTTON, 1);
    let used = bench.guest.wait(EVENTS);
    assert_eq!(bench.guest.answer(sent, used), [1]);
}

#[test]
fn without_the_feature_there_are_no_interrupts() {
    let (_board, socket) = Board::start("gpio", BOARD, &[]);
    let mut guest = Guest::connect(socket, 2, F_IRQ);
    assert_eq!(guest.ask(REQUESTS, &request(SET_IRQ_TYPE, 0, BOTH), 2), [1, 0]);
    assert_eq!(guest.ask(REQUESTS, &request(SET_DIRECTION, 0, INPUT), 2), [0, 0]);
}

#[test]
fn the_daemon_ends_well_with_its_frontend() {
    let Bench { guest, board, .. } = Bench::new();
    drop(guest);
    assert!(board.ended());
}

/// Each of many edges arrives, and as soon as it is asked for.
#[test]
fn a_thousand_edges_arrive() {
    let mut bench = Bench::new();
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    for edge in 0..1000_u16 {
        let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
        bench.drive(BUTTON, u8::from(edge % 2 == 0));
        let used = bench.guest.wait(EVENTS);
        assert_eq!(bench.guest.answer(sent, used), [1], "edge {edge}");
    }
    bench.quiet();
}

const SAFE_BOARD: &str = r#"
    [gpio]
    lines = ["lamp", "valve", "free", "heater"]
    safe = { valve = 1, heater = "stay" }
"#;

/// A board whose frontend records what it does, with all lines driven to `level`.
fn driven(level: u8) -> Bench {
    let (board, socket) = Board::start("gpio", SAFE_BOARD, &[]);
    let guest = Guest::connect_recorded(socket, 2);
    let control = board.control();
    let mut bench = Bench { guest, control, board };
    for line in 0..4 {
        bench.does(SET_VALUE, line, level.into());
        bench.does(SET_DIRECTION, line, OUTPUT);
    }
    bench
}

fn output(value: u8) -> Value {
    json!({ "direction": "output", "value": value })
}

fn lines(bench: &mut Bench) -> [Value; 4] {
    [0, 1, 2, 3].map(|line| bench.read(line))
}

#[test]
fn lines_go_to_their_safe_values_when_the_driver_resets() {
    for level in [0, 1] {
        let mut bench = driven(level);
        bench.guest.stop();
        assert_eq!(lines(&mut bench), [level; 4].map(output), "not before the frontend says so");
        bench.guest.reset();
        let released = json!({ "direction": "none", "value": 0 });
        assert_eq!(lines(&mut bench), [released.clone(), output(1), released, output(level)]);
        bench.guest.start();
        bench.does(SET_DIRECTION, 1, OUTPUT);
        assert_eq!(bench.read(1), output(0), "the driver's value, not the safe one");
    }
}

/// A frontend that keeps no record and has no word for a reset: a stop may be one, and whoever leaves is gone.
#[test]
fn lines_are_safe_when_nobody_says_why_the_queues_stopped() {
    let board = Board::listen("gpio", SAFE_BOARD, &[]);
    let guest = Guest::connect(board.connect(), 2, 0);
    let mut bench = Bench { guest, control: board.control(), board };
    assert_eq!(bench.read(1), output(1), "from the start");
    bench.does(SET_DIRECTION, 1, OUTPUT);
    assert_eq!(bench.read(1), output(0));
    bench.guest.stop();
    assert_eq!(bench.read(1), output(1));
    bench.guest.start();
    bench.does(SET_DIRECTION, 1, OUTPUT);
    assert_eq!(bench.read(1), output(0));
    let Bench { guest, mut control, board: _board } = bench;
    drop(guest);
    until("the valve is safe", || {
        let answer = control.tell(&json!({ "read": { "line": 1 } }));
        (answer["ok"] == output(1)).then_some(())
    });
}

/// A record is no promise to come back: cloud-hypervisor's generic device keeps one, and has no word for a reset. However such a
/// frontend leaves, its lines are not driven for ever; and if it does come back, they are again what its record says.
#[test]
fn a_frontend_that_leaves_for_good_leaves_its_lines_safe() {
    let ways: [fn(Guest) -> Option<Guest>; 3] = [
        |_| None,
        |mut guest| {
            guest.stop();
            None
        },
        // A question that has no answer ends the connection.
        |guest| {
            guest.try_stop(7).expect_err("no such queue");
            Some(guest)
        },
    ];
    for lacking in [VhostUserProtocolFeatures::RESET_DEVICE, VhostUserProtocolFeatures::empty()] {
        for way in ways {
            let board = Board::listen("gpio", SAFE_BOARD, &[]);
            let guest = Guest::connect_recorded_without(board.connect(), 2, lacking);
            let mut bench = Bench { guest, control: board.control(), board };
            bench.does(SET_DIRECTION, 1, OUTPUT);
            bench.does(SET_VALUE, 0, 1);
            bench.does(SET_DIRECTION, 0, OUTPUT);
            let Bench { guest, mut control, board } = bench;
            let still_there = way(guest);
            let released = json!({ "direction": "none", "value": 0 });
            for (line, safe) in [(0, released), (1, output(1))] {
                until("the line is safe", || {
                    let answer = control.tell(&json!({ "read": { "line": line } }));
                    (answer["ok"] == safe).then_some(())
                });
            }
            if let Some(mut guest) = still_there {
                guest.go_on_with(board.connect());
                let mut bench = Bench { guest, control, board };
                assert_eq!((bench.read(0), bench.read(1)), (output(1), output(0)));
                assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 1]);
            }
        }
    }
}

/// Its record says nothing of that: only a frontend that has the word makes zeros of it.
#[test]
fn a_new_driver_of_a_frontend_without_a_word_for_a_reset_finds_no_line_in_use() {
    let (board, socket) = Board::start("gpio", SAFE_BOARD, &[]);
    let guest = Guest::connect_recorded_without(socket, 2, VhostUserProtocolFeatures::RESET_DEVICE);
    let mut bench = Bench { guest, control: board.control(), board };
    bench.does(SET_VALUE, 0, 1);
    bench.does(SET_DIRECTION, 0, OUTPUT);
    bench.guest.stop();
    bench.guest.start();
    assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 0]);
    assert_eq!(bench.read(0), json!({ "direction": "none", "value": 0 }));
}

/// Linux's frontend (arch/um/drivers/virtio_uml.c) disables the rings when the driver is unbound, whose memory is the kernel's
/// again then: nothing is written there any more.
#[test]
fn a_ring_that_is_disabled_is_not_written_to() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
        bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
        bench.quiet();
        bench.guest.disable();
        bench.drive(BUTTON, 1);
        bench.drive(BUTTON, 0);
        assert_eq!(bench.guest.used(EVENTS), None);
        bench.guest.start();
        assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 0]);
        assert_eq!(bench.guest.used(EVENTS), None);
    }
    // Where it is only enabled again, nothing is lost.
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
    bench.guest.disable();
    bench.drive(BUTTON, 1);
    assert_eq!(bench.guest.used(EVENTS), None);
    bench.guest.enable();
    let used = bench.guest.wait(EVENTS);
    assert_eq!(bench.guest.answer(sent, used), [1]);
}

/// The board is in the daemon here, and dies with it: so what shows is what the new daemon does to it.
#[test]
fn a_daemon_that_takes_over_drives_what_the_former_drove() {
    let mut bench = driven(1);
    let before = bench.board.journal().len();
    let socket = bench.board.replace();
    bench.guest.go_on_with(socket);
    bench.control = bench.board.control();
    assert_eq!(lines(&mut bench), [1; 4].map(output));
    let journal = bench.board.journal().split_off(before);
    let zeros = journal.iter().filter(|entry| entry["event"] == "value" && entry["value"] == 0);
    assert_eq!((journal.len(), zeros.count()), (8, 0), "no line was ever low: {journal:?}");
    assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 1]);
    bench.does(SET_VALUE, 0, 0);
    assert_eq!(bench.read(0), output(0));
}

#[test]
fn an_event_buffer_that_waited_goes_on_waiting() {
    let (board, socket) = Board::start("gpio", BOARD, &[]);
    let guest = Guest::connect_recorded(socket, 2);
    let control = board.control();
    let mut bench = Bench { guest, control, board };
    bench.does(SET_IRQ_TYPE, BUTTON, BOTH);
    let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
    for _ in 0..3 {
        let socket = bench.board.replace();
        bench.guest.go_on_with(socket);
        bench.control = bench.board.control();
        bench.quiet();
    }
    bench.drive(BUTTON, 1);
    let used = bench.guest.wait(EVENTS);
    assert_eq!(bench.guest.answer(sent, used), [1]);
    // The board of the next daemon has it low again: an edge that no daemon saw.
    let sent = bench.guest.send(EVENTS, &BUTTON.to_le_bytes(), 1);
    bench.quiet();
    let socket = bench.board.replace();
    bench.guest.go_on_with(socket);
    let used = bench.guest.wait(EVENTS);
    assert_eq!(bench.guest.answer(sent, used), [1]);
}
