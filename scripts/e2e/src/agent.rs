// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The agent: executes requests of the host, which it reads from the console of its domain.
//!
//! One loop owns all state. It waits for the console and for the end of the running program at once, so it
//! answers that it is busy at any time. [`Exchange`] decides which frame is sent when.

pub mod job;
pub mod mark;
pub mod tools;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use protocol::exchange::Exchange;
use protocol::frame::Frame;
use protocol::request::{Answer, Output, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use job::Jobs;

/// The interval of the hello frames that are sent until the host answers.
const HELLO_INTERVAL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The length at which a line is cut. Every frame is shorter.
const LINE_LIMIT: usize = 256;

/// An agent on a console.
#[derive(Debug)]
pub struct Agent<C> {
    console: C,
    exchange: Exchange,
    line: Vec<u8>,
    jobs: Jobs,
    /// Receives one byte for each output, so that [`poll`] returns.
    finished: UnixStream,
    finish: UnixStream,
    outputs: (mpsc::Sender<Output>, mpsc::Receiver<Output>),
}

impl<C: Read + Write + AsFd> Agent<C> {
    /// Returns an agent on `console`. `number` identifies it: another agent has another number, and so does
    /// this one after a restart.
    ///
    /// # Errors
    /// Returns an error if a socket pair cannot be created.
    pub fn new(console: C, number: u16) -> io::Result<Self> {
        let (finished, finish) = UnixStream::pair()?;
        let (exchange, line, jobs) = (Exchange::new(number), Vec::new(), Jobs::default());
        Ok(Self { console, exchange, line, jobs, finished, finish, outputs: mpsc::channel() })
    }

    /// Serves requests until the console is closed.
    ///
    /// # Errors
    /// Returns an error if the console cannot be read or written.
    pub fn serve(&mut self) -> io::Result<()> {
        mark::mark(ledger::Mark::Ready);
        self.send(&[self.exchange.hello()])?;
        loop {
            match self.wait()? {
                Event::Silence => self.send(&[self.exchange.hello()])?,
                Event::Finished => self.take_output()?,
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
        let limit = self.exchange.is_fresh().then_some(&HELLO_INTERVAL);
        if poll(&mut sources, limit)? == 0 {
            return Ok(Event::Silence);
        }
        let [finished, _] = sources;
        Ok(if finished.revents().is_empty() { Event::Console } else { Event::Finished })
    }

    /// Reads what the console has, and returns false if it is closed.
    fn read_console(&mut self) -> io::Result<bool> {
        let mut buffer = [0; LINE_LIMIT];
        let count = self.console.read(&mut buffer)?;
        for &byte in buffer.iter().take(count) {
            if byte == b'\n' || byte == b'\r' {
                let line = std::mem::take(&mut self.line);
                let reaction = self.exchange.receive(&String::from_utf8_lossy(&line));
                self.send(&reaction.send)?;
                match reaction.request {
                    Some(Ok(request)) => self.begin(request)?,
                    Some(Err(error)) => self.answer(&Answer::Failed(format!("invalid request: {error}")))?,
                    None => {}
                }
            } else if self.line.len() < LINE_LIMIT {
                self.line.push(byte);
            }
        }
        Ok(count > 0)
    }

    fn begin(&mut self, request: Request) -> io::Result<()> {
        let answer = match request {
            // The program uses the console, so the loop waits for its end.
            Request::Interactive(command) => job::interactive(&command),
            Request::Run(command, limit) => match self.jobs.run(&command, limit) {
                Ok(running) => return self.answer_later(running),
                Err(error) => Answer::Failed(error),
            },
            Request::Start(command) => self.jobs.start(&command).map_or_else(Answer::Failed, Answer::Started),
            Request::Look(number) => self.jobs.look(number),
            Request::Stop(number) => self.jobs.stop(number),
        };
        self.answer(&answer)
    }

    fn answer_later(&self, running: job::Job) -> io::Result<()> {
        let mut finish = self.finish.try_clone()?;
        let outputs = self.outputs.0.clone();
        thread::spawn(move || {
            // The other ends are in this process. They are closed when `serve` has returned.
            let _ = outputs.send(running.wait());
            let _ = finish.write_all(&[0]);
        });
        Ok(())
    }

    fn take_output(&mut self) -> io::Result<()> {
        self.finished.read_exact(&mut [0])?;
        match self.outputs.1.try_recv() {
            Ok(output) => self.answer(&Answer::Output(output)),
            Err(_) => Ok(()),
        }
    }

    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let frames = self.exchange.answer(answer);
        self.send(&frames)
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<()> {
        for frame in frames {
            self.console.write_all(frame.to_line().as_bytes())?;
        }
        self.console.flush()
    }
}

enum Event {
    Console,
    Finished,
    Silence,
}
