// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Serves the host's requests on the console as the agent on Linux does, with [`commands`] instead of
//! programs.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use protocol::exchange::Exchange;
use protocol::frame::Frame;
use protocol::request::{Answer, Request};

use crate::clock::Moment;
use crate::console::Reader;
use crate::jobs::{Job, Running};
use crate::{commands, machine, uart};

/// The interval at which [`Exchange::hello`] is repeated until the first request arrives.
const HELLO_INTERVAL: Duration = Duration::from_secs(1);
/// The time within which a command has to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Serves requests one after the other. Never returns.
pub fn serve() -> ! {
    // The counter continues when the guest restarts: the number differs after a restart.
    let [low, high, ..] = machine::counter().to_le_bytes();
    let mut exchange = Exchange::new(u16::from_le_bytes([low, high]));
    let mut reader = Reader::default();
    let mut jobs = Jobs::default();
    send(&[exchange.hello()]);
    loop {
        let end = exchange.is_fresh().then(|| Moment::after(HELLO_INTERVAL));
        let Some(line) = reader.line(end) else {
            send(&[exchange.hello()]);
            continue;
        };
        let reaction = exchange.receive(&line);
        send(&reaction.send);
        let answer = match reaction.request {
            Some(Ok(request)) => jobs.perform(request),
            Some(Err(error)) => Answer::Failed(format!("invalid request: {error}")),
            None => continue,
        };
        send(&exchange.answer(&answer));
    }
}

fn send(frames: &[Frame]) {
    for frame in frames {
        uart::print(format_args!("{}", frame.to_line()));
    }
}

/// The commands that were started and not stopped, by number.
#[derive(Default)]
struct Jobs {
    last: u32,
    running: BTreeMap<u32, Running>,
}

impl Jobs {
    fn perform(&mut self, request: Request) -> Answer {
        match request {
            // The limit is not enforced: a command cannot be interrupted.
            Request::Run(command, _) => {
                let job = Job::default();
                job.run(commands::run, &command);
                Answer::Output(job.output())
            }
            Request::Start(command) => match Running::start(commands::run, command) {
                Ok(job) => {
                    self.last += 1;
                    self.running.insert(self.last, job);
                    Answer::Started(self.last)
                }
                Err(error) => failed(&error),
            },
            Request::Look(number) => match self.running.get(&number) {
                Some(job) => Answer::Output(job.output()),
                None => unknown(number),
            },
            Request::Stop(number) => match self.running.remove(&number).map(|job| job.stop(STOP_LIMIT)) {
                Some(Ok(output)) => Answer::Output(output),
                Some(Err(error)) => failed(&error),
                None => unknown(number),
            },
            Request::Interactive(_) => Answer::Failed(String::from("interactive commands are not supported")),
        }
    }
}

fn failed(error: &anyhow::Error) -> Answer {
    Answer::Failed(error.to_string())
}

fn unknown(number: u32) -> Answer {
    Answer::Failed(format!("no command has the number {number}"))
}
