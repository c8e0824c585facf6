// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's end of the exchange with an agent. It sends each frame until that is acknowledged, and requests
//! each part of an answer until it is received.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::console::{Console, Line, Party};
use crate::frame::{Assembly, Frame, Kind, PAYLOAD_TO_AGENT};
use crate::request::{Answer, Output, Request};

/// The time without an answer after which a frame counts as lost.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a frame is sent before the channel counts as broken.
const ATTEMPTS: u32 = 20;
/// The time that a request may take beyond that of the program that it runs.
const OVERHEAD: Duration = Duration::from_secs(60);

/// The channel to the agent of one domain. It has one exchange at a time; the channels of other domains are
/// independent of it.
pub struct Channel {
    console: Arc<Console>,
    domain: u16,
    exchange: Mutex<Exchange>,
}

#[derive(Clone, Copy, Default)]
struct Exchange {
    agent: Option<u16>,
    sequence: u8,
    mark: usize,
}

impl Channel {
    /// Returns the channel to `domain`.
    #[must_use]
    pub fn new(console: Arc<Console>, domain: u16) -> Self {
        Self { console, domain, exchange: Mutex::default() }
    }

    /// Waits for the agent's hello.
    ///
    /// # Errors
    /// Returns an error if the agent sends none within `limit`.
    pub fn wait_for_agent(&self, limit: Duration) -> Result<()> {
        let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        if exchange.agent.is_some() {
            return Ok(());
        }
        let end = Instant::now() + limit;
        while let Some(frame) = self.receive(&mut exchange, end)? {
            if frame.kind == Kind::Hello {
                exchange.agent = Some(frame.agent);
                return Ok(());
            }
        }
        bail!("the agent of domain {} has sent no hello within {limit:?}", self.domain)
    }

    /// Runs a program in the domain, and waits for its end.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started, or the channel fails. A program that fails is not
    /// an error here.
    pub fn run(&self, command: &[&str], limit: Duration) -> Result<Output> {
        let milliseconds = u32::try_from(limit.as_millis())?;
        let answer = self.ask(&Request::Run(owned(command), milliseconds), limit)?;
        output(answer).with_context(|| format!("`{}` in domain {}", command.join(" "), self.domain))
    }

    /// Runs a program in the domain and returns what it printed.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started or fails, with its output, or if the channel fails.
    pub fn check(&self, command: &[&str], limit: Duration) -> Result<String> {
        let output = self.run(command, limit)?;
        ensure!(
            output.succeeded(),
            "`{}` in domain {}: {:?}: {} {}",
            command.join(" "),
            self.domain,
            output.end,
            output.text(),
            output.error_text()
        );
        Ok(output.text())
    }

    /// Starts a program in the domain. It is killed when the returned value is dropped.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started, or the channel fails.
    pub fn start(&self, command: &[&str]) -> Result<Background<'_>> {
        match self.ask(&Request::Start(owned(command)), Duration::ZERO)? {
            Answer::Started(number) => Ok(Background { channel: self, number }),
            Answer::Failed(reason) => bail!("domain {}: {reason}", self.domain),
            Answer::Output(_) => bail!("domain {}: unexpected answer of the agent", self.domain),
        }
    }

    /// Sends a request and waits for its answer. `limit` is the time that the requested program may take.
    ///
    /// # Errors
    /// Returns an error if the agent does not answer, or was restarted.
    pub fn ask(&self, request: &Request, limit: Duration) -> Result<Answer> {
        self.wait_for_agent(super::PATIENCE)?;
        let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let assembly = self.send(&mut exchange, request)?;
        let answer = self.collect(&mut exchange, assembly, limit + OVERHEAD)?;
        postcard::from_bytes(&answer).context("invalid answer of the agent")
    }

    /// Runs an interactive program on the domain's console until it ends, or until `input` returns [`None`].
    ///
    /// # Errors
    /// Returns an error if the agent does not acknowledge the request, or the input cannot be read.
    pub fn interactive(
        &self,
        command: &[&str],
        mut input: impl FnMut() -> Result<Option<Vec<u8>>>,
        output: impl Write + Send + 'static,
    ) -> Result<()> {
        self.wait_for_agent(super::PATIENCE)?;
        let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = self.send(&mut exchange, &Request::Interactive(owned(command)))?;
        let ended_or_input = || {
            while let Some(frame) = self.receive(&mut exchange, Instant::now())? {
                answer.add(frame);
            }
            if answer.message().is_some() { Ok(None) } else { input() }
        };
        self.console.hand_over(self.domain, ended_or_input, output)
    }

    /// Sends a request. Returns the begin of the answer, if it was received already.
    fn send(&self, exchange: &mut Exchange, request: &Request) -> Result<Assembly> {
        let agent = exchange.agent.unwrap_or_default();
        exchange.sequence = exchange.sequence.wrapping_add(1);
        let message = postcard::to_allocvec(request)?;
        let mut assembly = Assembly::default();
        for frame in Frame::split(Kind::Request, agent, exchange.sequence, &message, PAYLOAD_TO_AGENT) {
            self.deliver(exchange, &frame, &mut assembly)?;
        }
        Ok(assembly)
    }

    /// Sends a frame until the agent acknowledges it.
    fn deliver(&self, exchange: &mut Exchange, frame: &Frame, assembly: &mut Assembly) -> Result<()> {
        for _ in 0..ATTEMPTS {
            self.console.type_to(self.domain, frame.to_line().as_bytes())?;
            let end = Instant::now() + SILENCE;
            while let Some(seen) = self.receive(exchange, end)? {
                if seen.sequence != frame.sequence {
                    continue;
                }
                match seen.kind {
                    Kind::Accepted if seen.index > frame.index => return Ok(()),
                    Kind::Busy => return Ok(()),
                    Kind::Answer => {
                        assembly.add(seen);
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
        bail!("the agent of domain {} does not acknowledge a frame", self.domain)
    }

    /// Receives the frames of an answer until it is complete.
    fn collect(&self, exchange: &mut Exchange, mut assembly: Assembly, limit: Duration) -> Result<Vec<u8>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(message) = assembly.message() {
                return Ok(message);
            }
            ensure!(Instant::now() < end, "domain {} does not answer within {limit:?}", self.domain);
            match self.receive(exchange, Instant::now() + SILENCE)? {
                Some(frame) => {
                    if frame.kind == Kind::Answer && frame.sequence == exchange.sequence {
                        assembly.add(frame);
                    }
                }
                None => {
                    let agent = exchange.agent.unwrap_or_default();
                    let again =
                        Frame::signal(Kind::Fetch, agent, exchange.sequence, assembly.first_missing());
                    self.console.type_to(self.domain, again.to_line().as_bytes())?;
                }
            }
        }
    }

    /// Returns the next frame of the domain's agent, or [`None`] at `end`.
    fn receive(&self, exchange: &mut Exchange, end: Instant) -> Result<Option<Frame>> {
        let known = exchange.agent;
        let own = |line: &Line| {
            let frame = Frame::from_line(&line.text)?;
            let here = line.from == Party::Domain(self.domain);
            // A hello shows in which domain its agent is by Xen's prefix of the line. Later frames are
            // identified by the agent's number, as a line may have lost its prefix.
            (known == Some(frame.agent) || (here && frame.kind == Kind::Hello)).then_some(frame)
        };
        let left = end.saturating_duration_since(Instant::now());
        let Some((frame, next)) = self.console.wait(exchange.mark, left, own)? else {
            return Ok(None);
        };
        exchange.mark = next;
        let other = known.is_some_and(|number| number != frame.agent);
        ensure!(!other, "the agent of domain {} was restarted", self.domain);
        Ok(Some(frame))
    }
}

fn owned(command: &[&str]) -> Vec<String> {
    command.iter().map(|&word| word.to_owned()).collect()
}

fn output(answer: Answer) -> Result<Output> {
    match answer {
        Answer::Output(output) => Ok(output),
        Answer::Failed(reason) => bail!(reason),
        Answer::Started(_) => bail!("unexpected answer of the agent"),
    }
}

/// A program that runs in a domain until this value is dropped.
pub struct Background<'a> {
    channel: &'a Channel,
    number: u32,
}

impl Background<'_> {
    /// Returns what the program has written so far, and whether it has ended.
    ///
    /// # Errors
    /// Returns an error if the channel fails.
    pub fn look(&self) -> Result<Output> {
        output(self.channel.ask(&Request::Look(self.number), Duration::ZERO)?)
    }

    /// Polls the program's output until `ready` returns true for it, or the program has ended.
    ///
    /// # Errors
    /// Returns an error if that takes longer than `limit`, or the channel fails.
    pub fn look_until(&self, limit: Duration, ready: impl Fn(&Output) -> bool) -> Result<Output> {
        let end = Instant::now() + limit;
        loop {
            let output = self.look()?;
            if ready(&output) || output.end != crate::request::End::Running {
                return Ok(output);
            }
            ensure!(
                Instant::now() < end,
                "not within {limit:?}; output so far: {} {}",
                output.text(),
                output.error_text()
            );
        }
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        // If the channel is broken, the test has failed already.
        let _ = self.channel.ask(&Request::Stop(self.number), Duration::ZERO);
    }
}
