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

use crate::watch::Watcher;

use super::chip::{Edges, Lines, Setup};
use super::policy::Line;
use super::request::Request;
use super::spec::{Direction, IrqStatus, Trigger};

/// A line's interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Interrupt {
    /// Disabled by the driver, or never enabled.
    #[default]
    Disabled,
    /// The driver was told that enabling failed. Linux's driver ignores that, queues a buffer, and
    /// queues it again at once when it comes back INVALID: so buffers are kept until the driver
    /// disables the interrupt (5.18.7.1: "The driver can do this before enabling").
    Failed,
    /// Enabled.
    Enabled(Trigger),
}

/// What the device knows of a line. All of it is dropped at once, by assigning the default, when the
/// driver sets the direction to NONE ("The device MUST discard all state information", 5.18.6.9).
#[derive(Debug)]
struct State<B> {
    /// As the driver configured it.
    direction: Direction,
    /// The value that the driver last set; drives the line when it is an output.
    value: bool,
    interrupt: Interrupt,
    /// An edge was sensed while the interrupt was masked.
    latched: bool,
    /// The driver's buffer: the interrupt is unmasked while there is one.
    buffer: Option<B>,
}

impl<B> Default for State<B> {
    fn default() -> Self {
        Self {
            direction: Direction::None,
            value: false,
            interrupt: Interrupt::Disabled,
            latched: false,
            buffer: None,
        }
    }
}

/// How the hardware must be set up for a direction, a value and an interrupt. A driver may enable an
/// interrupt without a direction; then the line is sensed all the same.
fn setup(direction: Direction, value: bool, interrupt: Interrupt) -> Setup {
    let edges = match interrupt {
        Interrupt::Disabled | Interrupt::Failed => Edges::None,
        Interrupt::Enabled(Trigger::Rising | Trigger::High) => Edges::Rising,
        Interrupt::Enabled(Trigger::Falling | Trigger::Low) => Edges::Falling,
        Interrupt::Enabled(Trigger::Both) => Edges::Both,
    };
    match direction {
        Direction::Output => Setup::Output(value),
        Direction::None if edges == Edges::None => Setup::Released,
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
}

impl<L: Lines, B> Controller<L, B> {
    /// A device of `count` lines, all released.
    pub fn new(hardware: L, count: u16) -> Self {
        Self { hardware, lines: (0..count).map(|_| State::default()).collect(), returned: Vec::new() }
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
        match request {
            Request::LineNames => Err(Error::NotALine),
            Request::GetDirection(line) => {
                Ok(self.lines.get(line.index()).map_or(0, |state| state.direction.to_wire()))
            }
            Request::SetDirection(line, to) => self.set_direction(line, to).map(|()| 0),
            Request::GetValue(line) => Ok(self.hardware.value(line.number())?.into()),
            Request::SetValue(line, to) => self.set_value(line, to).map(|()| 0),
            Request::SetTrigger(line, None) => self.disable(line).map(|()| 0),
            Request::SetTrigger(line, Some(to)) => self.enable(line, to).map(|()| 0),
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
                let old = std::mem::take(state);
                self.returned.extend(old.buffer.map(|buffer| (buffer, IrqStatus::Invalid)));
                let released = self.hardware.set_up(line.number(), Setup::Released);
                return Ok(released?);
            }
            Direction::Output if matches!(state.interrupt, Interrupt::Enabled(_)) => {
                return Err(Error::OutputWithInterrupt);
            }
            Direction::Output | Direction::Input => {}
        }
        let wanted = setup(to, state.value, state.interrupt);
        self.hardware.set_up(line.number(), wanted)?;
        state.direction = to;
        Ok(())
    }

    /// 5.18.6.5: drives an output now, and is kept for when the line becomes one.
    fn set_value(&mut self, line: Line, to: bool) -> Result<(), Error> {
        let Some(state) = self.lines.get_mut(line.index()) else {
            return Ok(());
        };
        if state.direction == Direction::Output {
            self.hardware.set_up(line.number(), Setup::Output(to))?;
        }
        state.value = to;
        Ok(())
    }

    /// 5.18.6.6, any trigger but NONE. A driver must disable an interrupt before it changes the
    /// trigger; one that does not, as Linux's, gets what it means: the new trigger, no latch of the
    /// old one, its buffer still queued.
    fn enable(&mut self, line: Line, trigger: Trigger) -> Result<(), Error> {
        let Some(state) = self.lines.get_mut(line.index()) else {
            return Ok(());
        };
        if state.direction == Direction::Output {
            state.interrupt = Interrupt::Failed;
            return Err(Error::OutputWithInterrupt);
        }
        if state.interrupt == Interrupt::Enabled(trigger) {
            return Ok(());
        }
        let was = std::mem::replace(&mut state.interrupt, Interrupt::Failed);
        state.latched = false;
        if matches!(was, Interrupt::Enabled(_)) {
            let quiet = setup(state.direction, state.value, Interrupt::Failed);
            self.hardware.set_up(line.number(), quiet)?;
            self.hardware.take_edges(line.number())?;
        }
        let enabled = Interrupt::Enabled(trigger);
        let wanted = setup(state.direction, state.value, enabled);
        self.hardware.set_up(line.number(), wanted)?;
        state.interrupt = enabled;
        self.sense(line);
        Ok(())
    }

    /// 5.18.6.6, NONE: edges are no longer recorded, then what was recorded is dropped, so that
    /// nothing is left to latch; the buffer goes back unused (5.18.7.3).
    fn disable(&mut self, line: Line) -> Result<(), Error> {
        let Some(state) = self.lines.get_mut(line.index()) else {
            return Ok(());
        };
        let was = std::mem::take(&mut state.interrupt);
        state.latched = false;
        if let Some(buffer) = state.buffer.take() {
            self.returned.push((buffer, IrqStatus::Invalid));
        }
        if matches!(was, Interrupt::Enabled(_)) {
            let wanted = setup(state.direction, state.value, Interrupt::Disabled);
            self.hardware.set_up(line.number(), wanted)?;
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
        if state.interrupt == Interrupt::Disabled || state.buffer.is_some() {
            return self.returned.push((buffer, IrqStatus::Invalid));
        }
        state.buffer = Some(buffer);
        self.sense(line);
    }

    /// Brings a line up to date after it was unmasked: collects what has happened, then looks at what
    /// is so now. In this order an edge between the two is seen, once as a level and not again, since
    /// edges collected while masked do not count for a level.
    fn sense(&mut self, line: Line) {
        let Some(state) = self.lines.get_mut(line.index()) else {
            return;
        };
        let active = match state.interrupt {
            Interrupt::Disabled | Interrupt::Failed => return,
            Interrupt::Enabled(Trigger::Rising | Trigger::Falling | Trigger::Both) => {
                if state.latched && state.buffer.is_some() {
                    state.latched = false;
                    self.fire(line.index());
                }
                return self.collect(line.number());
            }
            Interrupt::Enabled(Trigger::High) => true,
            Interrupt::Enabled(Trigger::Low) => false,
        };
        let number = line.number();
        let stale = self.hardware.take_edges(number);
        match stale.and_then(|_| self.hardware.value(number)) {
            Ok(value) if value == active => self.fire(line.index()),
            Ok(_) => {}
            Err(error) => warn!("line {number}: cannot read its level: {error}"),
        }
    }

    /// A watched descriptor is readable: a line's, or one of the hardware's own.
    pub fn event(&mut self, token: u32) {
        match u16::try_from(token) {
            Ok(line) if usize::from(line) < self.lines.len() => self.collect(line),
            _ => self.hardware.event(token),
        }
    }

    /// Takes a line's edges and does with them what its trigger asks for. It may have none: the event may
    /// be older than the last reset.
    fn collect(&mut self, number: u16) {
        let index = usize::from(number);
        let Some(state) = self.lines.get_mut(index) else { return };
        // Taken even if nobody wants them: the descriptor stays readable otherwise.
        let edges = match self.hardware.take_edges(number) {
            Ok(edges) => edges,
            Err(error) => return warn!("line {number}: cannot read its events: {error}"),
        };
        let Interrupt::Enabled(trigger) = state.interrupt else { return };
        let (masked, level) = (state.buffer.is_none(), matches!(trigger, Trigger::High | Trigger::Low));
        // The first edge fires if it may; edges that find the interrupt masked are latched as one,
        // and only for an edge trigger (5.18.6.9).
        let left = if masked { edges } else { edges.saturating_sub(1) };
        state.latched |= left > 0 && !level;
        if edges > 0 {
            self.fire(index);
        }
    }

    /// Returns the line's buffer, if it is unmasked, to say that its interrupt fired; this masks it.
    fn fire(&mut self, index: usize) {
        if let Some(buffer) = self.lines.get_mut(index).and_then(|l| l.buffer.take()) {
            self.returned.push((buffer, IrqStatus::Valid));
        }
    }

    /// The event queue stops: every buffer goes back unused, while there is still a ring to put it on.
    /// A driver that only paused finds its interrupts masked and queues them again.
    pub fn stop_events(&mut self) {
        for state in &mut self.lines {
            let buffer = state.buffer.take();
            self.returned.extend(buffer.map(|buffer| (buffer, IrqStatus::Invalid)));
        }
    }

    /// The driver is gone: all lines are released, all that was known of them is forgotten, and the
    /// buffers are dropped without a word, since there is no ring any more that could take them.
    pub fn reset(&mut self) {
        let Self { hardware, lines, returned } = self;
        returned.clear();
        for (number, state) in (0u16..).zip(lines) {
            *state = State::default();
            if let Err(error) = hardware.set_up(number, Setup::Released) {
                warn!("line {number}: cannot release it: {error}");
            }
        }
    }
}
