// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device as the core sees it: from chains to requests, and from answers to chains.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use log::{debug, warn};

use crate::chain::{Chain, Limits};
use crate::device::{Device, Left, QueueLimits, RING_SIZE, Refused, Start, Stop, Work};
use crate::inflight::Tail;
use crate::watch::Watcher;

use super::chip::Lines;
use super::controller::{Controller, Error};
use super::policy::Policy;
use super::request;
use super::safe::Safe;
use super::spec::{self, IrqStatus};

/// Longest name of a line, as in Linux's character device (32 bytes with the zero at the end).
pub const NAME_MAX: usize = 31;

/// How many lines a device may have: the buffers of all their interrupts, two descriptors each, fit into
/// the event queue together.
pub const LINES_MAX: u16 = RING_SIZE / 2;

/// A request of a wrong size still gets an answer that says so, up to this one.
const OVERSIZED_REQUEST: usize = 4 * spec::REQUEST_SIZE;

/// The answer to GET_LINE_NAMES is the longest: a status, and all names.
const NAMES_ANSWER: usize = 1 + (LINES_MAX as usize) * (NAME_MAX + 1);

/// Indexed by queue.
const QUEUES: [QueueLimits; spec::QUEUES] = [
    QueueLimits { size: RING_SIZE, chain: Limits { request: OVERSIZED_REQUEST, answer: NAMES_ANSWER } },
    QueueLimits { size: RING_SIZE, chain: Limits { request: OVERSIZED_REQUEST, answer: OVERSIZED_REQUEST } },
];

/// Why a set of names cannot be that of a device.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No lines, or more than the rings can serve.
    #[error("a GPIO device has 1 to {LINES_MAX} lines, not {0}")]
    Count(usize),
    /// Too long, or not 7-bit ASCII (virtio 1.3, 5.18.6.1).
    #[error("the name {0:?} is not 1 to {NAME_MAX} characters of 7-bit ASCII")]
    Characters(String),
    /// 5.18.6.1: "the name must be unique within a GPIO Device".
    #[error("two lines have the name {0:?}")]
    Twice(String),
}

/// A GPIO device over hardware `L`.
pub struct Gpio<L> {
    controller: Controller<L, Chain>,
    policy: Policy,
    /// Lines whose hardware failed, and which were complained about: a guest must not fill the log.
    failed: HashSet<u16>,
    names: Vec<u8>,
    config: [u8; spec::CONFIG_SIZE],
}

impl<L: Lines> Gpio<L> {
    /// A device whose lines have these names, where they have one, and these safe values.
    ///
    /// # Errors
    /// When the names are not as the specification wants them.
    pub fn new(hardware: L, names: &[Option<String>], safe: &[Safe]) -> Result<Self, NameError> {
        let count = u16::try_from(names.len())
            .ok()
            .filter(|count| (1..=LINES_MAX).contains(count))
            .ok_or(NameError::Count(names.len()))?;
        let names = names_block(names)?;
        let size = u32::try_from(names.len()).unwrap_or(0);
        Ok(Self {
            controller: Controller::new(hardware, safe),
            policy: Policy::new(count),
            failed: HashSet::new(),
            names,
            config: spec::config(count, size),
        })
    }

    /// One message of the request queue.
    fn answer(&mut self, chain: &mut Chain) {
        chain.on_failure(0, spec::STATUS_ERR);
        if chain.was_interrupted() {
            // It may have been carried out: the driver is told that nobody knows.
            return chain.set_answer(&request::response(None));
        }
        match self.carry_out(chain.request()) {
            Ok(Answer::Value(value)) if chain.room() >= spec::RESPONSE_SIZE => {
                chain.set_answer(&request::response(Some(value)));
            }
            // "The device sets this to 0 if it doesn't support names" (5.18.4): then there is no message.
            Ok(Answer::Names) if !self.names.is_empty() && chain.room() > self.names.len() => {
                let (_, answer) = chain.parts(1 + self.names.len());
                if let [status, block @ ..] = answer {
                    *status = spec::STATUS_OK;
                    block.copy_from_slice(&self.names);
                }
            }
            Ok(Answer::Names) => {
                debug!("the names are asked for without the room for them, or where there are none");
                // All fields are set, also those of an array that is too short (5.18.6.9).
                if let (_, [status, ..]) = chain.parts(chain.room()) {
                    *status = spec::STATUS_ERR;
                }
            }
            Ok(Answer::Value(_)) => {
                debug!("a request without the room for its answer");
                chain.set_answer(&request::response(None));
            }
            Err(error) => {
                debug!("request refused: {error}");
                chain.set_answer(&request::response(None));
            }
        }
    }

    /// Parse, authorise, execute. A request whose answer has no room is carried out all the same: nothing
    /// in it says that the driver wants it undone.
    fn carry_out(&mut self, request: &[u8]) -> Result<Answer, Box<dyn std::error::Error>> {
        let request = self.policy.authorise(request::parse(request)?)?;
        let Some(line) = request.line() else { return Ok(Answer::Names) };
        match self.controller.execute(request) {
            Ok(value) => Ok(Answer::Value(value)),
            Err(Error::Hardware(error)) if self.failed.insert(line.number()) => {
                warn!("the guest's line {}: {error}", line.number());
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One buffer of the event queue; given back at once if it unmasks nothing. One that a former daemon kept is as good
    /// as new: it waits, and nothing was done for it.
    fn unmask(&mut self, mut chain: Chain, finished: &mut Vec<Chain>) {
        if chain.room() < spec::IRQ_RESPONSE_SIZE {
            debug!("an event buffer without room for a status");
            return finished.push(chain);
        }
        let line = request::parse_unmask(chain.request())
            .map_err(|error| error.to_string())
            .and_then(|line| self.policy.authorise_unmask(line).map_err(|error| error.to_string()));
        match line {
            Ok(line) => self.controller.unmask(line, chain),
            Err(error) => {
                debug!("event buffer refused: {error}");
                chain.set_answer(&IrqStatus::Invalid.to_wire());
                finished.push(chain);
            }
        }
    }

    /// Moves the event buffers that go back to `finished`.
    fn give_back(&mut self, finished: &mut Vec<Chain>) {
        finished.extend(self.controller.returned().map(|(mut chain, status)| {
            let [invalid] = IrqStatus::Invalid.to_wire();
            chain.on_failure(0, invalid);
            chain.set_answer(&status.to_wire());
            chain
        }));
    }
}

/// What a request that worked is answered with.
enum Answer {
    /// `struct virtio_gpio_response`.
    Value(u8),
    /// `struct virtio_gpio_response_N`.
    Names,
}

/// The names as GET_LINE_NAMES returns them; nothing, if no line has one (5.18.6.1).
fn names_block(names: &[Option<String>]) -> Result<Vec<u8>, NameError> {
    let mut block = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if let Some(name) = name {
            // A zero ends a name.
            let is_ascii = name.bytes().all(|byte| (1..=0x7f).contains(&byte));
            if !is_ascii || !(1..=NAME_MAX).contains(&name.len()) {
                return Err(NameError::Characters(name.clone()));
            }
            if names.iter().take(index).flatten().any(|earlier| earlier == name) {
                return Err(NameError::Twice(name.clone()));
            }
            block.extend(name.bytes());
        }
        block.push(0);
    }
    let any = names.iter().any(Option::is_some);
    Ok(if any { block } else { Vec::new() })
}

impl<L: Lines> Device for Gpio<L> {
    fn queues(&self) -> &'static [QueueLimits] {
        &QUEUES
    }

    fn features(&self) -> u64 {
        1 << spec::F_IRQ
    }

    fn accept_features(&mut self, features: u64) -> Result<(), Refused> {
        self.policy.set_interrupts(features & (1 << spec::F_IRQ) != 0);
        Ok(())
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn process(&mut self, queue: usize, requests: &mut Vec<Chain>, finished: &mut Vec<Chain>) {
        for mut chain in requests.drain(..) {
            if queue == usize::from(spec::EVENT_QUEUE) {
                self.unmask(chain, finished);
            } else {
                self.answer(&mut chain);
                finished.push(chain);
            }
            self.give_back(finished);
        }
    }

    /// Lines are set and read at once.
    fn work(&mut self) -> Option<Arc<dyn Work>> {
        None
    }

    fn worked(&mut self, _finished: &mut Vec<Chain>) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn event(&mut self, token: u32, finished: &mut Vec<Chain>) {
        self.controller.event(token);
        self.give_back(finished);
    }

    fn start(&mut self, queue: usize, start: Start) {
        if queue == usize::from(spec::REQUEST_QUEUE) {
            self.controller.start(start);
        }
    }

    /// Most frontends stop both queues when the guest resets the device, and also to pause it. The lines are not the
    /// guest's any more in any case.
    fn stop(&mut self, queue: usize, meaning: Stop, finished: &mut Vec<Chain>) {
        if meaning == Stop::PerhapsReset || queue == usize::from(spec::EVENT_QUEUE) {
            self.controller.stop_events();
            self.give_back(finished);
        }
        if meaning == Stop::PerhapsReset && queue == usize::from(spec::REQUEST_QUEUE) {
            self.controller.suspend();
        }
    }

    fn record_bytes(&self) -> usize {
        self.controller.record_bytes()
    }

    fn take_over(&mut self, tail: Tail) {
        self.controller.take_over(tail);
    }

    fn survives(&self) -> bool {
        self.controller.survives()
    }

    fn leave(&mut self, left: Left) {
        self.policy.set_interrupts(false);
        self.controller.leave(left);
    }

    fn reset(&mut self) {
        self.policy.set_interrupts(false);
        self.controller.reset();
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.controller.watch(watcher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpio::fake::FakeLines;
    use crate::gpio::sim::{Board, SimLines};
    use crate::sim::board::GpioChip;
    use crate::sim::journal::Journal;

    const REQUESTS: usize = 0;
    const EVENTS: usize = 1;

    fn device(names: &[Option<&str>]) -> Gpio<FakeLines> {
        let names: Vec<_> = names.iter().map(|name| name.map(str::to_owned)).collect();
        let mut device = Gpio::new(FakeLines::new(names.len()), &names, &vec![Safe::Release; names.len()])
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

    /// Two lines of the simulation, wired to each other.
    fn wired(journal: Journal) -> Gpio<SimLines> {
        let names = ["led", "button"].map(str::to_owned);
        let chip = GpioChip { lines: names.to_vec(), wires: vec![[0, 1]], ..GpioChip::default() };
        let lines = SimLines::new(Board::new(&chip, journal).expect("a board"), None);
        let mut device = Gpio::new(lines, &names.map(Some), &[Safe::Release; 2]).expect("good names");
        device.accept_features(1 << spec::F_IRQ).expect("known features");
        device
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

    /// 5.18.4: a size of zero says that there are no names, and then the message is not supported.
    #[test]
    fn without_names_there_is_no_block() {
        let mut device = device(&[None, None]);
        assert_eq!(device.config(), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(process(&mut device, REQUESTS, &message(1, 0, 0), 2), [[spec::STATUS_ERR, 0]]);
    }

    #[test]
    fn names_that_the_specification_forbids_are_refused() {
        let new = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| Some((*name).to_owned())).collect();
            Gpio::new(FakeLines::new(names.len()), &names, &vec![Safe::Release; names.len()]).err()
        };
        assert_eq!(new(&["a", "b", "a"]), Some(NameError::Twice("a".to_owned())));
        for name in ["", "tür", "a\0b", &"x".repeat(NAME_MAX + 1)] {
            assert_eq!(new(&[name]), Some(NameError::Characters(name.to_owned())));
        }
        assert_eq!(new(&["Red LED Vdd", "a,b=c", "\u{1}\n\u{7f}"]), None);
        assert_eq!(new(&[]), Some(NameError::Count(0)));
        let most = usize::from(LINES_MAX);
        assert!(Gpio::new(FakeLines::new(most), &vec![None; most], &vec![Safe::Release; most]).is_ok());
        assert!(
            Gpio::new(FakeLines::new(most + 1), &vec![None; most + 1], &vec![Safe::Release; most + 1])
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
    fn an_event_buffer_of_a_wrong_size_comes_back_and_harms_no_other() {
        let mut device = device(&[None; 3]);
        assert_eq!(process(&mut device, REQUESTS, &message(6, 1, 1), 2), [[0, 0]]);
        let none: Vec<Vec<u8>> = Vec::new();
        assert_eq!(process(&mut device, EVENTS, &[1, 0], 1), none);
        for (request, room) in [(&[1][..], 1), (&[1, 0, 0], 1), (&[], 1), (&[3, 0], 1), (&[0xff, 0xff], 1)] {
            assert_eq!(process(&mut device, EVENTS, request, room), [[0]], "{request:?}");
        }
        assert_eq!(process(&mut device, EVENTS, &[1, 0], 0), [[0_u8; 0]]);
        // NONE brings back the one good buffer.
        assert_eq!(process(&mut device, REQUESTS, &message(6, 1, 0), 2), [vec![0, 0], vec![0]]);
    }

    /// 5.18.6.6: interrupts only if negotiated.
    #[test]
    fn without_the_feature_there_are_no_interrupts() {
        let mut device = device(&[None]);
        device.accept_features(0).expect("known features");
        assert_eq!(process(&mut device, REQUESTS, &message(6, 0, 1), 2), [[spec::STATUS_ERR, 0]]);
        assert_eq!(process(&mut device, EVENTS, &[0, 0], 1), [[0]]);
    }

    /// Nobody knows how far the former daemon came: it is not tried again, and the driver hears that it failed.
    #[test]
    fn a_request_that_a_former_daemon_had_fails_and_moves_nothing() {
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
        // What the driver says anew is done.
        assert_eq!(process(&mut device, REQUESTS, &message(5, 0, 1), 2), [[0, 0]]);
        assert_ne!(journal(), before);
    }

    /// Nothing is done for an event buffer before it goes back, so there is nothing that could be done twice.
    #[test]
    fn an_event_buffer_that_a_former_daemon_had_waits_like_any_other() {
        let mut device = wired(Journal::default());
        let buffer = || Chain::detached(EVENTS, &[1, 0], 1).after_interruption();
        process(&mut device, REQUESTS, &message(3, 0, 1), 2);
        process(&mut device, REQUESTS, &message(6, 1, 1), 2);
        let none: Vec<Vec<u8>> = Vec::new();
        assert_eq!(answers(&mut device, buffer()), none);
        assert_eq!(process(&mut device, REQUESTS, &message(5, 0, 1), 2), [[0, 0]]);
        let mut finished = Vec::new();
        device.event(1, &mut finished);
        assert_eq!((finished[0].queue(), finished[0].answer()), (EVENTS, &[1][..]));
        assert_eq!(finished.len(), 1);
    }

    /// What a frontend does when the guest resets: both queues stop, in their order.
    #[test]
    fn stopped_queues_leave_nothing_behind() {
        let mut device = device(&[None; 2]);
        process(&mut device, REQUESTS, &message(6, 0, 3), 2);
        process(&mut device, REQUESTS, &message(3, 1, 1), 2);
        process(&mut device, EVENTS, &[0, 0], 1);
        let mut finished = Vec::new();
        device.stop(REQUESTS, Stop::PerhapsReset, &mut finished);
        assert_eq!(finished.len(), 1);
        assert_eq!((finished[0].queue(), finished[0].answer()), (EVENTS, &[0][..]));
        device.stop(EVENTS, Stop::PerhapsReset, &mut finished);
        device.event(0, &mut finished);
        assert_eq!(finished.len(), 1);
        device.start(REQUESTS, Start::Anew);
        assert_eq!(process(&mut device, REQUESTS, &message(2, 1, 0), 2), [[0, 0]]);
    }
}
