// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state machine of the lines and of the event queue (virtio 1.3, 5.18.6 and 5.18.7).
//!
//! It uses neither rings nor guest memory: a buffer of the event queue is a value of type `B`, kept while the
//! line is unmasked and returned by [`Controller::returned`]. It accesses the hardware through [`Lines`]
//! only.
//!
//! ```text
//!             SET_IRQ_TYPE t                    buffer queued
//!   disabled ───────────────▶ enabled, masked ───────────────▶ enabled, unmasked
//!      ▲                        │ edge: latch                     │ edge or level: buffer VALID,
//!      │                        │ level: nothing                  ▼ masked again
//!      └── SET_IRQ_TYPE NONE, SET_DIRECTION NONE: latch dropped, buffer INVALID
//! ```

mod persistence;
#[cfg(test)]
mod tests;

use std::io;

use log::warn;

use crate::watch::Watcher;

use super::lines::{EdgeReport, Edges, Lines, Setup};
use super::policy::LineNumber;
use super::request::GpioRequest;
use super::safe::SafeValue;
use super::spec::{Direction, IrqStatus, Trigger};
use super::state::{LineRecord, LineState};

/// A line: its state, and what a restart of the daemon does not preserve.
#[derive(Debug)]
struct ControlledLine<B> {
    state: LineState,
    safe: SafeValue,
    /// The driver's buffer: the interrupt is unmasked while there is one.
    buffer: Option<B>,
}

impl<B> ControlledLine<B> {
    fn new(safe: SafeValue) -> Self {
        Self { state: LineState::default(), safe, buffer: None }
    }

    /// Returns how the hardware must be set up for the state.
    fn setup(&self) -> Setup {
        let LineState { direction, value, trigger, .. } = self.state;
        setup(direction, value, trigger, self.safe)
    }

    /// Clears the state, and returns the buffer as unused.
    fn clear(&mut self) -> Option<(B, IrqStatus)> {
        self.state = LineState::default();
        self.buffer.take().map(|buffer| (buffer, IrqStatus::Invalid))
    }
}

/// Returns how the hardware must be set up. A driver may enable an interrupt without a direction; the line is
/// an input then.
fn setup(direction: Direction, value: bool, trigger: Option<Trigger>, safe: SafeValue) -> Setup {
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
pub enum ExecuteError {
    /// The line could not be set up, read or driven.
    #[error("{0}")]
    Hardware(#[from] io::Error),
    /// An interrupt for an output, or the reverse (5.18.6.8: "The driver MUST NOT send IRQ messages
    /// for a GPIO line configured for output").
    #[error("a line cannot be an output and raise interrupts")]
    OutputWithInterrupt,
    /// GET_LINE_NAMES, which is not about a line: [`super::device`] answers it.
    #[error("not a message about a line")]
    NotALine,
}

/// The lines of one device, over hardware `L`, with event buffers `B`.
pub struct Controller<L, B> {
    hardware: L,
    lines: Vec<ControlledLine<B>>,
    returned: Vec<(B, IrqStatus)>,
    /// No driver uses the lines at present. The state is kept for a driver that resumes.
    suspended: bool,
    /// The state in the in-flight record, for a daemon that takes over.
    record: Option<LineRecord>,
}

impl<L: Lines, B> Controller<L, B> {
    /// Creates a device of lines with these safe values. Does not touch the hardware: the driver of a daemon
    /// that died may use it.
    pub fn new(hardware: L, safe: &[SafeValue]) -> Self {
        let lines = safe.iter().copied().map(ControlledLine::new).collect();
        Self { hardware, lines, returned: Vec::new(), suspended: false, record: None }
    }

    fn count(&self) -> u16 {
        u16::try_from(self.lines.len()).unwrap_or(u16::MAX)
    }
    /// Watches the events of the hardware, which the caller passes to [`Controller::handle_event`].
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    pub fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.hardware.watch(watcher)
    }

    /// Returns the buffers that go back to the driver, in order.
    pub fn returned(&mut self) -> impl Iterator<Item = (B, IrqStatus)> {
        self.returned.drain(..)
    }

    /// Executes a request, and returns the value of its response.
    ///
    /// # Errors
    /// When the hardware fails, or the line cannot do what is requested.
    pub fn execute(&mut self, request: GpioRequest<LineNumber>) -> Result<u8, ExecuteError> {
        let (line, done) = match request {
            GpioRequest::LineNames => return Err(ExecuteError::NotALine),
            GpioRequest::GetDirection(line) => {
                let direction = self.lines.get(line.index()).map(|line| line.state.direction);
                return Ok(direction.unwrap_or_default().to_wire());
            }
            GpioRequest::GetValue(line) => return Ok(self.hardware.value(line.number())?.into()),
            GpioRequest::SetDirection(line, to) => (line, self.set_direction(line, to)),
            GpioRequest::SetValue(line, to) => (line, self.set_value(line, to)),
            GpioRequest::SetTrigger(line, None) => (line, self.disable(line)),
            GpioRequest::SetTrigger(line, Some(to)) => (line, self.enable(line, to)),
        };
        self.record_line(line.number());
        done.map(|()| 0)
    }

    /// Writes the state of a line to the record.
    fn record_line(&self, number: u16) {
        if let (Some(record), Some(line)) = (&self.record, self.lines.get(usize::from(number))) {
            record.set(number, line.state);
        }
    }

    /// SET_DIRECTION (5.18.6.3).
    fn set_direction(&mut self, number: LineNumber, to: Direction) -> Result<(), ExecuteError> {
        let Some(line) = self.lines.get_mut(number.index()) else { return Ok(()) };
        match to {
            Direction::None => {
                // The state is cleared even if the hardware fails: the driver has finished with the line.
                self.returned.extend(line.clear());
                return Ok(self.hardware.set_up(number.number(), line.setup())?);
            }
            Direction::Output if line.state.trigger.is_some() => {
                return Err(ExecuteError::OutputWithInterrupt);
            }
            Direction::Output | Direction::Input => {}
        }
        let wanted = setup(to, line.state.value, line.state.trigger, line.safe);
        self.hardware.set_up(number.number(), wanted)?;
        line.state.direction = to;
        Ok(())
    }

    /// SET_VALUE (5.18.6.5): drives an output, and is kept for a line that becomes one.
    fn set_value(&mut self, number: LineNumber, to: bool) -> Result<(), ExecuteError> {
        let Some(line) = self.lines.get_mut(number.index()) else { return Ok(()) };
        if line.state.direction == Direction::Output {
            self.hardware.set_up(number.number(), Setup::Output(to))?;
        }
        line.state.value = to;
        Ok(())
    }

    /// SET_IRQ_TYPE (5.18.6.6) with a trigger. A driver must disable an interrupt before it changes the
    /// trigger. For one that does not, such as Linux's, the new trigger applies, the latch is cleared, and
    /// the buffer stays queued.
    fn enable(&mut self, number: LineNumber, trigger: Trigger) -> Result<(), ExecuteError> {
        let Some(line) = self.lines.get_mut(number.index()) else { return Ok(()) };
        if line.state.trigger == Some(trigger) {
            return Ok(());
        }
        let was_enabled = line.state.trigger.take().is_some();
        (line.state.latched, line.state.keep_buffer, line.state.level) = (false, true, None);
        if line.state.direction == Direction::Output {
            return Err(ExecuteError::OutputWithInterrupt);
        }
        if was_enabled {
            self.hardware.set_up(number.number(), line.setup())?;
            self.hardware.take_edges(number.number())?;
        }
        let wanted = setup(line.state.direction, line.state.value, Some(trigger), line.safe);
        self.hardware.set_up(number.number(), wanted)?;
        (line.state.trigger, line.state.keep_buffer) = (Some(trigger), false);
        if self.record.is_some() {
            line.state.level = self.hardware.value(number.number()).ok();
        }
        self.check_interrupt(number.number());
        Ok(())
    }

    /// SET_IRQ_TYPE (5.18.6.6) with NONE: edges are no longer recorded, then the recorded ones are dropped,
    /// so that none can be latched afterwards. The buffer is returned unused (5.18.7.3).
    fn disable(&mut self, number: LineNumber) -> Result<(), ExecuteError> {
        let Some(line) = self.lines.get_mut(number.index()) else { return Ok(()) };
        let was_enabled = line.state.trigger.take().is_some();
        (line.state.latched, line.state.keep_buffer, line.state.level) = (false, false, None);
        if let Some(buffer) = line.buffer.take() {
            self.returned.push((buffer, IrqStatus::Invalid));
        }
        if was_enabled {
            self.hardware.set_up(number.number(), line.setup())?;
            self.hardware.take_edges(number.number())?;
        }
        Ok(())
    }

    /// Unmasks the interrupt of a line: the driver has queued a buffer (5.18.7).
    pub fn unmask(&mut self, number: LineNumber, buffer: B) {
        let Some(line) = self.lines.get_mut(number.index()) else {
            return self.returned.push((buffer, IrqStatus::Invalid));
        };
        // Unmasked without being enabled (5.18.6.6), or a second buffer, which a driver must not queue
        // (5.18.7.2).
        let is_disabled = line.state.trigger.is_none() && !line.state.keep_buffer;
        if is_disabled || line.buffer.is_some() || self.suspended {
            line.state.keep_buffer |= is_disabled;
            self.returned.push((buffer, IrqStatus::Invalid));
            return self.record_line(number.number());
        }
        line.buffer = Some(buffer);
        self.check_interrupt(number.number());
        self.record_line(number.number());
    }

    /// Raises the interrupt of a line that was enabled or unmasked, if it is latched or its level is active.
    /// For a level trigger, edges are taken before the level is read: an edge between the two raises the
    /// interrupt once, by the level, and edges that were recorded while the line was masked do not count.
    fn check_interrupt(&mut self, number: u16) {
        let Some(line) = self.lines.get_mut(usize::from(number)) else { return };
        let active = match line.state.trigger {
            None => return,
            Some(Trigger::Rising | Trigger::Falling | Trigger::Both) => {
                if line.state.latched && line.buffer.is_some() {
                    line.state.latched = false;
                    self.raise(number);
                }
                return self.handle_edges(number);
            }
            Some(Trigger::High) => true,
            Some(Trigger::Low) => false,
        };
        let taken = self.hardware.take_edges(number);
        match taken.and_then(|_| self.hardware.value(number)) {
            Ok(value) if value == active => self.raise(number),
            Ok(_) => {}
            Err(error) => warn!("line {number}: cannot read its level: {error}"),
        }
    }

    /// Handles a readable descriptor: that of a line, or one of the hardware's own.
    pub fn handle_event(&mut self, token: u32) {
        match u16::try_from(token) {
            Ok(number) if usize::from(number) < self.lines.len() => {
                self.handle_edges(number);
                self.record_line(number);
            }
            _ => self.hardware.handle_event(token),
        }
    }

    /// Takes the edges of a line and raises or latches its interrupt. There may be no trigger: the event may
    /// be older than the last reset.
    fn handle_edges(&mut self, number: u16) {
        let Some(line) = self.lines.get_mut(usize::from(number)) else { return };
        // Always taken: the descriptor stays readable otherwise.
        let EdgeReport { edges, level } = match self.hardware.take_edges(number) {
            Ok(report) => report,
            Err(error) => return warn!("line {number}: cannot read its events: {error}"),
        };
        let Some(trigger) = line.state.trigger else { return };
        let (is_masked, is_level) = (line.buffer.is_none(), matches!(trigger, Trigger::High | Trigger::Low));
        // The first edge raises an unmasked interrupt. All others are latched as one, for an edge trigger
        // (5.18.6.9).
        let masked_edges = if is_masked { edges } else { edges.saturating_sub(1) };
        line.state.latched |= masked_edges > 0 && !is_level;
        line.state.level = level.or(line.state.level);
        if edges > 0 {
            self.raise(number);
        }
    }

    /// Raises the interrupt of a line if it is unmasked: returns the buffer, which masks it.
    fn raise(&mut self, number: u16) {
        let line = self.lines.get_mut(usize::from(number));
        if let Some(buffer) = line.and_then(|line| line.buffer.take()) {
            self.returned.push((buffer, IrqStatus::Valid));
        }
    }

    /// Returns all event buffers unused, because the event queue stops. A driver that was paused finds its
    /// interrupts masked and queues its buffers again.
    pub fn return_buffers(&mut self) {
        for line in &mut self.lines {
            let buffer = line.buffer.take();
            self.returned.extend(buffer.map(|buffer| (buffer, IrqStatus::Invalid)));
        }
    }

    /// Sets all lines to their safe values, clears their state, and drops the event buffers: no driver uses
    /// the lines, and there is no ring to return the buffers to.
    pub fn reset(&mut self) {
        self.returned.clear();
        self.suspended = false;
        for line in &mut self.lines {
            line.clear();
        }
        if let Some(record) = &self.record {
            record.clear();
        }
        self.make_all_safe();
    }

    fn make_all_safe(&mut self) {
        for (number, line) in (0u16..).zip(&self.lines) {
            if let Err(error) = self.hardware.set_up(number, line.safe.setup()) {
                warn!("line {number}: cannot set it to its safe value: {error}");
            }
        }
    }
}
