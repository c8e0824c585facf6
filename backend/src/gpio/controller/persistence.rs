// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines across a pause of the driver, and across the end of a daemon or a frontend.

use std::io;

use log::warn;

use super::Controller;
use crate::device::{Disconnect, QueueStart};
use crate::gpio::lines::Lines;
use crate::gpio::spec::Trigger;
use crate::gpio::state::{LineRecord, LineState};
use crate::inflight::DeviceRecord;

impl<L: Lines, B> Controller<L, B> {
    /// Returns the size of the lines' states in the in-flight record, in bytes.
    pub fn record_bytes(&self) -> usize {
        LineRecord::bytes(self.count())
    }

    /// Whether lines stay requested when this daemon ends.
    pub fn keeps_hardware(&self) -> bool {
        self.hardware.stay_requested()
    }

    /// Sets all lines to their safe values and keeps their state: the request queue stopped, for a reset or
    /// for a pause.
    pub fn suspend(&mut self) {
        self.suspended = true;
        self.make_all_safe();
    }

    /// Handles the end of the frontend: the lines go to their safe values, or stay as they are for a daemon
    /// that [restores](Self::restore) them. The record stays as it is.
    pub fn disconnect(&mut self, disconnect: Disconnect) {
        self.record = None;
        match disconnect {
            Disconnect::Final => self.reset(),
            Disconnect::DriverContinues => {
                self.returned.clear();
                self.lines.iter_mut().for_each(|line| line.buffer = None);
                self.suspended = true;
            }
        }
    }

    /// Handles the start of the request queue, by a new driver or by one that was paused.
    pub fn start(&mut self, start: QueueStart) {
        let is_new = match (start, &self.record) {
            (QueueStart::NewDriver, _) => true,
            (QueueStart::AsRecorded, Some(record)) => !record.is_valid(),
            (QueueStart::AsRecorded, None) | (QueueStart::SameDriver, _) => false,
        };
        if is_new { self.reset() } else { self.resume() }
    }

    /// Sets up the hardware for the state of before the pause. Edges that came meanwhile are lost; a level
    /// that is still active is not.
    fn resume(&mut self) {
        if !std::mem::replace(&mut self.suspended, false) {
            return;
        }
        for number in 0..self.count() {
            self.reapply(number);
        }
    }

    /// Sets up the hardware of a line for its state, which is cleared on failure. Returns whether it
    /// succeeded.
    fn reapply(&mut self, number: u16) -> bool {
        let Some(line) = self.lines.get_mut(usize::from(number)) else { return false };
        let applied = self.hardware.set_up(number, line.setup());
        if let Err(error) = &applied {
            warn!("line {number}: cannot be set up again: {error}");
            line.state = LineState { keep_buffer: true, ..LineState::default() };
            self.record_line(number);
        }
        applied.is_ok()
    }

    /// Restores the states from the record of a former daemon, if it is valid: outputs are requested with the
    /// value that they have, so that their level does not change, and interrupts are enabled again. Otherwise
    /// resets the device.
    pub fn restore(&mut self, record: DeviceRecord) {
        let record = LineRecord::new(record, self.count());
        let is_valid = record.is_valid();
        self.record = Some(record);
        if !is_valid {
            return self.reset();
        }
        log::info!("the lines continue in the state that another daemon recorded");
        self.suspended = false;
        for number in 0..self.count() {
            self.restore_line(number);
        }
    }

    fn restore_line(&mut self, number: u16) {
        let recorded = self.record.as_ref().and_then(|record| record.get(number));
        let Some(line) = self.lines.get_mut(usize::from(number)) else { return };
        if recorded.is_none() {
            warn!("line {number}: its recorded state is invalid, it starts unconfigured");
        }
        let LineState { trigger, latched, .. } = line.state;
        (line.state, line.buffer) = (recorded.unwrap_or_default(), None);
        // If this daemon itself wrote the record, it may have latched an edge since its frontend died.
        line.state.latched |= latched && trigger == line.state.trigger;
        if self.reapply(number)
            && self.has_missed_edge(number).unwrap_or(false)
            && let Some(line) = self.lines.get_mut(usize::from(number))
        {
            line.state.latched = true;
        }
        self.record_line(number);
    }

    /// Whether an edge of the trigger came while no daemon ran. Either the kernel recorded it, or the level
    /// differs from the recorded one. A pulse that is over is not found, nor is an edge after one of the
    /// other direction.
    fn has_missed_edge(&mut self, number: u16) -> io::Result<bool> {
        let Some(line) = self.lines.get(usize::from(number)) else { return Ok(false) };
        let LineState { trigger: Some(trigger), level: Some(before), .. } = line.state else {
            return Ok(false);
        };
        let edges = self.hardware.take_edges(number)?.edges;
        let now = self.hardware.value(number);
        // Stored even if the kernel recorded the edge: the next daemon compares with it.
        if let (Ok(now), Some(line)) = (&now, self.lines.get_mut(usize::from(number))) {
            line.state.level = Some(*now);
        }
        if edges > 0 {
            return Ok(!matches!(trigger, Trigger::High | Trigger::Low));
        }
        let now = now?;
        Ok(match trigger {
            Trigger::Rising => now && !before,
            Trigger::Falling => before && !now,
            Trigger::Both => now != before,
            // A level is read when the driver unmasks the line.
            Trigger::High | Trigger::Low => false,
        })
    }
}
