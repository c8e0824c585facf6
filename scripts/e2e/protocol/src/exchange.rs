// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The agent's side of the exchange: which frames answer a frame, and when a request is complete.
//!
//! It does no input or output. It keeps the last answer: if a request or an answer is damaged, the host sends
//! or fetches it again, and nothing is done twice.

use alloc::vec::Vec;
use core::mem;

use serde::Serialize;

use crate::frame::{Assembly, Frame, Kind, PAYLOAD_TO_HOST};
use crate::request::{Answer, Request};

/// The state of the exchange.
#[derive(Debug)]
enum Stage {
    /// No request has arrived since the agent started.
    Fresh,
    /// Parts of the request have arrived.
    Receiving(u8, Assembly),
    /// The request is being executed.
    Executing(u8),
    /// The answer, kept until the next request begins.
    Answered(u8, Vec<Frame>),
}

/// The result of a frame from the host.
#[derive(Debug, Default)]
pub struct Reaction {
    /// The frames to send at once.
    pub send: Vec<Frame>,
    /// A complete request. The caller has to call [`Exchange::answer`].
    pub request: Option<Result<Request, postcard::Error>>,
}

/// The exchange of one agent.
#[derive(Debug)]
pub struct Exchange {
    number: u16,
    stage: Stage,
}

impl Exchange {
    /// Creates the exchange of an agent that has started. `number` differs from that of any other agent, and
    /// from its own before a restart.
    #[must_use]
    pub fn new(number: u16) -> Self {
        Self { number, stage: Stage::Fresh }
    }

    /// Returns whether no request has arrived yet. Until then the agent repeats [`Exchange::hello`].
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        matches!(self.stage, Stage::Fresh)
    }

    /// Returns the frame that announces the agent.
    #[must_use]
    pub fn hello(&self) -> Frame {
        self.signal(Kind::Hello, 0, 0)
    }

    /// Handles a line of the console.
    pub fn receive(&mut self, line: &str) -> Reaction {
        let frame = Frame::from_line(line).filter(|frame| frame.agent == self.number);
        frame.map(|frame| self.receive_frame(frame)).unwrap_or_default()
    }

    fn receive_frame(&mut self, frame: Frame) -> Reaction {
        let sequence = frame.sequence;
        let send = match (frame.kind, &self.stage) {
            (Kind::Request, Stage::Executing(present) | Stage::Answered(present, _))
                if *present == sequence =>
            {
                self.signal(Kind::Accepted, sequence, frame.index + 1)
            }
            // An early request does not interrupt a running program.
            (_, Stage::Executing(present)) => self.signal(Kind::Busy, *present, 0),
            (Kind::Request, _) => return self.receive_request(frame),
            (Kind::Fetch, Stage::Answered(present, frames)) if *present == sequence => {
                let send = frames.iter().skip(usize::from(frame.index)).cloned().collect();
                return Reaction { send, request: None };
            }
            (Kind::Fetch, Stage::Receiving(present, assembly)) if *present == sequence => {
                self.signal(Kind::Accepted, sequence, assembly.first_missing())
            }
            _ => return Reaction::default(),
        };
        Reaction { send: Vec::from([send]), request: None }
    }

    fn receive_request(&mut self, frame: Frame) -> Reaction {
        let sequence = frame.sequence;
        let mut assembly = match mem::replace(&mut self.stage, Stage::Fresh) {
            Stage::Receiving(present, assembly) if present == sequence => assembly,
            _ => Assembly::default(),
        };
        assembly.add(frame);
        let send = Vec::from([self.signal(Kind::Accepted, sequence, assembly.first_missing())]);
        let Some(message) = assembly.message() else {
            self.stage = Stage::Receiving(sequence, assembly);
            return Reaction { send, request: None };
        };
        self.stage = Stage::Executing(sequence);
        Reaction { send, request: Some(postcard::from_bytes(&message)) }
    }

    /// Ends the request that is being executed. Returns the frames with the answer.
    pub fn answer(&mut self, answer: &Answer) -> Vec<Frame> {
        let Stage::Executing(sequence) = self.stage else {
            return Vec::new();
        };
        let frames = Frame::split(Kind::Answer, self.number, sequence, &encode(answer), PAYLOAD_TO_HOST);
        self.stage = Stage::Answered(sequence, frames.clone());
        frames
    }

    fn signal(&self, kind: Kind, sequence: u8, index: u16) -> Frame {
        Frame::signal(kind, self.number, sequence, index)
    }
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    // Plain data always has an encoding. The host reports an empty message as invalid.
    postcard::to_allocvec(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec;

    use super::*;
    use crate::frame::PAYLOAD_TO_AGENT;

    const NUMBER: u16 = 7;

    fn request(sequence: u8) -> (Request, Vec<String>) {
        let request = Request::Run(vec!["registers".to_string(), "i2c".to_string()], 60_000);
        let message = postcard::to_allocvec(&request).unwrap();
        let frames = Frame::split(Kind::Request, NUMBER, sequence, &message, PAYLOAD_TO_AGENT);
        (request, frames.iter().map(Frame::to_line).collect())
    }

    #[test]
    fn a_request_is_executed_once_and_its_answer_is_sent_again() {
        let mut exchange = Exchange::new(NUMBER);
        let (request, lines) = request(1);
        let (last, first) = lines.split_last().unwrap();
        for line in first {
            let reaction = exchange.receive(line);
            assert_eq!((reaction.send[0].kind, reaction.request), (Kind::Accepted, None));
        }
        assert_eq!(exchange.receive(last).request, Some(Ok(request)));
        assert_eq!(exchange.receive(last).request, None, "the request is being executed");

        let frames = exchange.answer(&Answer::Started(3));
        assert_eq!(exchange.receive(last).request, None, "the request was executed");
        let fetch = Frame::signal(Kind::Fetch, NUMBER, 1, 0);
        assert_eq!(exchange.receive(&fetch.to_line()).send, frames);
    }

    #[test]
    fn a_request_during_another_is_answered_with_busy() {
        let mut exchange = Exchange::new(NUMBER);
        request(1).1.iter().for_each(|line| drop(exchange.receive(line)));
        let reaction = exchange.receive(&request(2).1[0]);
        assert_eq!((reaction.send[0].kind, reaction.send[0].sequence), (Kind::Busy, 1));
    }

    #[test]
    fn frames_to_another_agent_are_ignored() {
        let mut exchange = Exchange::new(NUMBER + 1);
        let reaction = exchange.receive(&request(1).1[0]);
        assert!(reaction.send.is_empty() && reaction.request.is_none() && exchange.is_fresh());
    }
}
