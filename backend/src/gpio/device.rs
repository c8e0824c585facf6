// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device as the core sees it: from chains to requests, and from answers to chains.

use std::io;

use log::debug;

use crate::chain::{Chain, Limits};
use crate::device::{Device, QueueLimits, Refused};
use crate::watch::Watcher;

use super::chip::Lines;
use super::controller::Controller;
use super::policy::Policy;
use super::request::{self, Request};
use super::spec::{self, IrqStatus};

/// Longest name of a line, as in Linux's character device (32 bytes with the zero at the end).
pub const NAME_MAX: usize = 31;

/// How many lines a device may have: the buffers of all their interrupts, two descriptors each, fit into
/// the event queue together.
pub const LINES_MAX: u16 = QUEUE_SIZE / 2;

/// Entries of a ring at most. QEMU's virtio-mmio offers the driver 1024 whatever a device asks for, and
/// Linux takes what is offered.
const QUEUE_SIZE: u16 = 1024;

/// A request of a wrong size still gets an answer that says so, up to this one.
const OVERSIZED_REQUEST: usize = 4 * spec::REQUEST_SIZE;

/// The answer to GET_LINE_NAMES is the longest: a status, and all names.
const NAMES_ANSWER: usize = 1 + (LINES_MAX as usize) * (NAME_MAX + 1);

/// Indexed by queue.
const QUEUES: [QueueLimits; spec::QUEUES] = [
    QueueLimits { size: QUEUE_SIZE, chain: Limits { request: OVERSIZED_REQUEST, answer: NAMES_ANSWER } },
    QueueLimits { size: QUEUE_SIZE, chain: Limits { request: OVERSIZED_REQUEST, answer: OVERSIZED_REQUEST } },
];

/// Why a set of names cannot be that of a device.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No lines, or more than the rings can serve.
    #[error("a GPIO device has 1 to {LINES_MAX} lines, not {0}")]
    Count(usize),
    /// Too long, or not 7-bit ASCII (virtio 1.3, 5.18.6.1).
    #[error("the name {0:?} is not 1 to {NAME_MAX} printable ASCII characters")]
    Characters(String),
    /// 5.18.6.1: "the name must be unique within a GPIO Device".
    #[error("two lines have the name {0:?}")]
    Twice(String),
}

/// A GPIO device over hardware `L`.
pub struct Gpio<L> {
    controller: Controller<L, Chain>,
    policy: Policy,
    names: Vec<u8>,
    config: [u8; spec::CONFIG_SIZE],
}

impl<L: Lines> Gpio<L> {
    /// A device whose lines have these names, where they have one.
    ///
    /// # Errors
    /// When the names are not as the specification wants them.
    pub fn new(hardware: L, names: &[Option<String>]) -> Result<Self, NameError> {
        let count = u16::try_from(names.len())
            .ok()
            .filter(|count| (1..=LINES_MAX).contains(count))
            .ok_or(NameError::Count(names.len()))?;
        let names = names_block(names)?;
        let size = u32::try_from(names.len()).unwrap_or(0);
        Ok(Self {
            controller: Controller::new(hardware, count),
            policy: Policy::new(count),
            names,
            config: spec::config(count, size),
        })
    }

    /// One message of the request queue.
    fn answer(&mut self, chain: &mut Chain) {
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
            Ok(_) => {
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
        match self.policy.authorise(request::parse(request)?)? {
            Request::LineNames => Ok(Answer::Names),
            request => Ok(Answer::Value(self.controller.execute(request)?)),
        }
    }

    /// One buffer of the event queue; given back at once if it unmasks nothing.
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
            let printable = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            if !printable || !(1..=NAME_MAX).contains(&name.len()) {
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

    fn event(&mut self, token: u32, finished: &mut Vec<Chain>) {
        self.controller.event(token);
        self.give_back(finished);
    }

    /// A frontend that resets the device stops both queues and may say no more (vhost-user has no message
    /// for it that all frontends send): without requests there is no driver, and what it had set up goes.
    fn stop(&mut self, queue: usize, finished: &mut Vec<Chain>) {
        self.controller.stop_events();
        self.give_back(finished);
        if queue == usize::from(spec::REQUEST_QUEUE) {
            self.controller.reset();
        }
    }

    fn reset(&mut self) {
        self.policy.set_interrupts(false);
        self.controller.reset();
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.controller.watch(watcher)
    }
}
