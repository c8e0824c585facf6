// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of `backend gpio --sim` from the guest's side (virtio 1.3, 5.18).

use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use crate::board::{Board, Control, until};
use crate::guest::{Descriptor, Guest, NEXT, RING, Sent, WRITE};

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

/// A board, its control socket and its guest.
struct Bench {
    guest: Guest,
    control: Control,
    board: Board,
}

impl Bench {
    fn new() -> Self {
        Self::start(BOARD, |socket| Guest::connect(socket, 2, 0))
    }

    /// Starts a daemon with an in-flight record.
    fn recorded(board: &str) -> Self {
        Self::start(board, |socket| Guest::connect_recorded(socket, 2))
    }

    fn start(board: &str, connect: impl FnOnce(UnixStream) -> Guest) -> Self {
        let (board, socket) = Board::start("gpio", board, &[]);
        let guest = connect(socket);
        Self { guest, control: board.control(), board }
    }

    /// Replaces the daemon, with which the guest continues.
    fn replace(&mut self) {
        let socket = self.board.replace();
        self.guest.continue_with(socket);
        self.control = self.board.control();
    }

    /// Unmasks a line, and returns its buffer.
    fn unmask(&mut self, line: u16) -> Sent {
        self.guest.send(EVENTS, &line.to_le_bytes(), 1)
    }

    /// Waits for an event buffer, and checks that it reports an interrupt.
    fn expect_interrupt(&mut self, sent: Sent) {
        let used = self.guest.wait(EVENTS);
        assert_eq!(self.guest.answer(sent, used), [1]);
    }

    fn ask(&mut self, message: u16, line: u16, value: u32) -> Vec<u8> {
        self.guest.ask(REQUESTS, &request(message, line, value), 2)
    }

    fn succeed(&mut self, message: u16, line: u16, value: u32) {
        assert_eq!(self.ask(message, line, value), [0, 0], "message {message} for line {line}");
    }

    fn drive(&mut self, line: u16, value: u8) {
        let answer = self.control.execute(&json!({ "drive": { "line": line, "value": value } }));
        assert_eq!(answer, json!({ "ok": {} }));
    }

    fn read(&mut self, line: u16) -> Value {
        self.control.execute(&json!({ "read": { "line": line } }))["ok"].clone()
    }

    /// Unmasks a line, waits for its buffer, and returns its status.
    fn unmask_and_wait(&mut self, line: u16) -> u8 {
        let sent = self.unmask(line);
        let used = self.guest.wait(EVENTS);
        let answer = self.guest.answer(sent, used);
        assert_eq!(answer.len(), 1);
        answer[0]
    }

    /// Checks that no event buffer is returned. A daemon that has answered a request has handled all earlier
    /// events.
    fn expect_no_event(&mut self) {
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

/// 5.18.6.9: "The device MUST process multiple messages, for the same GPIO line, sequentially and respond to
/// them in the order they were received on the virtqueue."
#[test]
fn requests_for_one_line_are_carried_out_and_answered_in_their_order() {
    let mut bench = Bench::new();
    bench.succeed(SET_DIRECTION, 0, OUTPUT);
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
    reset_queues(Bench::recorded(BOARD));
}

fn reset_queues(mut bench: Bench) {
    bench.succeed(SET_DIRECTION, BUTTON, INPUT);
    for _ in 0..3 {
        bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
        bench.unmask(BUTTON);
        // The buffer that waits for an event is the driver's again, without an answer.
        bench.guest.reset_queue(EVENTS);
        bench.drive(BUTTON, 1);
        bench.expect_no_event();
        bench.succeed(SET_IRQ_TYPE, BUTTON, NONE);
        bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
        let sent = bench.unmask(BUTTON);
        bench.drive(BUTTON, 0);
        bench.expect_interrupt(sent);
        // And for the other queue.
        bench.guest.reset_queue(REQUESTS);
        assert_eq!(bench.ask(GET_VALUE, BUTTON, 0), [0, 0]);
        bench.succeed(SET_IRQ_TYPE, BUTTON, NONE);
    }
}

#[test]
fn an_output_drives_the_board_and_the_lines_that_it_is_wired_to() {
    let mut bench = Bench::new();
    bench.succeed(SET_VALUE, 0, 1);
    bench.succeed(SET_DIRECTION, 0, OUTPUT);
    bench.succeed(SET_DIRECTION, 1, INPUT);
    assert_eq!(bench.read(0), json!({ "direction": "output", "value": 1 }));
    assert_eq!(bench.ask(GET_VALUE, 1, 0), [0, 1]);
    bench.succeed(SET_VALUE, 0, 0);
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
    bench.succeed(SET_DIRECTION, BUTTON, INPUT);
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    let sent = bench.unmask(BUTTON);
    bench.expect_no_event();
    bench.drive(BUTTON, 1);
    bench.expect_interrupt(sent);
    assert_eq!(bench.ask(GET_VALUE, BUTTON, 0), [0, 1]);
    // The line is masked now.
    bench.drive(BUTTON, 0);
    bench.drive(BUTTON, 1);
    bench.expect_no_event();
    assert_eq!(bench.unmask_and_wait(BUTTON), 1);
    bench.unmask(BUTTON);
    bench.expect_no_event();
}

#[test]
fn disabling_leaves_nothing_latched_and_returns_the_buffer() {
    let mut bench = Bench::new();
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    bench.drive(BUTTON, 1);
    bench.succeed(SET_IRQ_TYPE, BUTTON, NONE);
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    let sent = bench.unmask(BUTTON);
    bench.expect_no_event();
    bench.succeed(SET_IRQ_TYPE, BUTTON, NONE);
    let used = bench.guest.wait(EVENTS);
    assert_eq!(bench.guest.answer(sent, used), [0]);
    bench.drive(BUTTON, 0);
    bench.expect_no_event();
}

#[test]
fn a_level_is_reported_as_long_as_it_lasts() {
    let mut bench = Bench::new();
    bench.succeed(SET_IRQ_TYPE, BUTTON, HIGH);
    bench.drive(BUTTON, 1);
    bench.drive(BUTTON, 0);
    let sent = bench.unmask(BUTTON);
    bench.expect_no_event();
    bench.drive(BUTTON, 1);
    bench.expect_interrupt(sent);
    assert_eq!(bench.unmask_and_wait(BUTTON), 1);
}

/// Upstream's daemon panics on a line that does not exist.
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
    bench.succeed(SET_VALUE, 0, 1);
}

#[test]
fn a_malformed_chain_affects_no_other() {
    let mut bench = Bench::new();
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    let good = bench.unmask(BUTTON);
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
    bench.succeed(SET_VALUE, 0, 1);
    bench.drive(BUTTON, 1);
    bench.expect_interrupt(good);
}

/// 2.7.4.1, also with empty descriptors.
#[test]
fn the_arrangement_of_descriptors_makes_no_difference() {
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
    // The names cannot be written, and the status can: it is ERR.
    let names = bench.guest.place(&request(1, 0, 0));
    let mut chain = [at(names, 8, 0), at(status, 1, WRITE), at(0xdead_beef_0000, 19, WRITE)];
    assert_eq!(bench.guest.send_linked(REQUESTS, &mut chain).length, 0);
    assert_eq!(bench.guest.memory(status, 1), [1]);
}

#[test]
fn buffers_of_a_wrong_size_are_returned() {
    let mut bench = Bench::new();
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    for (request, room) in [(&[3][..], 1), (&[3, 0, 0], 1), (&[3, 0], 0), (&[], 1)] {
        bench.guest.send(EVENTS, request, room);
        assert_eq!(bench.guest.wait(EVENTS).length, room.min(1));
    }
    for (request, room) in [(vec![], 2), (vec![2], 2), (request(GET_VALUE, 0, 0), 1)] {
        let answer = bench.guest.ask(REQUESTS, &request, room);
        assert_eq!(answer.first(), Some(&1));
    }
}

/// After a reset nothing is written to guest memory, and no line or interrupt is in use.
#[test]
fn a_reset_releases_lines_and_returns_buffers() {
    let mut bench = Bench::new();
    bench.succeed(SET_DIRECTION, 0, OUTPUT);
    bench.succeed(SET_VALUE, 0, 1);
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    bench.unmask(BUTTON);
    bench.expect_no_event();
    for _ in 0..3 {
        bench.guest.stop();
        // The buffer was returned before the queue stopped, and there is none for a later edge.
        assert_eq!(bench.guest.used(EVENTS).map(|used| used.length), Some(1));
        bench.drive(BUTTON, 1);
        bench.drive(BUTTON, 0);
        assert_eq!(bench.read(0), json!({ "direction": "none", "value": 0 }));
        assert_eq!(bench.guest.used(EVENTS), None);

        bench.guest.start();
        assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 0]);
        assert_eq!(bench.unmask_and_wait(BUTTON), 0, "the interrupt is disabled");
        bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
        let sent = bench.unmask(BUTTON);
        bench.expect_no_event();
        bench.drive(BUTTON, 1);
        bench.expect_interrupt(sent);
        bench.unmask(BUTTON);
        bench.expect_no_event();
    }
}

/// QEMU pauses a machine by stopping the rings, and continues at the same indices.
#[test]
fn lines_and_interrupts_are_the_same_after_a_pause() {
    let mut bench = Bench::new();
    bench.succeed(SET_VALUE, 0, 1);
    bench.succeed(SET_DIRECTION, 0, OUTPUT);
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    bench.unmask(BUTTON);
    bench.expect_no_event();
    let bases = bench.guest.stop();
    assert_eq!(bench.guest.used(EVENTS).map(|used| used.length), Some(1));
    assert_eq!(bench.read(0), json!({ "direction": "none", "value": 0 }));
    bench.guest.continue_at(&bases);
    assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 1]);
    assert_eq!(bench.read(0), json!({ "direction": "output", "value": 1 }));
    let sent = bench.unmask(BUTTON);
    bench.expect_no_event();
    bench.drive(BUTTON, 1);
    bench.expect_interrupt(sent);
}

#[test]
fn without_the_feature_there_are_no_interrupts() {
    let (_board, socket) = Board::start("gpio", BOARD, &[]);
    let mut guest = Guest::connect(socket, 2, F_IRQ);
    assert_eq!(guest.ask(REQUESTS, &request(SET_IRQ_TYPE, 0, BOTH), 2), [1, 0]);
    assert_eq!(guest.ask(REQUESTS, &request(SET_DIRECTION, 0, INPUT), 2), [0, 0]);
}

#[test]
fn the_daemon_ends_with_success_when_its_frontend_disconnects() {
    let Bench { guest, board, .. } = Bench::new();
    drop(guest);
    assert!(board.ended());
}

#[test]
fn each_of_a_thousand_edges_is_reported() {
    let mut bench = Bench::new();
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    for edge in 0..1000_u16 {
        let sent = bench.unmask(BUTTON);
        bench.drive(BUTTON, u8::from(edge % 2 == 0));
        bench.expect_interrupt(sent);
    }
    bench.expect_no_event();
}

const SAFE_BOARD: &str = r#"
    [gpio]
    lines = ["lamp", "valve", "free", "heater"]
    safe = { valve = 1, heater = "stay" }
"#;

/// Starts a board with an in-flight record, and drives all lines to `level`.
fn driven(level: u8) -> Bench {
    let mut bench = Bench::recorded(SAFE_BOARD);
    for line in 0..4 {
        bench.succeed(SET_VALUE, line, level.into());
        bench.succeed(SET_DIRECTION, line, OUTPUT);
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
        assert_eq!(lines(&mut bench), [level; 4].map(output), "not before the frontend reports the reset");
        bench.guest.reset();
        let released = json!({ "direction": "none", "value": 0 });
        assert_eq!(lines(&mut bench), [released.clone(), output(1), released, output(level)]);
        bench.guest.start();
        bench.succeed(SET_DIRECTION, 1, OUTPUT);
        assert_eq!(bench.read(1), output(0), "the driver's value");
    }
}

/// Without a record and RESET_DEVICE a stop may be a reset, and a frontend that disconnects does not return.
#[test]
fn lines_go_to_their_safe_values_when_the_queues_stop_for_an_unknown_reason() {
    let board = Board::listen("gpio", SAFE_BOARD, &[]);
    let guest = Guest::connect(board.connect(), 2, 0);
    let mut bench = Bench { guest, control: board.control(), board };
    assert_eq!(bench.read(1), output(1), "from the start");
    bench.succeed(SET_DIRECTION, 1, OUTPUT);
    assert_eq!(bench.read(1), output(0));
    bench.guest.stop();
    assert_eq!(bench.read(1), output(1));
    bench.guest.start();
    bench.succeed(SET_DIRECTION, 1, OUTPUT);
    assert_eq!(bench.read(1), output(0));
    let Bench { guest, mut control, board: _board } = bench;
    drop(guest);
    until("the valve has its safe value", || {
        let answer = control.execute(&json!({ "read": { "line": 1 } }));
        (answer["ok"] == output(1)).then_some(())
    });
}

/// A record does not mean that the frontend returns: cloud-hypervisor's generic device keeps one, and does
/// not report resets. If it does return, the lines are set up from its record.
#[test]
fn lines_go_to_their_safe_values_whichever_way_a_frontend_disconnects() {
    let ways: [fn(Guest) -> Option<Guest>; 3] = [
        |_| None,
        |mut guest| {
            guest.stop();
            None
        },
        // A message that cannot be answered closes the connection.
        |guest| {
            guest.try_stop(7).expect_err("no such queue");
            Some(guest)
        },
    ];
    for without in [VhostUserProtocolFeatures::RESET_DEVICE, VhostUserProtocolFeatures::empty()] {
        for way in ways {
            let board = Board::listen("gpio", SAFE_BOARD, &[]);
            let guest = Guest::connect_recorded_without(board.connect(), 2, without);
            let mut bench = Bench { guest, control: board.control(), board };
            bench.succeed(SET_DIRECTION, 1, OUTPUT);
            bench.succeed(SET_VALUE, 0, 1);
            bench.succeed(SET_DIRECTION, 0, OUTPUT);
            let Bench { guest, mut control, board } = bench;
            let remaining = way(guest);
            let released = json!({ "direction": "none", "value": 0 });
            for (line, safe) in [(0, released), (1, output(1))] {
                until("the line has its safe value", || {
                    let answer = control.execute(&json!({ "read": { "line": line } }));
                    (answer["ok"] == safe).then_some(())
                });
            }
            if let Some(mut guest) = remaining {
                guest.continue_with(board.connect());
                let mut bench = Bench { guest, control, board };
                assert_eq!((bench.read(0), bench.read(1)), (output(1), output(0)));
                assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 1]);
            }
        }
    }
}

/// A frontend without RESET_DEVICE does not clear the record.
#[test]
fn a_new_driver_of_a_frontend_without_reset_device_finds_no_line_in_use() {
    let mut bench = Bench::start(SAFE_BOARD, |socket| {
        Guest::connect_recorded_without(socket, 2, VhostUserProtocolFeatures::RESET_DEVICE)
    });
    bench.succeed(SET_VALUE, 0, 1);
    bench.succeed(SET_DIRECTION, 0, OUTPUT);
    bench.guest.stop();
    bench.guest.start();
    assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 0]);
    assert_eq!(bench.read(0), json!({ "direction": "none", "value": 0 }));
}

/// Linux's frontend (arch/um/drivers/virtio_uml.c) disables the rings when the driver is unbound, and reuses
/// their memory.
#[test]
fn a_disabled_ring_is_not_written_to() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
        bench.unmask(BUTTON);
        bench.expect_no_event();
        bench.guest.disable();
        bench.drive(BUTTON, 1);
        bench.drive(BUTTON, 0);
        assert_eq!(bench.guest.used(EVENTS), None);
        bench.guest.start();
        assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 0]);
        assert_eq!(bench.guest.used(EVENTS), None);
    }
    // If it is enabled again, no event is lost.
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    let sent = bench.unmask(BUTTON);
    bench.expect_no_event();
    bench.guest.disable();
    bench.drive(BUTTON, 1);
    assert_eq!(bench.guest.used(EVENTS), None);
    bench.guest.enable();
    bench.expect_interrupt(sent);
}

/// The simulated board ends with the daemon, so the journal has what the new daemon does.
#[test]
fn a_daemon_that_takes_over_drives_the_outputs_of_the_former() {
    let mut bench = driven(1);
    let before = bench.board.journal().len();
    bench.replace();
    assert_eq!(lines(&mut bench), [1; 4].map(output));
    let journal = bench.board.journal().split_off(before);
    let zeros = journal.iter().filter(|entry| entry["event"] == "value" && entry["value"] == 0);
    assert_eq!((journal.len(), zeros.count()), (8, 0), "no line was ever low: {journal:?}");
    assert_eq!(bench.ask(GET_DIRECTION, 0, 0), [0, 1]);
    bench.succeed(SET_VALUE, 0, 0);
    assert_eq!(bench.read(0), output(0));
}

#[test]
fn an_event_buffer_waits_over_several_daemons() {
    let mut bench = Bench::recorded(BOARD);
    bench.succeed(SET_IRQ_TYPE, BUTTON, BOTH);
    let sent = bench.unmask(BUTTON);
    bench.expect_no_event();
    for _ in 0..3 {
        bench.replace();
        bench.expect_no_event();
    }
    bench.drive(BUTTON, 1);
    bench.expect_interrupt(sent);
    // The board of the next daemon has the line low again: an edge while no daemon ran.
    let sent = bench.unmask(BUTTON);
    bench.expect_no_event();
    bench.replace();
    bench.expect_interrupt(sent);
}
