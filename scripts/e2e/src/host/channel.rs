// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's end of the exchange with an agent: every frame is sent until it is acknowledged, every part of
//! an answer is asked for until it is there.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::console::{Console, Line, Party};
use crate::frame::{Assembly, Frame, Kind, PAYLOAD_TO_AGENT};
use crate::request::{Answer, Output, Request};

/// After this much silence a frame is taken for lost.
const SILENCE: Duration = Duration::from_secs(2);
/// So often a frame is sent before the channel counts as broken.
const ATTEMPTS: u32 = 20;
/// What a request has on top of the time of the program that it runs.
const OVERHEAD: Duration = Duration::from_secs(60);

/// The channel to the agent of one domain. One exchange at a time; channels of different domains do not wait
/// for each other's answers.
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
    /// The channel to `domain`.
    #[must_use]
    pub fn new(console: Arc<Console>, domain: u16) -> Self {
        Self { console, domain, exchange: Mutex::default() }
    }

    /// Waits until the agent says that it is there.
    ///
    /// # Errors
    /// If it does not in time.
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
        bail!("the agent of domain {} does not report", self.domain)
    }

    /// Runs a program in the domain to its end.
    ///
    /// # Errors
    /// If it cannot be run, or the channel fails. A program that fails is no error here.
    pub fn run(&self, command: &[&str], limit: Duration) -> Result<Output> {
        let milliseconds = u32::try_from(limit.as_millis())?;
        let answer = self.ask(&Request::Run(owned(command), milliseconds), limit)?;
        output(answer).with_context(|| format!("`{}` in domain {}", command.join(" "), self.domain))
    }

    /// Runs a program in the domain and returns what it printed.
    ///
    /// # Errors
    /// Also if the program fails, with what it said.
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

    /// Starts a program in the domain, which is stopped when the returned value goes.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, command: &[&str]) -> Result<Background<'_>> {
        match self.ask(&Request::Start(owned(command)), Duration::ZERO)? {
            Answer::Started(number) => Ok(Background { channel: self, number }),
            Answer::Failed(reason) => bail!("domain {}: {reason}", self.domain),
            Answer::Output(_) => bail!("domain {} answered something else", self.domain),
        }
    }

    /// Asks, and waits for the answer, `limit` being the time that the agent may work on it.
    ///
    /// # Errors
    /// If the agent does not answer, or was started anew.
    pub fn ask(&self, request: &Request, limit: Duration) -> Result<Answer> {
        self.wait_for_agent(super::PATIENCE)?;
        let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let assembly = self.send(&mut exchange, request)?;
        let answer = self.collect(&mut exchange, assembly, limit + OVERHEAD)?;
        postcard::from_bytes(&answer).context("an answer that is none")
    }

    /// Gives the domain's console to an interactive program until it ends, or until `input` gives none:
    /// [`None`].
    ///
    /// # Errors
    /// If the agent does not take the request, or the input cannot be read.
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

    /// Sends a request; what is returned may have the beginning of the answer.
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
        bail!("the agent of domain {} does not acknowledge", self.domain)
    }

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

    /// The next frame of the domain's agent.
    fn receive(&self, exchange: &mut Exchange, end: Instant) -> Result<Option<Frame>> {
        let known = exchange.agent;
        let own = |line: &Line| {
            let frame = Frame::from_line(&line.text)?;
            let here = line.from == Party::Domain(self.domain);
            // Only a line with Xen's mark says where an agent is. Later its number says it.
            (known == Some(frame.agent) || (here && frame.kind == Kind::Hello)).then_some(frame)
        };
        let left = end.saturating_duration_since(Instant::now());
        let Some((frame, next)) = self.console.wait(exchange.mark, left, own)? else {
            return Ok(None);
        };
        exchange.mark = next;
        let other = known.is_some_and(|number| number != frame.agent);
        ensure!(!other, "the agent of domain {} was started anew", self.domain);
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
        Answer::Started(_) => bail!("it was started, not run"),
    }
}

/// A program that runs in a domain.
pub struct Background<'a> {
    channel: &'a Channel,
    number: u32,
}

impl Background<'_> {
    /// What it has written so far, and whether it has ended.
    ///
    /// # Errors
    /// If the channel fails.
    pub fn look(&self) -> Result<Output> {
        output(self.channel.ask(&Request::Look(self.number), Duration::ZERO)?)
    }

    /// Looks until `ready` says that it is enough, or the program has ended.
    ///
    /// # Errors
    /// If that takes longer than `limit`, or the channel fails.
    pub fn look_until(&self, limit: Duration, ready: impl Fn(&Output) -> bool) -> Result<Output> {
        let end = Instant::now() + limit;
        loop {
            let output = self.look()?;
            if ready(&output) || output.end != crate::request::End::Running {
                return Ok(output);
            }
            ensure!(Instant::now() < end, "still waiting; so far: {} {}", output.text(), output.error_text());
        }
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        // If the channel is broken, so is the scenario; it says so itself.
        let _ = self.channel.ask(&Request::Stop(self.number), Duration::ZERO);
    }
}
