// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio GPIO device: converts chains to requests, and responses to answers.

use std::collections::HashSet;
use std::io;

use log::{debug, warn};

use crate::chain::{Chain, Limits};
use crate::device::{
    Device, Disconnect, MissingFeature, Persistence, QueueLimits, QueueStart, QueueStop, RING_SIZE,
};
use crate::inflight::DeviceRecord;
use crate::watch::Watcher;

use super::controller::{Controller, ExecuteError};
use super::lines::Lines;
use super::policy::Policy;
use super::request;
use super::safe::SafeValue;
use super::spec::{self, IrqStatus};

/// Maximum length of a line's name, as in Linux's character device (32 bytes with the terminating zero).
pub const NAME_MAX: usize = 31;

/// Maximum number of lines: the event buffers of all of them, two descriptors each, fit into the event queue
/// together.
pub const LINES_MAX: u16 = RING_SIZE / 2;

/// A request of a wrong size, up to this one, is answered with an error.
const OVERSIZED_REQUEST: usize = 4 * spec::REQUEST_SIZE;

/// The longest answer, to GET_LINE_NAMES: a status, and all names.
const NAMES_ANSWER: usize = 1 + (LINES_MAX as usize) * (NAME_MAX + 1);

/// The limits of the queues, by index.
const QUEUES: [QueueLimits; spec::QUEUES] = [
    QueueLimits { size: RING_SIZE, chain: Limits { request: OVERSIZED_REQUEST, answer: NAMES_ANSWER } },
    QueueLimits { size: RING_SIZE, chain: Limits { request: OVERSIZED_REQUEST, answer: OVERSIZED_REQUEST } },
];

/// Why names cannot be those of a device.
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
    /// Lines whose hardware failure was logged: a guest must not fill the log.
    failed: HashSet<u16>,
    names: Vec<u8>,
    config: [u8; spec::CONFIG_SIZE],
}

impl<L: Lines> Gpio<L> {
    /// Creates a device whose lines have these names, where they have one, and these safe values.
    ///
    /// # Errors
    /// When the names violate virtio 1.3, 5.18.6.1.
    pub fn new(hardware: L, names: &[Option<String>], safe: &[SafeValue]) -> Result<Self, NameError> {
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

    /// Answers a message of the request queue.
    fn answer(&mut self, chain: &mut Chain) {
        chain.set_failure_status(0, spec::STATUS_ERR);
        if chain.is_interrupted() {
            // It may or may not have been carried out.
            return chain.set_answer(&request::response(None));
        }
        match self.execute(chain.request()) {
            Ok(Answer::Value(value)) if chain.room() >= spec::RESPONSE_SIZE => {
                chain.set_answer(&request::response(Some(value)));
            }
            // 5.18.4: "The device sets this to 0 if it doesn't support names"; the message is not supported
            // then.
            Ok(Answer::Names) if !self.names.is_empty() && chain.room() > self.names.len() => {
                let (_, answer) = chain.request_and_answer(1 + self.names.len());
                if let [status, block @ ..] = answer {
                    *status = spec::STATUS_OK;
                    block.copy_from_slice(&self.names);
                }
            }
            Ok(Answer::Names) => {
                debug!("GET_LINE_NAMES refused: no room for the names, or no line has one");
                // All fields are set, also those of an array that is too short (5.18.6.9).
                if let (_, [status, ..]) = chain.request_and_answer(chain.room()) {
                    *status = spec::STATUS_ERR;
                }
            }
            Ok(Answer::Value(_)) => {
                debug!("request without room for its response");
                chain.set_answer(&request::response(None));
            }
            Err(error) => {
                debug!("request refused: {error}");
                chain.set_answer(&request::response(None));
            }
        }
    }

    /// Parses, authorises and executes a request. A request without room for its response is executed as
    /// well: virtio does not say that it has no effect.
    fn execute(&mut self, request: &[u8]) -> Result<Answer, Box<dyn std::error::Error>> {
        let request = self.policy.authorise(request::parse(request)?)?;
        let Some(line) = request.line() else { return Ok(Answer::Names) };
        match self.controller.execute(request) {
            Ok(value) => Ok(Answer::Value(value)),
            Err(ExecuteError::Hardware(error)) if self.failed.insert(line.number()) => {
                warn!("the guest's line {}: {error}", line.number());
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a buffer of the event queue, or returns it at once if it unmasks nothing. A buffer that a former
    /// daemon kept is like a new one: nothing was done for it.
    fn unmask(&mut self, mut chain: Chain, finished: &mut Vec<Chain>) {
        if chain.room() < spec::IRQ_RESPONSE_SIZE {
            debug!("event buffer without room for a status");
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

    /// Moves the returned event buffers to `finished`.
    fn finish_buffers(&mut self, finished: &mut Vec<Chain>) {
        finished.extend(self.controller.returned().map(|(mut chain, status)| {
            let [invalid] = IrqStatus::Invalid.to_wire();
            chain.set_failure_status(0, invalid);
            chain.set_answer(&status.to_wire());
            chain
        }));
    }
}

/// The answer to a request that succeeded.
enum Answer {
    /// `struct virtio_gpio_response`.
    Value(u8),
    /// `struct virtio_gpio_response_N`.
    Names,
}

/// Returns the names as GET_LINE_NAMES has them; nothing, if no line has one (5.18.6.1).
fn names_block(names: &[Option<String>]) -> Result<Vec<u8>, NameError> {
    let mut block = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if let Some(name) = name {
            // Zero terminates a name.
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

    fn accept_features(&mut self, features: u64) -> Result<(), MissingFeature> {
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
            self.finish_buffers(finished);
        }
    }

    fn handle_event(&mut self, token: u32, finished: &mut Vec<Chain>) {
        self.controller.handle_event(token);
        self.finish_buffers(finished);
    }

    fn start(&mut self, queue: usize, start: QueueStart) {
        if queue == usize::from(spec::REQUEST_QUEUE) {
            self.controller.start(start);
        }
    }

    /// Sets the lines to their safe values if the driver may have reset the device: most frontends stop both
    /// queues then, and also for a pause.
    fn stop(&mut self, queue: usize, stop: QueueStop, finished: &mut Vec<Chain>) {
        if stop == QueueStop::MaybeReset || queue == usize::from(spec::EVENT_QUEUE) {
            self.controller.return_buffers();
            self.finish_buffers(finished);
        }
        if stop == QueueStop::MaybeReset && queue == usize::from(spec::REQUEST_QUEUE) {
            self.controller.suspend();
        }
    }

    fn reset(&mut self) {
        self.policy.set_interrupts(false);
        self.controller.reset();
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.controller.watch(watcher)
    }

    fn persistence(&mut self) -> Option<&mut dyn Persistence> {
        Some(self)
    }
}

impl<L: Lines> Persistence for Gpio<L> {
    fn record_bytes(&self) -> usize {
        self.controller.record_bytes()
    }

    fn restore(&mut self, record: DeviceRecord) {
        self.controller.restore(record);
    }

    fn keeps_hardware(&self) -> bool {
        self.controller.keeps_hardware()
    }

    fn disconnect(&mut self, disconnect: Disconnect) {
        self.policy.set_interrupts(false);
        self.controller.disconnect(disconnect);
    }
}

#[cfg(test)]
mod tests;
