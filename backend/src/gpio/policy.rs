// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Decides which parsed requests may reach a line.
//!
//! A guest has the lines that the operator chose for it, numbered from 0 in the order of the command line,
//! and no others; a [`LineNumber`] exists only for those. That a line has one request in execution at a time,
//! and answers in the order of its requests (virtio 1.3, 5.18.6.9), follows from the signature of
//! [`super::controller::Controller::execute`], which has executed the request when it returns.

use thiserror::Error;

use super::request::{GpioRequest, UncheckedLine};

/// The number of a line that this device has; only [`Policy`] creates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineNumber(u16);

impl LineNumber {
    /// Returns the guest's number of the line.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Returns the line's index in a table of all lines.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}
/// Why a well-formed request is refused.
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

/// What the guest may request.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    lines: u16,
    interrupts: bool,
}

impl Policy {
    /// Creates the policy of a device of so many lines, before the driver negotiated anything.
    pub fn new(lines: u16) -> Self {
        Self { lines, interrupts: false }
    }

    /// Sets whether VIRTIO_GPIO_F_IRQ was negotiated.
    pub fn set_interrupts(&mut self, negotiated: bool) {
        self.interrupts = negotiated;
    }

    /// Returns the request for a line that exists.
    pub fn authorise(&self, request: GpioRequest<UncheckedLine>) -> Result<GpioRequest<LineNumber>, Refusal> {
        Ok(match request {
            GpioRequest::LineNames => GpioRequest::LineNames,
            GpioRequest::GetDirection(line) => GpioRequest::GetDirection(self.line(line)?),
            GpioRequest::SetDirection(line, to) => GpioRequest::SetDirection(self.line(line)?, to),
            GpioRequest::GetValue(line) => GpioRequest::GetValue(self.line(line)?),
            GpioRequest::SetValue(line, to) => GpioRequest::SetValue(self.line(line)?, to),
            GpioRequest::SetTrigger(..) if !self.interrupts => return Err(Refusal::NoInterrupts),
            GpioRequest::SetTrigger(line, to) => GpioRequest::SetTrigger(self.line(line)?, to),
        })
    }

    /// Returns the line to unmask: event buffers are for interrupts only.
    pub fn authorise_unmask(&self, line: UncheckedLine) -> Result<LineNumber, Refusal> {
        if self.interrupts { self.line(line) } else { Err(Refusal::NoInterrupts) }
    }

    fn line(&self, UncheckedLine(line): UncheckedLine) -> Result<LineNumber, Refusal> {
        let lines = self.lines;
        if line < lines { Ok(LineNumber(line)) } else { Err(Refusal::NoSuchLine { line, lines }) }
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
                GpioRequest::GetDirection(unchecked),
                GpioRequest::SetDirection(unchecked, Direction::Input),
                GpioRequest::GetValue(unchecked),
                GpioRequest::SetValue(unchecked, true),
                GpioRequest::SetTrigger(unchecked, None),
            ] {
                assert_eq!(policy.authorise(request), Err(refused));
            }
            assert_eq!(policy.authorise_unmask(unchecked), Err(refused));
        }
        let allowed = GpioRequest::GetValue(LineNumber(2));
        assert_eq!(policy.authorise(GpioRequest::GetValue(UncheckedLine(2))), Ok(allowed));
    }

    /// 5.18.6.6: "This request is allowed only if the VIRTIO_GPIO_F_IRQ feature has been negotiated."
    #[test]
    fn interrupt_messages_need_the_feature() {
        let mut policy = Policy::new(1);
        let line = UncheckedLine(0);
        let request = GpioRequest::SetTrigger(line, Some(Trigger::Both));
        assert_eq!(policy.authorise(request), Err(Refusal::NoInterrupts));
        assert_eq!(policy.authorise_unmask(line), Err(Refusal::NoInterrupts));
        policy.set_interrupts(true);
        assert!(policy.authorise(request).is_ok());
        assert!(policy.authorise_unmask(line).is_ok());
    }
}
