// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Authorise: which parsed requests may reach a line.
//!
//! A guest has the lines that the operator chose for it, numbered from 0 in the order of the command
//! line, and no others; a [`Line`] exists only for those. That a line has one request in execution
//! at a time, and its answers in the order of its requests (virtio 1.3, 5.18.6.9), follows from the
//! signature of [`super::controller::Controller::execute`], which is done when it returns.

use thiserror::Error;

use super::request::{Request, UncheckedLine};

/// A line that this device has: made by [`Policy`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line(u16);

impl Line {
    /// The line's number, for the guest.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The line's place in a table of all lines.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Why a well-formed request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// `gpio` is not below `ngpio`.
    #[error("line {line} does not exist, the device has {lines}")]
    NoSuchLine {
        /// The number that the guest gave.
        line: u16,
        /// How many lines there are.
        lines: u16,
    },
    /// An interrupt message without VIRTIO_GPIO_F_IRQ (5.18.6.6).
    #[error("interrupts were not negotiated")]
    NoInterrupts,
}

/// What the guest may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    lines: u16,
    interrupts: bool,
}

impl Policy {
    /// The policy of a device of so many lines, before the driver negotiated anything.
    pub fn new(lines: u16) -> Self {
        Self { lines, interrupts: false }
    }

    /// How many lines there are.
    pub fn lines(&self) -> u16 {
        self.lines
    }

    /// Takes note of whether VIRTIO_GPIO_F_IRQ was negotiated.
    pub fn set_interrupts(&mut self, negotiated: bool) {
        self.interrupts = negotiated;
    }

    /// The request, about a line that exists.
    pub fn authorise(&self, request: Request<UncheckedLine>) -> Result<Request<Line>, Refusal> {
        Ok(match request {
            Request::LineNames => Request::LineNames,
            Request::GetDirection(line) => Request::GetDirection(self.line(line)?),
            Request::SetDirection(line, to) => Request::SetDirection(self.line(line)?, to),
            Request::GetValue(line) => Request::GetValue(self.line(line)?),
            Request::SetValue(line, to) => Request::SetValue(self.line(line)?, to),
            Request::SetTrigger(..) if !self.interrupts => return Err(Refusal::NoInterrupts),
            Request::SetTrigger(line, to) => Request::SetTrigger(self.line(line)?, to),
        })
    }

    /// The line to unmask: event buffers are for interrupts only.
    pub fn authorise_unmask(&self, line: UncheckedLine) -> Result<Line, Refusal> {
        if self.interrupts { self.line(line) } else { Err(Refusal::NoInterrupts) }
    }

    /// All lines, for a reset.
    pub fn all(&self) -> impl Iterator<Item = Line> + use<> {
        (0..self.lines).map(Line)
    }

    fn line(&self, UncheckedLine(line): UncheckedLine) -> Result<Line, Refusal> {
        let lines = self.lines;
        if line < lines { Ok(Line(line)) } else { Err(Refusal::NoSuchLine { line, lines }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpio::spec::{Direction, Trigger};

    #[test]
    fn a_line_beyond_the_last_is_refused_in_every_message() {
        let mut policy = Policy::new(3);
        policy.set_interrupts(true);
        for line in [3, 4, 0x100, u16::MAX] {
            let refused = Refusal::NoSuchLine { line, lines: 3 };
            let unchecked = UncheckedLine(line);
            for request in [
                Request::GetDirection(unchecked),
                Request::SetDirection(unchecked, Direction::Input),
                Request::GetValue(unchecked),
                Request::SetValue(unchecked, true),
                Request::SetTrigger(unchecked, None),
            ] {
                assert_eq!(policy.authorise(request), Err(refused));
            }
            assert_eq!(policy.authorise_unmask(unchecked), Err(refused));
        }
        assert_eq!(policy.authorise(Request::GetValue(UncheckedLine(2))), Ok(Request::GetValue(Line(2))));
        assert_eq!(policy.all().count(), 3);
    }

    /// 5.18.6.6: "This request is allowed only if the VIRTIO_GPIO_F_IRQ feature has been negotiated."
    #[test]
    fn interrupt_messages_need_the_feature() {
        let mut policy = Policy::new(1);
        let line = UncheckedLine(0);
        let request = Request::SetTrigger(line, Some(Trigger::Both));
        assert_eq!(policy.authorise(request), Err(Refusal::NoInterrupts));
        assert_eq!(policy.authorise_unmask(line), Err(Refusal::NoInterrupts));
        policy.set_interrupts(true);
        assert!(policy.authorise(request).is_ok());
        assert!(policy.authorise_unmask(line).is_ok());
    }
}
