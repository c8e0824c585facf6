// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::*;
use crate::gpio::fake::FakeLines;

const REQUESTS: usize = 0;
const EVENTS: usize = 1;

fn device(names: &[Option<&str>]) -> Gpio<FakeLines> {
    let names: Vec<_> = names.iter().map(|name| name.map(str::to_owned)).collect();
    let mut device = Gpio::new(FakeLines::new(names.len()), &names, &vec![SafeValue::Release; names.len()])
        .expect("good names");
    device.accept_features(1 << spec::F_IRQ).expect("known features");
    device
}

fn process<L: Lines>(device: &mut Gpio<L>, queue: usize, request: &[u8], room: usize) -> Vec<Vec<u8>> {
    answers(device, Chain::detached(queue, request, room))
}

fn answers<L: Lines>(device: &mut Gpio<L>, chain: Chain) -> Vec<Vec<u8>> {
    let mut finished = Vec::new();
    device.process(chain.queue(), &mut vec![chain], &mut finished);
    finished.iter().map(|chain| chain.answer().to_vec()).collect()
}

fn message(kind: u16, line: u16, value: u32) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &line.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// 5.18.6.1, with the names of the specification's own example.
#[test]
fn names_are_one_block_with_a_zero_for_each_line() {
    let mut names = [None; 10];
    names[0] = Some("MMC-CD");
    names[5] = Some("Red LED Vdd");
    names[7] = Some("ethernet reset");
    let mut device = device(&names);
    let block = b"MMC-CD\0\0\0\0\0Red LED Vdd\0\0ethernet reset\0\0\0";
    assert_eq!(device.config(), spec::config(10, u32::try_from(block.len()).expect("short")));
    let answer = process(&mut device, REQUESTS, &message(1, 0, 0), 1 + block.len());
    assert_eq!(answer, [[&[0], &block[..]].concat()]);
    for room in 1..=block.len() {
        let short = process(&mut device, REQUESTS, &message(1, 0, 0), room);
        let refused = [vec![spec::STATUS_ERR], vec![0; room - 1]].concat();
        assert_eq!(short, [refused], "all that there is of the array is set");
    }
}

/// 5.18.4: a size of zero means that there are no names, and GET_LINE_NAMES is not supported then.
#[test]
fn without_names_the_names_request_is_refused() {
    let mut device = device(&[None, None]);
    assert_eq!(device.config(), [2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(process(&mut device, REQUESTS, &message(1, 0, 0), 2), [[spec::STATUS_ERR, 0]]);
}

#[test]
fn names_that_the_specification_forbids_are_refused() {
    let new = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| Some((*name).to_owned())).collect();
        Gpio::new(FakeLines::new(names.len()), &names, &vec![SafeValue::Release; names.len()]).err()
    };
    assert_eq!(new(&["a", "b", "a"]), Some(NameError::Twice("a".to_owned())));
    for name in ["", "tür", "a\0b", &"x".repeat(NAME_MAX + 1)] {
        assert_eq!(new(&[name]), Some(NameError::Characters(name.to_owned())));
    }
    assert_eq!(new(&["Red LED Vdd", "a,b=c", "\u{1}\n\u{7f}"]), None);
    assert_eq!(new(&[]), Some(NameError::Count(0)));
    let most = usize::from(LINES_MAX);
    assert!(Gpio::new(FakeLines::new(most), &vec![None; most], &vec![SafeValue::Release; most]).is_ok());
    assert!(
        Gpio::new(FakeLines::new(most + 1), &vec![None; most + 1], &vec![SafeValue::Release; most + 1])
            .is_err()
    );
}

/// 5.18.6.9: "The device MUST set all the fields of the struct virtio_gpio_response".
#[test]
fn every_request_is_answered_in_full() {
    let mut device = device(&[None; 3]);
    let ok = |value| vec![vec![spec::STATUS_OK, value]];
    let refused = vec![vec![spec::STATUS_ERR, 0]];
    assert_eq!(process(&mut device, REQUESTS, &message(3, 2, 1), 2), ok(0));
    assert_eq!(process(&mut device, REQUESTS, &message(5, 2, 1), 9), ok(0));
    assert_eq!(process(&mut device, REQUESTS, &message(4, 2, 0), 2), ok(1));
    assert_eq!(process(&mut device, REQUESTS, &message(2, 2, 0), 2), ok(1));
    for bad in
        [message(4, 3, 0), message(4, 0xffff, 0), message(9, 0, 0), message(3, 0, 3), vec![], vec![0; 9]]
    {
        assert_eq!(process(&mut device, REQUESTS, &bad, 2), refused);
    }
    // No room, or only for a status.
    assert_eq!(process(&mut device, REQUESTS, &message(4, 2, 0), 0), [[0_u8; 0]]);
    assert_eq!(process(&mut device, REQUESTS, &message(4, 2, 0), 1), [[spec::STATUS_ERR]]);
}

#[test]
fn an_event_buffer_of_a_wrong_size_is_returned_alone() {
    let mut device = device(&[None; 3]);
    assert_eq!(process(&mut device, REQUESTS, &message(6, 1, 1), 2), [[0, 0]]);
    let none: Vec<Vec<u8>> = Vec::new();
    assert_eq!(process(&mut device, EVENTS, &[1, 0], 1), none);
    for (request, room) in [(&[1][..], 1), (&[1, 0, 0], 1), (&[], 1), (&[3, 0], 1), (&[0xff, 0xff], 1)] {
        assert_eq!(process(&mut device, EVENTS, request, room), [[0]], "{request:?}");
    }
    assert_eq!(process(&mut device, EVENTS, &[1, 0], 0), [[0_u8; 0]]);
    // NONE returns the one valid buffer.
    assert_eq!(process(&mut device, REQUESTS, &message(6, 1, 0), 2), [vec![0, 0], vec![0]]);
}

/// 5.18.6.6: interrupts must be negotiated.
#[test]
fn without_the_feature_there_are_no_interrupts() {
    let mut device = device(&[None]);
    device.accept_features(0).expect("known features");
    assert_eq!(process(&mut device, REQUESTS, &message(6, 0, 1), 2), [[spec::STATUS_ERR, 0]]);
    assert_eq!(process(&mut device, EVENTS, &[0, 0], 1), [[0]]);
}

/// A frontend stops both queues, in their order, when the guest resets the device.
#[test]
fn a_stop_of_both_queues_returns_buffers_and_clears_lines() {
    let mut device = device(&[None; 2]);
    process(&mut device, REQUESTS, &message(6, 0, 3), 2);
    process(&mut device, REQUESTS, &message(3, 1, 1), 2);
    process(&mut device, EVENTS, &[0, 0], 1);
    let mut finished = Vec::new();
    device.stop(REQUESTS, QueueStop::MaybeReset, &mut finished);
    assert_eq!(finished.len(), 1);
    assert_eq!((finished[0].queue(), finished[0].answer()), (EVENTS, &[0][..]));
    device.stop(EVENTS, QueueStop::MaybeReset, &mut finished);
    device.handle_event(0, &mut finished);
    assert_eq!(finished.len(), 1);
    device.start(REQUESTS, QueueStart::NewDriver);
    assert_eq!(process(&mut device, REQUESTS, &message(2, 1, 0), 2), [[0, 0]]);
}

/// Tests on a simulated chip, whose journal has every change of a line.
#[cfg(feature = "sim")]
mod simulated {
    use super::*;
    use crate::gpio::sim::{SimulatedChip, SimulatedLines};
    use crate::sim::board::GpioChip;
    use crate::sim::journal::Journal;

    /// Creates a device of two simulated lines that are wired to each other.
    fn wired(journal: Journal) -> Gpio<SimulatedLines> {
        let names = ["led", "button"].map(str::to_owned);
        let chip = GpioChip { lines: names.to_vec(), wires: vec![[0, 1]], ..GpioChip::default() };
        let lines = SimulatedLines::new(SimulatedChip::new(&chip, journal).expect("a chip"), None);
        let mut device = Gpio::new(lines, &names.map(Some), &[SafeValue::Release; 2]).expect("good names");
        device.accept_features(1 << spec::F_IRQ).expect("known features");
        device
    }

    /// It may or may not have been carried out: it is not repeated.
    #[test]
    fn a_request_in_flight_of_a_former_daemon_fails_and_changes_nothing() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut device = wired(Journal::append_to(file.path()).expect("a journal"));
        let journal = || std::fs::read_to_string(file.path()).expect("a journal");
        let refused = vec![vec![spec::STATUS_ERR, 0]];
        assert_eq!(process(&mut device, REQUESTS, &message(3, 0, 1), 2), [[0, 0]]);
        let before = journal();
        // Names; SET_DIRECTION to none, output and input; GET_VALUE; SET_VALUE; SET_IRQ_TYPE.
        for (kind, line, value) in
            [(1, 0, 0), (3, 0, 0), (3, 1, 1), (3, 1, 2), (4, 0, 0), (5, 0, 1), (6, 1, 3)]
        {
            let chain = Chain::detached(REQUESTS, &message(kind, line, value), 64).after_interruption();
            assert_eq!(answers(&mut device, chain), refused, "message {kind}");
        }
        assert_eq!(journal(), before);
        let directions = [0, 1].map(|line| process(&mut device, REQUESTS, &message(2, line, 0), 2));
        assert_eq!(directions, [[[0, 1]], [[0, 0]]]);
        assert_eq!(process(&mut device, REQUESTS, &message(4, 0, 0), 2), [[0, 0]]);
        assert_eq!(process(&mut device, EVENTS, &[1, 0], 1), [[0]], "no interrupt");
        // A new request is carried out.
        assert_eq!(process(&mut device, REQUESTS, &message(5, 0, 1), 2), [[0, 0]]);
        assert_ne!(journal(), before);
    }

    /// Nothing is done for an event buffer before it is returned, so nothing can be repeated.
    #[test]
    fn an_event_buffer_in_flight_of_a_former_daemon_waits_like_a_new_one() {
        let mut device = wired(Journal::default());
        let buffer = || Chain::detached(EVENTS, &[1, 0], 1).after_interruption();
        process(&mut device, REQUESTS, &message(3, 0, 1), 2);
        process(&mut device, REQUESTS, &message(6, 1, 1), 2);
        let none: Vec<Vec<u8>> = Vec::new();
        assert_eq!(answers(&mut device, buffer()), none);
        assert_eq!(process(&mut device, REQUESTS, &message(5, 0, 1), 2), [[0, 0]]);
        let mut finished = Vec::new();
        device.handle_event(1, &mut finished);
        assert_eq!((finished[0].queue(), finished[0].answer()), (EVENTS, &[1][..]));
        assert_eq!(finished.len(), 1);
    }
}
