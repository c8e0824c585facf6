// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Execute: the state machine of the lines and of the event queue (virtio 1.3, 5.18.6 and 5.18.7).
//!
//! It knows neither rings nor memory: a buffer of the event queue is a token of type `B` that it
//! keeps while the line is unmasked and hands back in [`Controller::returned`]. It knows no kernel
//! either: effects leave through [`Lines`].
//!
//! ```text
//!             SET_IRQ_TYPE t                    buffer queued
//!   disabled ───────────────▶ enabled, masked ───────────────▶ enabled, unmasked
//!      ▲                        │ edge: latch                     │ edge or level: buffer VALID,
//!      │                        │ level: nothing                  ▼ masked again
//!      └── SET_IRQ_TYPE NONE, SET_DIRECTION NONE: latch dropped, buffer INVALID
//! ```

use std::io;

use log::warn;

use crate::device::{Left, Start};
use crate::watch::Watcher;

use super::chip::{Edges, Lines, Seen, Setup};
use super::policy::Line;
use super::request::Request;
use super::safe::Safe;
use super::spec::{Direction, IrqStatus, Trigger};
use super::state::{LineState, Record};
use crate::inflight::Tail;

/// A line.
#[derive(Debug)]
struct State<B> {
    known: LineState,
    /// What becomes of it when no driver uses it.
    safe: Safe,
    /// The driver's buffer: the interrupt is unmasked while there is one.
    buffer: Option<B>,
}

impl<B> State<B> {
    fn new(safe: Safe) -> Self {
        Self { known: LineState::default(), safe, buffer: None }
    }

    /// How the hardware must be set up for what is known.
    fn setup(&self) -> Setup {
        let LineState { direction, value, trigger, .. } = self.known;
        setup(direction, value, trigger, self.safe)
    }

    /// Gives the buffer back unused, and forgets all that is known.
    fn clear(&mut self) -> Option<(B, IrqStatus)> {
        self.known = LineState::default();
        self.buffer.take().map(|buffer| (buffer, IrqStatus::Invalid))
    }
}

/// How the hardware must be set up for a direction, a value and an interrupt. A driver may enable an
/// interrupt without a direction; then the line is sensed all the same.
fn setup(direction: Direction, value: bool, trigger: Option<Trigger>, safe: Safe) -> Setup {
    let edges = match trigger {
        None => Edges::None,
        Some(Trigger::Rising | Trigger::High) => Edges::Rising,
        Some(Trigger::Falling | Trigger::Low) => Edges::Falling,
        Some(Trigger::Both) => Edges::Both,
    };
    match direction {
        Direction::Output => Setup::Output(value),
        Direction::None if edges == Edges::None => safe.setup(),
        Direction::None | Direction::Input => Setup::Input(edges),
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The line could not be set up, read or driven.
    #[error("{0}")]
    Hardware(#[from] io::Error),
    /// An interrupt for an output, or the reverse (5.18.6.8: "The driver MUST NOT send IRQ messages
    /// for a GPIO line configured for output").
    #[error("a line cannot be an output and raise interrupts")]
    OutputWithInterrupt,
    /// The names have a structure of their own, and are not the business of a [`Controller`].
    #[error("not a message about a line")]
    NotALine,
}

/// The lines of one device, over hardware `L`, with event buffers `B`.
pub struct Controller<L, B> {
    hardware: L,
    lines: Vec<State<B>>,
    returned: Vec<(B, IrqStatus)>,
    /// There is no driver at present; if it comes back, it finds its lines as they were.
    suspended: bool,
    /// Where what is known is written down for a daemon that takes over.
    record: Option<Record>,
}

impl<L: Lines, B> Controller<L, B> {
    /// A device of lines with these safe values. The hardware is left as it is: it may be in use, by the driver of a
    /// daemon that died.
    pub fn new(hardware: L, safe: &[Safe]) -> Self {
        let lines = safe.iter().copied().map(State::new).collect();
        Self { hardware, lines, returned: Vec::new(), suspended: false, record: None }
    }

    fn count(&self) -> u16 {
        u16::try_from(self.lines.len()).unwrap_or(u16::MAX)
    }

    /// Bytes that are needed to [take over](Self::take_over) from another daemon.
    pub fn record_bytes(&self) -> usize {
        Record::bytes(self.count())
    }

    /// Has the hardware's events watched; each is to be brought to [`Controller::event`].
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    pub fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.hardware.watch(watcher)
    }

    /// The buffers that go back to the driver since this was last called, in order.
    pub fn returned(&mut self) -> impl Iterator<Item = (B, IrqStatus)> {
        self.returned.drain(..)
    }

    /// Carries a message out to its end; the value is that of the response.
    ///
    /// # Errors
    /// When the hardware objects, or the message asks for what a line cannot be.
    pub fn execute(&mut self, request: Request<Line>) -> Result<u8, Error> {
        let (line, done) = match request {
            Request::LineNames => return Err(Error::NotALine),
            Request::GetDirection(line) => {
                let direction = self.lines.get(line.index()).map(|state| state.known.direction);
                return Ok(direction.unwrap_or_default().to_wire());
            }
            Request::GetValue(line) => return Ok(self.hardware.value(line.number())?.into()),
            Request::SetDirection(line, to) => (line, self.set_direction(line, to)),
            Request::SetValue(line, to) => (line, self.set_value(line, to)),
            Request::SetTrigger(line, None) => (line, self.disable(line)),
            Request::SetTrigger(line, Some(to)) => (line, self.enable(line, to)),
        };
        self.note(line.number());
        done.map(|()| 0)
    }

    /// Writes down what is known of a line.
    fn note(&self, line: u16) {
        if let (Some(record), Some(state)) = (&self.record, self.lines.get(usize::from(line))) {
            record.set(line, state.known);
        }
    }

    /// 5.18.6.3.
    fn set_direction(&mut self, line: Line, to: Direction) -> Result<(), Error> {
        let Some(state) = self.lines.get_mut(line.index()) else {
            return Ok(());
        };
        match to {
            Direction::None => {
                // The state goes even if the hardware objects: the driver has done with the line.
                self.returned.extend(state.clear());
                let released = self.hardware.set_up(line.number(), state.setup());
                return Ok(released?);
            }
            Direction::Output if state.known.trigger.is_some() => {
                return Err(Error::OutputWithInterrupt);
            }
            Direction::Output | Direction::Input => {}
        }
        let wanted = setup(to, state.known.value, state.known.trigger, state.safe);
        self.hardware.set_up(line.number(), wanted)?;
        state.known.direction = to;
        Ok(())
    }

    /// 5.18.6.5: drives an output now, and is kept for when the line becomes one.
    fn set_value(&mut self, line: Line, to: bool) -> Result<(), Error> {
        let Some(state) = self.lines.get_mut(line.index()) else {
            return Ok(());
        };
        if state.known.direction == Direction::Output {
            self.hardware.set_up(line.number(), Setup::Output(to))?;
        }
        state.known.value = to;
        Ok(())
    }

    /// 5.18.6.6, any trigger but NONE. A driver must disable an interrupt before it changes the
    /// trigger; one that does not, as Linux's, gets what it means: the new trigger, no latch of the
    /// old one, its buffer still queued.
    fn enable(&mut self, line: Line, trigger: Trigger) -> Result<(), Error> {
        let Some(state) = self.lines.get_mut(line.index()) else {
            return Ok(());
        };
        if state.known.trigger == Some(trigger) {
            return Ok(());
        }
        let was = state.known.trigger.take();
        (state.known.latched, state.known.deaf, state.known.level) = (false, true, None);
        if state.known.direction == Direction::Output {
            return Err(Error::OutputWithInterrupt);
        }
        if was.is_some() {
            self.hardware.set_up(line.number(), state.setup())?;
            self.hardware.take_edges(line.number())?;
        }
        let wanted = setup(state.known.direction, state.known.value, Some(trigger), state.safe);
        self.hardware.set_up(line.number(), wanted)?;
        (state.known.trigger, state.known.deaf) = (Some(trigger), false);
        if self.record.is_some() {
            state.known.level = self.hardware.value(line.number()).ok();
        }
        self.sense(line.number());
        Ok(())
    }

    /// 5.18.6.6, NONE: edges are no longer recorded, then what was recorded is dropped, so that
    /// nothing is left to latch; the buffer goes back unused (5.18.7.3).
    fn disable(&mut self, line: Line) -> Result<(), Error> {
        let Some(state) = self.lines.get_mut(line.index()) else {
            return Ok(());
        };
        let was = state.known.trigger.take();
        (state.known.latched, state.known.deaf, state.known.level) = (false, false, None);
        if let Some(buffer) = state.buffer.take() {
            self.returned.push((buffer, IrqStatus::Invalid));
        }
        if was.is_some() {
            self.hardware.set_up(line.number(), state.setup())?;
            self.hardware.take_edges(line.number())?;
        }
        Ok(())
    }

    /// The driver queued a buffer: the line is unmasked (5.18.7).
    pub fn unmask(&mut self, line: Line, buffer: B) {
        let Some(state) = self.lines.get_mut(line.index()) else {
            return self.returned.push((buffer, IrqStatus::Invalid));
        };
        // Unmasked without being enabled (5.18.6.6), or a second buffer, which a driver must not
        // queue (5.18.7.2).
        let disabled = state.known.trigger.is_none() && !state.known.deaf;
        if disabled || state.buffer.is_some() || self.suspended {
            state.known.deaf |= disabled;
            self.returned.push((buffer, IrqStatus::Invalid));
            return self.note(line.number());
        }
        state.buffer = Some(buffer);
        self.sense(line.number());
        self.note(line.number());
    }

    /// Brings a line up to date after it was unmasked: collects what has happened, then looks at what
    /// is so now. In this order an edge between the two is seen, once as a level and not again, since
    /// edges collected while masked do not count for a level.
    fn sense(&mut self, number: u16) {
        let Some(state) = self.lines.get_mut(usize::from(number)) else {
            return;
        };
        let active = match state.known.trigger {
            None => return,
            Some(Trigger::Rising | Trigger::Falling | Trigger::Both) => {
                if state.known.latched && state.buffer.is_some() {
                    state.known.latched = false;
                    self.fire(number);
                }
                return self.collect(number);
            }
            Some(Trigger::High) => true,
            Some(Trigger::Low) => false,
        };
        let stale = self.hardware.take_edges(number);
        match stale.and_then(|_| self.hardware.value(number)) {
            Ok(value) if value == active => self.fire(number),
            Ok(_) => {}
            Err(error) => warn!("line {number}: cannot read its level: {error}"),
        }
    }

    /// A watched descriptor is readable: a line's, or one of the hardware's own.
    pub fn event(&mut self, token: u32) {
        match u16::try_from(token) {
            Ok(line) if usize::from(line) < self.lines.len() => {
                self.collect(line);
                self.note(line);
            }
            _ => self.hardware.event(token),
        }
    }

    /// Takes a line's edges and does with them what its trigger asks for. It may have none: the event may
    /// be older than the last reset.
    fn collect(&mut self, number: u16) {
        let Some(state) = self.lines.get_mut(usize::from(number)) else { return };
        // Taken even if nobody wants them: the descriptor stays readable otherwise.
        let Seen { edges, level } = match self.hardware.take_edges(number) {
            Ok(seen) => seen,
            Err(error) => return warn!("line {number}: cannot read its events: {error}"),
        };
        let Some(trigger) = state.known.trigger else { return };
        let (masked, by_level) = (state.buffer.is_none(), matches!(trigger, Trigger::High | Trigger::Low));
        // The first edge fires if it may; edges that find the interrupt masked are latched as one,
        // and only for an edge trigger (5.18.6.9).
        let left = if masked { edges } else { edges.saturating_sub(1) };
        state.known.latched |= left > 0 && !by_level;
        state.known.level = level.or(state.known.level);
        if edges > 0 {
            self.fire(number);
        }
    }

    /// Returns the line's buffer, if it is unmasked, to say that its interrupt fired; this masks it.
    fn fire(&mut self, number: u16) {
        let line = self.lines.get_mut(usize::from(number));
        if let Some(buffer) = line.and_then(|line| line.buffer.take()) {
            self.returned.push((buffer, IrqStatus::Valid));
        }
    }

    /// The event queue stops: every buffer goes back unused, while there is still a ring to put it on.
    /// A driver that only paused finds its interrupts masked and queues its buffers again.
    pub fn stop_events(&mut self) {
        for state in &mut self.lines {
            let buffer = state.buffer.take();
            self.returned.extend(buffer.map(|buffer| (buffer, IrqStatus::Invalid)));
        }
    }

    /// There are no requests any more, and nobody says why: no driver uses the lines, as after a reset, but what
    /// was known of them is kept for a driver that [comes back](Self::resume).
    pub fn suspend(&mut self) {
        self.suspended = true;
        self.make_safe();
    }

    /// Whether lines stay requested when this daemon ends.
    pub fn survives(&self) -> bool {
        self.hardware.is_kept()
    }

    /// The frontend is gone, and its memory is let go as it is. The lines go to their safe values, or stay as they are for a
    /// daemon that will [take over](Self::take_over).
    pub fn leave(&mut self, left: Left) {
        self.record = None;
        match left {
            Left::Nothing => self.reset(),
            Left::Driver => {
                self.returned.clear();
                self.lines.iter_mut().for_each(|state| state.buffer = None);
                self.suspended = true;
            }
        }
    }

    /// A driver starts the device: a new one, or one that was paused.
    pub fn start(&mut self, start: Start) {
        let is_new = match (start, &self.record) {
            (Start::Anew, _) => true,
            (Start::AsRecorded, Some(record)) => !record.is_current(),
            (Start::AsRecorded, None) | (Start::Again, _) => false,
        };
        if is_new { self.reset() } else { self.resume() }
    }

    /// The driver is back, and thinks that its lines are as they were: so they are made. What happened
    /// meanwhile on a line that it listened to is lost, except for a level that is still there.
    fn resume(&mut self) {
        if !std::mem::replace(&mut self.suspended, false) {
            return;
        }
        for number in 0..self.count() {
            self.take_again(number);
        }
    }

    /// Makes the hardware of a line what is known of it; says whether it could be.
    fn take_again(&mut self, number: u16) -> bool {
        let Some(state) = self.lines.get_mut(usize::from(number)) else { return false };
        let taken = self.hardware.set_up(number, state.setup());
        if let Err(error) = &taken {
            warn!("line {number}: cannot take it again: {error}");
            state.known = LineState { deaf: true, ..LineState::default() };
            self.note(number);
        }
        taken.is_ok()
    }

    /// The frontend has memory that outlives daemons. What one that died wrote there is taken up: outputs are requested
    /// with the value that they have, so that nothing moves, and interrupts armed again. If nothing is there, no driver uses
    /// the lines.
    pub fn take_over(&mut self, tail: Tail) {
        let record = Record::new(tail, self.count());
        let current = record.is_current();
        self.record = Some(record);
        if !current {
            return self.reset();
        }
        log::info!("going on with the lines as another daemon left them");
        self.suspended = false;
        for number in 0..self.count() {
            self.recall(number);
        }
    }

    fn recall(&mut self, number: u16) {
        let recorded = self.record.as_ref().and_then(|record| record.get(number));
        let Some(state) = self.lines.get_mut(usize::from(number)) else { return };
        if recorded.is_none() {
            warn!("line {number}: what another daemon knew of it cannot be read");
        }
        let LineState { trigger, latched, .. } = state.known;
        (state.known, state.buffer) = (recorded.unwrap_or_default(), None);
        // If it was this daemon itself, it may have seen more since its frontend died.
        state.known.latched |= latched && trigger == state.known.trigger;
        if self.take_again(number)
            && self.missed(number).unwrap_or(false)
            && let Some(state) = self.lines.get_mut(usize::from(number))
        {
            state.known.latched = true;
        }
        self.note(number);
    }

    /// Whether an edge that the driver wants to hear of came when no daemon looked. The kernel may have
    /// recorded it; else it shows if the level is another than it was. A pulse that came and went is not seen, nor is the
    /// second edge of one that went unseen since the trigger does not ask for it.
    fn missed(&mut self, number: u16) -> io::Result<bool> {
        let Some(state) = self.lines.get(usize::from(number)) else { return Ok(false) };
        let LineState { trigger: Some(trigger), level: Some(before), .. } = state.known else {
            return Ok(false);
        };
        let edges = self.hardware.take_edges(number)?.edges;
        let now = self.hardware.value(number);
        // Also when the kernel knows the edge: the next daemon compares with this.
        if let (Ok(now), Some(state)) = (&now, self.lines.get_mut(usize::from(number))) {
            state.known.level = Some(*now);
        }
        if edges > 0 {
            return Ok(!matches!(trigger, Trigger::High | Trigger::Low));
        }
        let now = now?;
        Ok(match trigger {
            Trigger::Rising => now && !before,
            Trigger::Falling => before && !now,
            Trigger::Both => now != before,
            // A level is looked at when the driver unmasks it.
            Trigger::High | Trigger::Low => false,
        })
    }

    /// No driver uses the lines: they go to their safe values, all that was known of them is forgotten, and the
    /// buffers are dropped without a word, since there is no ring any more that could take them.
    pub fn reset(&mut self) {
        self.returned.clear();
        self.suspended = false;
        for state in &mut self.lines {
            state.clear();
        }
        if let Some(record) = &self.record {
            record.begin();
        }
        self.make_safe();
    }

    fn make_safe(&mut self) {
        for (number, state) in (0u16..).zip(&self.lines) {
            if let Err(error) = self.hardware.set_up(number, state.safe.setup()) {
                warn!("line {number}: cannot make it safe: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpio::fake::FakeLines;
    use crate::gpio::policy::Policy;
    use crate::gpio::request::{Request as R, UncheckedLine};
    use crate::inflight;
    use IrqStatus::{Invalid, Valid};

    /// A controller of four lines whose event buffers are numbers.
    struct Bench {
        controller: Controller<FakeLines, u32>,
        policy: Policy,
    }

    impl Bench {
        fn new() -> Self {
            let mut policy = Policy::new(4);
            policy.set_interrupts(true);
            Self { controller: Controller::new(FakeLines::new(4), &[Safe::Release; 4]), policy }
        }

        fn ask(&mut self, request: R<UncheckedLine>) -> Result<u8, Error> {
            let request = self.policy.authorise(request).expect("a line that exists");
            self.controller.execute(request)
        }

        fn direction(&mut self, line: u16, to: Direction) -> bool {
            self.ask(R::SetDirection(UncheckedLine(line), to)).is_ok()
        }

        fn set(&mut self, line: u16, to: bool) -> bool {
            self.ask(R::SetValue(UncheckedLine(line), to)).is_ok()
        }

        fn trigger(&mut self, line: u16, to: Option<Trigger>) -> bool {
            self.ask(R::SetTrigger(UncheckedLine(line), to)).is_ok()
        }

        fn unmask(&mut self, line: u16, buffer: u32) {
            let line = self.policy.authorise_unmask(UncheckedLine(line)).expect("a line that exists");
            self.controller.unmask(line, buffer);
        }

        /// Drives a line and has the edge reported, as the event loop would.
        fn drive(&mut self, line: u16, level: bool) {
            self.controller.hardware.drive(line, level);
            self.controller.event(u32::from(line));
        }

        fn pulse(&mut self, line: u16) {
            self.drive(line, true);
            self.drive(line, false);
        }

        fn returned(&mut self) -> Vec<(u32, IrqStatus)> {
            self.controller.returned().collect()
        }

        fn setup(&mut self, line: u16) -> Setup {
            self.controller.hardware.line(line).setup
        }
    }

    /// 5.18.6.2 and 5.18.6.3.
    #[test]
    fn direction_is_what_the_driver_configured() {
        let mut bench = Bench::new();
        let get = R::GetDirection(UncheckedLine(1));
        assert_eq!(bench.ask(get).ok(), Some(0));
        for (to, wire) in [(Direction::Input, 2), (Direction::Output, 1), (Direction::None, 0)] {
            assert!(bench.direction(1, to));
            assert_eq!(bench.ask(get).ok(), Some(wire));
        }
        assert_eq!(bench.setup(1), Setup::Released);
    }

    /// 5.18.6.5: "may get configured to output later, at which point this output value must be used".
    #[test]
    fn a_value_set_before_the_direction_is_used_by_the_output() {
        let mut bench = Bench::new();
        assert!(bench.set(0, true));
        assert_eq!(bench.setup(0), Setup::Released);
        assert!(bench.direction(0, Direction::Output));
        assert_eq!(bench.setup(0), Setup::Output(true));
        assert!(bench.set(0, false));
        assert_eq!(bench.setup(0), Setup::Output(false));
        // Also across a time as an input.
        assert!(bench.direction(0, Direction::Input) && bench.set(0, true));
        assert_eq!(bench.setup(0), Setup::Input(Edges::None));
        assert!(bench.direction(0, Direction::Output));
        assert_eq!(bench.setup(0), Setup::Output(true));
    }

    /// 5.18.6.4: "current value sensed on a line", also of one that is not configured.
    #[test]
    fn the_value_is_read_from_the_line() {
        let mut bench = Bench::new();
        bench.drive(2, true);
        assert_eq!(bench.ask(R::GetValue(UncheckedLine(2))).ok(), Some(1));
        assert_eq!(bench.ask(R::GetValue(UncheckedLine(3))).ok(), Some(0));
    }

    /// 5.18.6.9: "The device MUST discard all state information [...] once the driver has requested to
    /// set its direction to VIRTIO_GPIO_DIRECTION_NONE."
    #[test]
    fn direction_none_discards_value_interrupt_latch_and_buffer() {
        let mut bench = Bench::new();
        assert!(
            bench.set(0, true)
                && bench.direction(0, Direction::None)
                && bench.direction(0, Direction::Output)
        );
        assert_eq!(bench.setup(0), Setup::Output(false));

        assert!(bench.trigger(1, Some(Trigger::Both)));
        bench.pulse(1);
        assert!(bench.direction(1, Direction::None));
        assert_eq!(bench.setup(1), Setup::Released);
        assert!(bench.trigger(1, Some(Trigger::Both)));
        bench.unmask(1, 7);
        assert_eq!(bench.returned(), []);
        assert!(bench.direction(1, Direction::None));
        assert_eq!(bench.returned(), [(7, Invalid)]);
        bench.unmask(1, 8);
        assert_eq!(bench.returned(), [(8, Invalid)]);
    }

    /// What a driver that does not listen makes of the buffer that came back: it queues it again. The two would
    /// play ball for ever.
    #[test]
    fn a_buffer_that_came_back_once_is_kept_when_it_is_queued_again() {
        let mut bench = Bench::new();
        bench.unmask(0, 1);
        assert_eq!(bench.returned(), [(1, Invalid)]);
        bench.unmask(0, 1);
        bench.pulse(0);
        assert_eq!(bench.returned(), []);
        assert!(bench.trigger(0, Some(Trigger::Rising)));
        assert_eq!(bench.returned(), []);
        bench.pulse(0);
        assert_eq!(bench.returned(), [(1, Valid)]);
        assert!(bench.trigger(0, None));
        bench.unmask(0, 2);
        assert_eq!(bench.returned(), [(2, Invalid)], "after NONE it counts anew");
    }

    /// QEMU stops the queues when its user pauses the machine, and starts them where they were.
    #[test]
    fn a_driver_that_was_paused_finds_its_lines_as_they_were() {
        let mut bench = Bench::new();
        assert!(bench.direction(0, Direction::Output) && bench.set(0, true));
        assert!(bench.trigger(1, Some(Trigger::Rising)) && bench.trigger(2, Some(Trigger::High)));
        assert!(bench.direction(3, Direction::Input));
        bench.pulse(1);
        bench.unmask(2, 1);
        bench.controller.stop_events();
        bench.controller.suspend();
        assert_eq!(bench.returned(), [(1, Invalid)]);
        for line in 0..4 {
            assert_eq!(bench.setup(line), Setup::Released);
        }
        bench.unmask(2, 2);
        assert_eq!(bench.returned(), [(2, Invalid)]);
        bench.controller.hardware.taken.insert(3);
        bench.controller.start(Start::Again);
        assert_eq!(bench.setup(0), Setup::Output(true));
        assert_eq!(bench.ask(R::GetDirection(UncheckedLine(3))).ok(), Some(0));
        bench.unmask(1, 3);
        bench.unmask(2, 4);
        assert_eq!(bench.returned(), [(3, Valid)], "latched before");
        bench.drive(2, true);
        assert_eq!(bench.returned(), [(4, Valid)]);
        // Only what was suspended can be resumed.
        assert!(bench.direction(0, Direction::None));
        bench.controller.start(Start::Again);
        assert_eq!(bench.setup(0), Setup::Released);
    }

    /// 5.18.6.9: "The device MUST latch an edge interrupt if the interrupt is enabled but still masked."
    #[test]
    fn an_edge_before_the_buffer_is_latched_once() {
        for (trigger, edges) in [(Trigger::Rising, 1), (Trigger::Falling, 1), (Trigger::Both, 2)] {
            let mut bench = Bench::new();
            assert!(bench.trigger(0, Some(trigger)));
            for _ in 0..5 {
                bench.pulse(0);
            }
            assert_eq!(bench.returned(), []);
            bench.unmask(0, 1);
            assert_eq!(bench.returned(), [(1, Valid)], "{trigger:?}");
            bench.unmask(0, 2);
            assert_eq!(bench.returned(), [], "five pulses are one latched interrupt");
            bench.pulse(0);
            assert_eq!(bench.returned(), [(2, Valid)]);
            bench.unmask(0, 3);
            // Of a pulse both edges count for BOTH: the second found the line masked.
            assert_eq!(bench.returned().len(), edges - 1);
        }
    }

    /// As before, for edges that the kernel recorded and the event loop has not yet brought.
    #[test]
    fn an_edge_that_was_not_yet_reported_is_found_when_the_line_is_unmasked() {
        let mut bench = Bench::new();
        assert!(bench.trigger(0, Some(Trigger::Rising)));
        bench.controller.hardware.drive(0, true);
        bench.unmask(0, 1);
        assert_eq!(bench.returned(), [(1, Valid)]);
        bench.controller.event(0);
        bench.unmask(0, 2);
        assert_eq!(bench.returned(), [], "it counts once");
    }

    /// 5.18.7.1: returning the buffers "results in masking the interrupt as well".
    #[test]
    fn one_buffer_tells_of_one_interrupt() {
        let mut bench = Bench::new();
        assert!(bench.trigger(0, Some(Trigger::Both)));
        bench.unmask(0, 1);
        bench.pulse(0);
        bench.pulse(0);
        assert_eq!(bench.returned(), [(1, Valid)]);
        bench.unmask(0, 2);
        assert_eq!(bench.returned(), [(2, Valid)], "the rest was latched");
        // Several edges in one report are the same as several reports.
        bench.unmask(0, 3);
        bench.controller.hardware.drive(0, true);
        bench.controller.hardware.drive(0, false);
        bench.controller.event(0);
        bench.unmask(0, 4);
        assert_eq!(bench.returned(), [(3, Valid), (4, Valid)]);
    }

    /// 5.18.6.9: "The device MUST NOT latch an level interrupt if the interrupt is enabled but still
    /// masked."
    #[test]
    fn a_level_that_is_gone_when_the_line_is_unmasked_is_not_told() {
        for (trigger, active) in [(Trigger::High, true), (Trigger::Low, false)] {
            let mut bench = Bench::new();
            bench.controller.hardware.line(0).level = !active;
            assert!(bench.trigger(0, Some(trigger)));
            bench.drive(0, active);
            bench.drive(0, !active);
            // Also if the event loop has not come round to it.
            bench.controller.hardware.drive(0, active);
            bench.controller.hardware.drive(0, !active);
            bench.unmask(0, 1);
            bench.controller.event(0);
            assert_eq!(bench.returned(), [], "{trigger:?}");
            bench.drive(0, active);
            assert_eq!(bench.returned(), [(1, Valid)]);
        }
    }

    /// 5.18.7.1: "Once the interrupt is unmasked again and the interrupt on the line is still active, the
    /// device shall notify the driver again."
    #[test]
    fn a_level_that_stays_is_told_at_each_unmasking() {
        for (trigger, active) in [(Trigger::High, true), (Trigger::Low, false)] {
            let mut bench = Bench::new();
            bench.controller.hardware.line(0).level = active;
            assert!(bench.trigger(0, Some(trigger)));
            for buffer in 0..3 {
                bench.unmask(0, buffer);
                assert_eq!(bench.returned(), [(buffer, Valid)]);
            }
            bench.drive(0, !active);
            bench.unmask(0, 9);
            assert_eq!(bench.returned(), []);
        }
    }

    /// 5.18.7.3 and 5.18.6.9: NONE returns the buffer as INVALID and discards what was latched.
    #[test]
    fn disabling_returns_the_buffer_and_leaves_nothing_latched() {
        let mut bench = Bench::new();
        assert!(bench.direction(0, Direction::Input));
        assert!(bench.trigger(0, Some(Trigger::Rising)));
        bench.unmask(0, 1);
        assert!(bench.trigger(0, None));
        assert_eq!(bench.returned(), [(1, Invalid)]);
        assert_eq!(bench.setup(0), Setup::Input(Edges::None));

        assert!(bench.trigger(0, Some(Trigger::Rising)));
        bench.pulse(0);
        bench.controller.hardware.drive(0, true);
        assert!(bench.trigger(0, None), "one edge latched, one not yet reported");
        assert!(bench.trigger(0, Some(Trigger::Rising)));
        bench.controller.event(0);
        bench.unmask(0, 2);
        assert_eq!(bench.returned(), []);
        assert!(bench.trigger(0, None) && bench.trigger(0, None), "twice does no harm");
    }

    /// 5.18.7.3: "The device MUST NOT send an interrupt event [...] unless the interrupt has been both
    /// unmasked and enabled"; 5.18.6.6: an unmasking without enabling is returned.
    #[test]
    fn a_buffer_for_a_line_without_interrupt_comes_back_invalid() {
        let mut bench = Bench::new();
        bench.unmask(0, 1);
        assert!(bench.direction(1, Direction::Output));
        bench.unmask(1, 2);
        assert!(bench.direction(2, Direction::Input));
        bench.unmask(2, 3);
        bench.pulse(2);
        assert_eq!(bench.returned(), [(1, Invalid), (2, Invalid), (3, Invalid)]);
    }

    /// 5.18.7.2: a driver must not queue two; the first stays.
    #[test]
    fn a_second_buffer_for_a_line_comes_back_invalid() {
        let mut bench = Bench::new();
        assert!(bench.trigger(0, Some(Trigger::Rising)));
        bench.unmask(0, 1);
        bench.unmask(0, 2);
        assert_eq!(bench.returned(), [(2, Invalid)]);
        bench.pulse(0);
        assert_eq!(bench.returned(), [(1, Valid)]);
    }

    /// 5.18.6.8: no interrupts for outputs, in either order.
    #[test]
    fn outputs_and_interrupts_exclude_each_other() {
        let mut bench = Bench::new();
        assert!(bench.direction(0, Direction::Output));
        assert!(!bench.trigger(0, Some(Trigger::Rising)));
        assert_eq!(bench.setup(0), Setup::Output(false));
        assert!(bench.trigger(1, Some(Trigger::Rising)));
        assert!(!bench.direction(1, Direction::Output));
        assert_eq!(bench.setup(1), Setup::Input(Edges::Rising));
        assert!(bench.trigger(1, None) && bench.direction(1, Direction::Output));
    }

    /// Linux requests an interrupt without a direction where a device tree names the line as one.
    #[test]
    fn an_interrupt_without_direction_senses_the_line_and_lets_it_go() {
        let mut bench = Bench::new();
        assert!(bench.trigger(0, Some(Trigger::Falling)));
        assert_eq!(bench.setup(0), Setup::Input(Edges::Falling));
        assert_eq!(bench.ask(R::GetDirection(UncheckedLine(0))).ok(), Some(0));
        // The direction may follow, and costs no event.
        bench.drive(0, true);
        bench.controller.hardware.drive(0, false);
        assert!(bench.direction(0, Direction::Input));
        bench.unmask(0, 1);
        assert_eq!(bench.returned(), [(1, Valid)]);
        assert!(bench.trigger(0, None));
        assert_eq!(bench.setup(0), Setup::Input(Edges::None));

        assert!(bench.trigger(1, Some(Trigger::Both)) && bench.trigger(1, None));
        assert_eq!(bench.setup(1), Setup::Released);
    }

    /// A driver must disable before it changes the trigger (5.18.6.8); Linux's does not.
    #[test]
    fn another_trigger_takes_over_the_buffer_and_not_the_latch() {
        let mut bench = Bench::new();
        assert!(bench.trigger(0, Some(Trigger::Rising)));
        bench.unmask(0, 1);
        bench.drive(0, true);
        bench.drive(0, false);
        bench.drive(0, true);
        assert_eq!(bench.returned(), [(1, Valid)], "and a second edge is latched");
        assert!(bench.trigger(0, Some(Trigger::Rising)), "the same again changes nothing");
        assert!(bench.trigger(0, Some(Trigger::Falling)));
        bench.unmask(0, 2);
        assert_eq!(bench.returned(), []);
        // The line is high: to HIGH the interrupt is active at once.
        assert!(bench.trigger(0, Some(Trigger::High)));
        assert_eq!(bench.returned(), [(2, Valid)]);
    }

    /// What a busy or a deaf line does to the one that asked for it, and to no other.
    #[test]
    fn a_line_that_fails_fails_alone_and_keeps_its_state() {
        let mut bench = Bench::new();
        bench.controller.hardware.taken.insert(0);
        for to in [Direction::Input, Direction::Output] {
            assert!(!bench.direction(0, to));
        }
        assert_eq!(bench.ask(R::GetDirection(UncheckedLine(0))).ok(), Some(0));
        assert!(bench.direction(1, Direction::Output) && bench.set(1, true));
        bench.controller.hardware.taken.clear();
        assert!(bench.direction(0, Direction::Input));
    }

    /// Linux's driver does not look at the answer: it would queue a returned buffer again for ever.
    #[test]
    fn a_buffer_for_an_interrupt_that_could_not_be_enabled_waits() {
        let mut bench = Bench::new();
        bench.controller.hardware.deaf.insert(0);
        assert!(bench.direction(0, Direction::Input));
        assert!(!bench.trigger(0, Some(Trigger::Rising)));
        bench.unmask(0, 1);
        bench.pulse(0);
        assert_eq!(bench.returned(), []);
        assert!(bench.trigger(0, None));
        assert_eq!(bench.returned(), [(1, Invalid)]);
        // It is taken up if enabling works after all.
        assert!(!bench.trigger(0, Some(Trigger::Rising)));
        bench.unmask(0, 2);
        bench.controller.hardware.deaf.clear();
        assert!(bench.trigger(0, Some(Trigger::Rising)));
        bench.pulse(0);
        assert_eq!(bench.returned(), [(2, Valid)]);
    }

    /// After a reset nothing is left that could write to a ring or surprise the next driver.
    #[test]
    fn reset_forgets_everything() {
        let mut bench = Bench::new();
        assert!(bench.direction(0, Direction::Output) && bench.set(0, true));
        assert!(bench.trigger(1, Some(Trigger::Rising)) && bench.trigger(2, Some(Trigger::High)));
        bench.pulse(1);
        bench.unmask(2, 1);
        bench.controller.hardware.drive(1, true);
        bench.controller.reset();
        for line in 0..4 {
            assert_eq!(bench.setup(line), Setup::Released);
            assert_eq!(bench.ask(R::GetDirection(UncheckedLine(line))).ok(), Some(0));
            bench.drive(line, true);
            bench.drive(line, false);
        }
        assert_eq!(bench.returned(), []);
        assert!(bench.trigger(1, Some(Trigger::Rising)) && bench.trigger(2, Some(Trigger::High)));
        bench.unmask(1, 2);
        bench.unmask(2, 3);
        assert_eq!(bench.returned(), []);
    }

    /// A stopped event queue gets all its buffers back; what was enabled goes on being latched.
    #[test]
    fn stopping_the_event_queue_returns_its_buffers() {
        let mut bench = Bench::new();
        for line in [0, 3] {
            assert!(bench.trigger(line, Some(Trigger::Rising)));
            bench.unmask(line, u32::from(line));
        }
        bench.controller.stop_events();
        assert_eq!(bench.returned(), [(0, Invalid), (3, Invalid)]);
        bench.pulse(3);
        bench.unmask(3, 5);
        assert_eq!(bench.returned(), [(5, Valid)]);
    }

    /// A daemon that has a record, which another finds when it is dropped.
    fn recorded(safe: [Safe; 4]) -> (Bench, Tail) {
        let mut bench = Bench::new();
        bench.controller = Controller::new(FakeLines::new(4), &safe);
        let tail = inflight::tests::tail(bench.controller.record_bytes());
        bench.controller.take_over(tail.clone());
        bench.controller.start(Start::AsRecorded);
        (bench, tail)
    }

    /// Dies and is replaced, on hardware that lets go of lines, with other levels where they are not driven.
    fn replace(bench: Bench, tail: &Tail, safe: [Safe; 4], levels: [bool; 4]) -> Bench {
        let mut lines = FakeLines::new(4);
        for (line, level) in (0..).zip(levels) {
            lines.line(line).level = level;
        }
        replace_with(bench, tail, safe, lines)
    }

    fn replace_with(bench: Bench, tail: &Tail, safe: [Safe; 4], lines: FakeLines) -> Bench {
        let Bench { policy, .. } = bench;
        let mut bench = Bench { controller: Controller::new(lines, &safe), policy };
        bench.controller.take_over(tail.clone());
        bench.controller.start(Start::AsRecorded);
        bench
    }

    const RELEASE: [Safe; 4] = [Safe::Release; 4];

    #[test]
    fn a_daemon_that_takes_over_goes_on_with_the_lines() {
        let (mut bench, tail) = recorded(RELEASE);
        assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
        assert!(bench.direction(1, Direction::Input) && bench.trigger(1, Some(Trigger::Rising)));
        assert!(bench.set(2, true) && bench.trigger(3, Some(Trigger::High)));
        bench.pulse(1);
        let mut bench = replace(bench, &tail, RELEASE, [false; 4]);
        assert_eq!(bench.setup(0), Setup::Output(true));
        assert_eq!(bench.setup(1), Setup::Input(Edges::Rising));
        assert_eq!(bench.ask(R::GetDirection(UncheckedLine(1))).ok(), Some(2));
        bench.unmask(1, 1);
        bench.unmask(3, 2);
        assert_eq!(bench.returned(), [(1, Valid)], "latched before");
        bench.drive(3, true);
        assert_eq!(bench.returned(), [(2, Valid)]);
        // The value that was set before the direction (5.18.6.5).
        assert!(bench.direction(2, Direction::Output));
        assert_eq!(bench.setup(2), Setup::Output(true));
        // What was told is told once, also if the next daemon dies.
        let mut bench = replace(bench, &tail, RELEASE, [false; 4]);
        bench.unmask(1, 1);
        assert_eq!(bench.returned(), []);
        assert_eq!(bench.setup(2), Setup::Output(true));
    }

    /// A level that is another than it was is an edge, if the driver wants to hear of that one.
    #[test]
    fn an_edge_that_nobody_saw_is_told_if_it_shows() {
        use Trigger::{Both, Falling, High, Low, Rising};
        for (trigger, up, down) in [
            (Rising, true, false),
            (Falling, false, true),
            (Both, true, true),
            (High, true, false),
            (Low, false, true),
        ] {
            for (before, after) in [(false, true), (true, false), (false, false), (true, true)] {
                let (mut bench, tail) = recorded(RELEASE);
                bench.controller.hardware.line(0).level = before;
                assert!(bench.trigger(0, Some(trigger)));
                let mut bench = replace(bench, &tail, RELEASE, [after; 4]);
                bench.unmask(0, 1);
                let level = match trigger {
                    High => after,
                    Low => !after,
                    _ => false,
                };
                let edge = !matches!(trigger, High | Low) && before != after && if after { up } else { down };
                let told: &[_] = if edge || level { &[(1, Valid)] } else { &[] };
                assert_eq!(bench.returned(), told, "{trigger:?} {before} {after}");
            }
        }
    }

    /// The last level that was seen is that after the last edge.
    #[test]
    fn an_edge_that_was_told_is_not_told_again() {
        let (mut bench, tail) = recorded(RELEASE);
        assert!(bench.trigger(0, Some(Trigger::Both)));
        bench.unmask(0, 1);
        bench.drive(0, true);
        assert_eq!(bench.returned(), [(1, Valid)]);
        let mut bench = replace(bench, &tail, RELEASE, [true; 4]);
        bench.unmask(0, 2);
        assert_eq!(bench.returned(), []);
    }

    /// The kernel kept the line, and recorded the edge; the next daemon finds nothing but the level after it.
    #[test]
    fn an_edge_that_the_kernel_saw_is_told_once_to_any_number_of_daemons() {
        let (mut bench, tail) = recorded(RELEASE);
        assert!(bench.trigger(0, Some(Trigger::Rising)));
        let mut lines = FakeLines::new(4);
        (lines.line(0).level, lines.line(0).edges) = (true, 1);
        let mut bench = replace_with(bench, &tail, RELEASE, lines);
        bench.unmask(0, 1);
        assert_eq!(bench.returned(), [(1, Valid)]);
        let mut bench = replace(bench, &tail, RELEASE, [true; 4]);
        bench.unmask(0, 2);
        assert_eq!(bench.returned(), []);
    }

    #[test]
    fn after_a_reset_there_is_nothing_to_take_over() {
        let (mut bench, tail) = recorded(RELEASE);
        assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
        bench.controller.reset();
        let mut bench = replace(bench, &tail, RELEASE, [false; 4]);
        assert_eq!(bench.setup(0), Setup::Released);
        assert_eq!(bench.ask(R::GetDirection(UncheckedLine(0))).ok(), Some(0));
        // The frontend may also say it by zeros, to a daemon that lives.
        assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
        tail.set_word(0, 0);
        bench.controller.start(Start::AsRecorded);
        assert_eq!(bench.setup(0), Setup::Released);
        assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
        let mut bench = replace(bench, &tail, RELEASE, [false; 4]);
        assert_eq!(bench.setup(0), Setup::Output(true));
    }

    /// A line whose word nobody wrote is one of which nothing is known; the others go on.
    #[test]
    fn a_record_of_anybodys_making_harms_its_own_line() {
        let (mut bench, tail) = recorded(RELEASE);
        assert!(bench.direction(0, Direction::Output) && bench.direction(1, Direction::Output));
        tail.set_word(2, 0x1234_5678);
        let mut bench = replace(bench, &tail, RELEASE, [false; 4]);
        assert_eq!((bench.setup(0), bench.setup(1)), (Setup::Released, Setup::Output(false)));
        // Another number of lines: somebody else's record.
        tail.set_word(1, 5);
        let mut bench = replace(bench, &tail, RELEASE, [false; 4]);
        assert_eq!(bench.setup(1), Setup::Released);
    }

    /// A frontend that dies is no reason to touch a line, and no reset of the driver's.
    #[test]
    fn lines_wait_for_another_frontend_as_they_are() {
        let (mut bench, tail) = recorded([Safe::Level(false); 4]);
        assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
        assert!(bench.trigger(1, Some(Trigger::Rising)));
        bench.unmask(1, 1);
        bench.controller.leave(Left::Driver);
        assert_eq!((bench.setup(0), bench.setup(1)), (Setup::Output(true), Setup::Input(Edges::Rising)));
        bench.drive(1, true);
        bench.drive(1, false);
        assert_eq!(bench.returned(), [], "its ring is gone");
        bench.controller.take_over(tail);
        bench.controller.start(Start::AsRecorded);
        bench.unmask(1, 1);
        assert_eq!(bench.returned(), [(1, Valid)]);
        assert_eq!(bench.setup(0), Setup::Output(true));
    }

    #[test]
    fn a_line_that_no_driver_uses_is_safe() {
        let safe = [Safe::Release, Safe::Level(false), Safe::Level(true), Safe::Stay];
        let unused = [Setup::Released, Setup::Output(false), Setup::Output(true), Setup::Released];
        let (mut bench, _) = recorded(safe);
        let setups = |bench: &mut Bench| [0, 1, 2, 3].map(|line| bench.setup(line));
        assert_eq!(setups(&mut bench), unused, "from the start");
        let ways: [fn(&mut Bench); 3] = [
            |bench| bench.controller.reset(),
            |bench| bench.controller.suspend(),
            |bench| assert!((0..4).all(|line| bench.direction(line, Direction::None))),
        ];
        for way in ways {
            for level in [false, true] {
                for line in 0..4 {
                    assert!(bench.set(line, level) && bench.direction(line, Direction::Output));
                }
                assert_eq!(setups(&mut bench), [Setup::Output(level); 4]);
                way(&mut bench);
                let [released, low, high, _] = unused;
                assert_eq!(setups(&mut bench), [released, low, high, Setup::Output(level)]);
                bench.controller.start(Start::AsRecorded);
            }
            // Held as an output, but not as anything else.
            assert!(bench.direction(3, Direction::Input));
            way(&mut bench);
            assert_eq!(bench.setup(3), Setup::Released);
            bench.controller.reset();
        }
        // An interrupt without a direction, and then none any more.
        assert!(bench.trigger(2, Some(Trigger::Both)));
        assert_eq!(bench.setup(2), Setup::Input(Edges::Both));
        assert!(bench.trigger(2, None));
        assert_eq!(bench.setup(2), Setup::Output(true));
    }

    #[test]
    fn an_event_of_a_line_that_is_not_there_is_nothing() {
        let mut bench = Bench::new();
        for token in [4, 0xffff, 0x1_0000, u32::MAX] {
            bench.controller.event(token);
        }
        assert_eq!(bench.returned(), []);
    }
}
