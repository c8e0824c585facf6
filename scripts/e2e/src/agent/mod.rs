// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The agent: runs on the console of a domain and executes what the host asks for.
//!
//! One loop owns all state. It waits for characters of the console and for the program that is being run, so it can
//! answer [`Kind::Busy`] at any time. The last answer is kept, hence a request or an answer that was damaged on its
//! way can be repeated without doing anything twice.

pub mod job;
pub mod tools;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::frame::{Assembly, Frame, Kind, PAYLOAD_TO_HOST};
use crate::request::{Answer, Request};
use job::Jobs;

/// How often an agent says that it is there, until somebody answers.
const HELLO_INTERVAL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Longer than any frame. A line without an end is not collected beyond it.
const LINE_LIMIT: usize = 256;

/// Where the present exchange stands.
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

/// An agent on a console.
#[derive(Debug)]
pub struct Agent<C> {
    console: C,
    number: u16,
    stage: Stage,
    line: Vec<u8>,
    jobs: Jobs,
    finished: UnixStream,
    finish: UnixStream,
}

impl<C: Read + Write + AsFd> Agent<C> {
    /// An agent on `console`; `number` tells it from any other, also from itself before a restart.
    ///
    /// # Errors
    /// If a socket pair cannot be made.
    pub fn new(console: C, number: u16) -> io::Result<Self> {
        let (finished, finish) = UnixStream::pair()?;
        let (stage, line, jobs) = (Stage::Fresh, Vec::new(), Jobs::default());
        Ok(Self { console, number, stage, line, jobs, finished, finish })
    }

    /// Serves until the console ends.
    ///
    /// # Errors
    /// If the console fails.
    pub fn serve(&mut self) -> io::Result<()> {
        self.send(&self.signal(Kind::Hello, 0, 0))?;
        loop {
            match self.wait()? {
                Event::Silence => self.send(&self.signal(Kind::Hello, 0, 0))?,
                Event::Finished => self.take_answer()?,
                Event::Console => {
                    if !self.read_console()? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn wait(&self) -> io::Result<Event> {
        let mut sources =
            [PollFd::new(&self.finished, PollFlags::IN), PollFd::new(&self.console, PollFlags::IN)];
        let limit = matches!(self.stage, Stage::Fresh).then_some(&HELLO_INTERVAL);
        if poll(&mut sources, limit)? == 0 {
            return Ok(Event::Silence);
        }
        let [finished, _] = sources;
        Ok(if finished.revents().is_empty() { Event::Console } else { Event::Finished })
    }

    /// Returns whether the console is still there.
    fn read_console(&mut self) -> io::Result<bool> {
        let mut buffer = [0; LINE_LIMIT];
        let count = self.console.read(&mut buffer)?;
        for &byte in buffer.iter().take(count) {
            if byte == b'\n' || byte == b'\r' {
                let line = std::mem::take(&mut self.line);
                if let Some(frame) = Frame::from_line(&String::from_utf8_lossy(&line))
                    && frame.agent == self.number
                {
                    self.receive(frame)?;
                }
            } else if self.line.len() < LINE_LIMIT {
                self.line.push(byte);
            }
        }
        Ok(count > 0)
    }

    fn receive(&mut self, frame: Frame) -> io::Result<()> {
        let sequence = frame.sequence;
        match (frame.kind, &self.stage) {
            (Kind::Request, Stage::Executing(present) | Stage::Answered(present, _))
                if *present == sequence =>
            {
                self.send(&self.signal(Kind::Accepted, sequence, frame.index + 1))
            }
            // Programs that somebody waits for are not interrupted by a request that comes too early.
            (_, Stage::Executing(present)) => self.send(&self.signal(Kind::Busy, *present, 0)),
            (Kind::Request, _) => self.receive_request(frame),
            (Kind::Fetch, Stage::Answered(present, _)) if *present == sequence => {
                self.send_answer(frame.index)
            }
            (Kind::Fetch, Stage::Receiving(present, assembly)) if *present == sequence => {
                self.send(&self.signal(Kind::Accepted, sequence, assembly.first_missing()))
            }
            _ => Ok(()),
        }
    }

    fn receive_request(&mut self, frame: Frame) -> io::Result<()> {
        let sequence = frame.sequence;
        let mut assembly = match std::mem::replace(&mut self.stage, Stage::Fresh) {
            Stage::Receiving(present, assembly) if present == sequence => assembly,
            _ => Assembly::default(),
        };
        assembly.add(frame);
        let next = assembly.first_missing();
        let message = assembly.message();
        self.stage = Stage::Receiving(sequence, assembly);
        self.send(&self.signal(Kind::Accepted, sequence, next))?;
        match message {
            Some(message) => self.begin(sequence, &message),
            None => Ok(()),
        }
    }

    fn begin(&mut self, sequence: u8, message: &[u8]) -> io::Result<()> {
        self.stage = Stage::Executing(sequence);
        let answer = match postcard::from_bytes::<Request>(message) {
            Err(error) => Answer::Failed(format!("no request: {error}")),
            // It needs the console for itself, so the loop waits for it.
            Ok(Request::Interactive(command)) => job::interactive(&command),
            Ok(Request::Run(command, limit)) => match self.jobs.run(&command, limit) {
                Ok(running) => return self.answer_later(running),
                Err(error) => Answer::Failed(error),
            },
            Ok(Request::Start(command)) => {
                self.jobs.start(&command).map_or_else(Answer::Failed, Answer::Started)
            }
            Ok(Request::Look(number)) => self.jobs.look(number),
            Ok(Request::Stop(number)) => self.jobs.stop(number),
        };
        self.answer(sequence, &answer)
    }

    fn answer_later(&self, running: job::Job) -> io::Result<()> {
        let mut finish = self.finish.try_clone()?;
        thread::spawn(move || {
            let bytes = encode(&Answer::Output(running.wait()));
            let length = u32::try_from(bytes.len()).unwrap_or(0);
            // The other end is in this process and lives as long as the console does.
            let _ = finish.write_all(&length.to_le_bytes()).and_then(|()| finish.write_all(&bytes));
        });
        Ok(())
    }

    fn take_answer(&mut self) -> io::Result<()> {
        let mut length = [0; 4];
        self.finished.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap_or(0)];
        self.finished.read_exact(&mut bytes)?;
        match self.stage {
            Stage::Executing(sequence) => self.keep_and_send(sequence, &bytes),
            _ => Ok(()),
        }
    }

    fn answer(&mut self, sequence: u8, answer: &Answer) -> io::Result<()> {
        self.keep_and_send(sequence, &encode(answer))
    }

    fn keep_and_send(&mut self, sequence: u8, message: &[u8]) -> io::Result<()> {
        let frames = Frame::split(Kind::Answer, self.number, sequence, message, PAYLOAD_TO_HOST);
        self.stage = Stage::Answered(sequence, frames);
        self.send_answer(0)
    }

    fn send_answer(&mut self, from: u16) -> io::Result<()> {
        if let Stage::Answered(_, frames) = &self.stage {
            for frame in frames.iter().skip(usize::from(from)) {
                self.console.write_all(frame.to_line().as_bytes())?;
            }
        }
        self.console.flush()
    }

    fn signal(&self, kind: Kind, sequence: u8, index: u16) -> Frame {
        Frame::signal(kind, self.number, sequence, index)
    }

    fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.console.write_all(frame.to_line().as_bytes())?;
        self.console.flush()
    }
}

enum Event {
    Console,
    Finished,
    Silence,
}

fn encode(answer: &Answer) -> Vec<u8> {
    // Plain data always has an encoding; an empty message is one that the host does not understand and reports.
    postcard::to_allocvec(answer).unwrap_or_default()
}
