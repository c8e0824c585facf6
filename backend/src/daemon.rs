// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon: one thread serves the frontend, a second one, the worker, serves the queues and the device.
//!
//! ```text
//!   frontend ── messages ─▶ main thread ── entry ─▶ server ◀─ entry ── worker ◀── kicks, device events
//!            ◀── replies ──                                            └─▶ BlockingWork: outside of the lock
//! ```
//!
//! A transfer on a shared bus may block the worker for seconds. Meanwhile the main thread answers the
//! frontend and stops queues, since a frontend takes a daemon that does not answer for one that hangs. With
//! each message it also checks the worker's deadline, and ends the daemon if a transfer has taken longer than
//! other guests can explain.

pub(crate) mod listener;
mod memory_table;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::time::Timespec;
use vhost::vhost_user::{BackendReqHandler, Error};

use self::listener::{BindError, bind};
use self::memory_table::PaddedMemTable;
use crate::device::{BlockingWork, Device};
use crate::session::{DeviceServer, SessionError};
use crate::watch::{Token, Watcher};

/// The source of frontends.
#[derive(Debug)]
pub enum Source {
    /// `--fd`: one connected socket. The daemon ends when it is closed.
    Stream(UnixStream),
    /// `--socket-path`: one frontend after the other, until the daemon is terminated.
    Path(PathBuf),
}

/// Longest time of busy polling before the worker handles its other descriptors.
const BUSY_POLL_LIMIT: Duration = Duration::from_millis(10);

/// Stack size of the worker, which needs little more than its own frames.
const STACK: usize = 256 * 1024;

/// Interval at which queues without a kick descriptor are polled.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Why a daemon cannot start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The socket path cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The kernel refused a descriptor, a thread or a wait.
    #[error(transparent)]
    Kernel(#[from] io::Error),
    /// The device cannot be served.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The adapter or its driver hangs.
    #[error("a transfer did not return from the kernel in time: the adapter or its driver hangs")]
    TransferTimeout,
}

/// A daemon that has opened everything it needs and does not serve yet.
pub struct Daemon {
    shared: Shared,
    frontends: Frontends,
    /// How long the worker polls for another request before it sleeps. Zero by default.
    busy_poll: Duration,
}

enum Frontends {
    One(UnixStream),
    Many(UnixListener),
}

/// State that both threads share.
#[derive(Clone)]
struct Shared {
    watcher: Watcher,
    /// Wakes the worker.
    wake: Arc<OwnedFd>,
    server: Arc<Mutex<DeviceServer>>,
    /// Locked before the server, by the thread that takes it next. A thread that locks the server in a loop
    /// would otherwise starve the other one.
    entry: Arc<Mutex<()>>,
}

impl Shared {
    fn server(&self) -> MutexGuard<'_, DeviceServer> {
        let _entry = self.entry();
        lock(&self.server)
    }

    fn entry(&self) -> MutexGuard<'_, ()> {
        lock(&self.entry)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    /// Prepares to serve `device` to the frontends of `source`. Nothing is opened after this.
    ///
    /// # Errors
    /// When the socket cannot be bound, or the kernel refuses a descriptor.
    pub fn new(device: Box<dyn Device>, source: Source) -> Result<Self, DaemonError> {
        let watcher = Watcher::new()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        watcher.insert(&wake, Token::Wake)?;
        let server = Arc::new(Mutex::new(DeviceServer::new(device, watcher.clone())?));
        let frontends = match source {
            Source::Stream(stream) => Frontends::One(stream),
            Source::Path(path) => Frontends::Many(bind(&path)?),
        };
        let shared = Shared { watcher, wake: Arc::new(wake), server, entry: Arc::default() };
        Ok(Self { shared, frontends, busy_poll: Duration::ZERO })
    }

    /// Sets how long the worker polls for another request after each one. Polling saves a guest that sends
    /// one request after the other the trap of a kick, and costs processor time.
    #[must_use]
    pub fn busy_poll(self, time: Duration) -> Self {
        Self { busy_poll: time, ..self }
    }

    /// Starts the worker, which waits until [`Started::run`] is called.
    ///
    /// # Errors
    /// When the kernel refuses another thread.
    pub fn start(self) -> Result<Started, DaemonError> {
        let Self { shared, frontends, busy_poll } = self;
        let worker = Worker { shared: shared.clone(), busy_poll };
        let (start, started) = channel();
        let named = thread::Builder::new().name("worker".into()).stack_size(STACK);
        named.spawn(move || worker.run(&started))?;
        Ok(Started { shared, frontends, start })
    }
}

/// A daemon whose threads are running.
pub struct Started {
    shared: Shared,
    frontends: Frontends,
    start: Sender<()>,
}

impl Started {
    /// Serves frontends. Returns when a [`Source::Stream`] is closed; the worker ends with the process.
    ///
    /// # Errors
    /// When the kernel refuses to wait, or a transfer has exceeded its deadline.
    pub fn run(self) -> Result<(), DaemonError> {
        let Self { shared, frontends, start } = self;
        // Fails only if the worker has ended, which ends the process.
        let _ = start.send(());
        match frontends {
            Frontends::One(stream) => serve(&shared, stream),
            Frontends::Many(listener) => loop {
                // Other frontends wait in the socket's backlog.
                let (stream, _) = listener.accept()?;
                log::info!("a frontend connected");
                serve(&shared, stream)?;
            },
        }
    }
}

/// Serves one frontend until it disconnects.
fn serve(shared: &Shared, stream: UnixStream) -> Result<(), DaemonError> {
    let socket = stream.try_clone()?;
    let mut requests = BackendReqHandler::from_stream(stream, Arc::clone(&shared.server));
    loop {
        wait_for_message(shared, &socket)?;
        let table = PaddedMemTable::peek(&socket);
        let entry = shared.entry();
        let handled = match table {
            Some(table) => {
                let mut server = lock(&shared.server);
                let has_reply_ack = server.has_reply_ack();
                table.handle(&socket, &mut *server, has_reply_ack)
            }
            None => requests.handle_request(),
        };
        let mut server = lock(&shared.server);
        drop(entry);
        match handled {
            Ok(()) => {}
            Err(error) if server.can_continue_after(&error) => {
                log::warn!("a request of the frontend failed: {error}");
            }
            Err(error) => {
                log_disconnect(&error);
                return Ok(server.end_session()?);
            }
        }
        if server.has_work() || server.needs_polling() {
            // Fails only if the counter is at its maximum, and then the worker wakes anyway.
            let _ = write(&*shared.wake, &1_u64.to_ne_bytes());
        }
    }
}

fn log_disconnect(error: &Error) {
    match error {
        Error::Disconnected | Error::PartialMessage | Error::SocketBroken(_) => {
            log::info!("the frontend disconnected");
        }
        error => log::error!("a request of the frontend failed, the connection is closed: {error}"),
    }
}

/// Waits until the socket is readable or closed.
///
/// # Errors
/// When a transfer exceeds its deadline meanwhile.
fn wait_for_message(shared: &Shared, socket: &UnixStream) -> Result<(), DaemonError> {
    loop {
        let (deadline, now) = (shared.server().deadline(), Instant::now());
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(DaemonError::TransferTimeout);
        }
        let timeout = deadline.map(|deadline| deadline - now).and_then(|left| left.try_into().ok());
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

/// The thread that serves the queues and the device.
struct Worker {
    shared: Shared,
    busy_poll: Duration,
}

impl Worker {
    /// Serves from the first message of `started` until the process ends.
    fn run(&self, started: &Receiver<()>) {
        if started.recv().is_err() {
            return;
        }
        let mut ready = Vec::new();
        loop {
            if let Err(error) = self.iterate(&mut ready) {
                log::error!("the daemon ends: {error}");
                std::process::exit(1);
            }
        }
    }

    /// Waits for events once and handles them.
    ///
    /// # Errors
    /// When the kernel refuses to wait, or the device can no longer be served.
    fn iterate(&self, ready: &mut Vec<Token>) -> io::Result<()> {
        let (timeout, generation) = {
            let mut server = self.shared.server();
            let needs_polling = server.needs_polling();
            if needs_polling {
                server.poll_queues();
            }
            let timeout = match server.has_work() {
                true => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
                false => needs_polling.then_some(POLL_INTERVAL),
            };
            (timeout, server.kick_generation())
        };
        self.shared.watcher.wait(timeout, ready)?;
        for token in &*ready {
            self.handle(*token, generation);
        }
        if !self.busy_poll.is_zero() && ready.iter().any(|token| matches!(token, Token::Kick(_))) {
            self.busy_poll();
        }
        self.process_queues();
        self.shared.server().failure().map_or(Ok(()), Err)
    }

    /// Handles an event that was reported while the kick descriptors were those of `generation`.
    fn handle(&self, token: Token, generation: u64) {
        match token {
            Token::Wake => {
                // The queues are processed after all events.
                let _ = read(&*self.shared.wake, &mut [0; 8]);
            }
            Token::Kick(queue) => {
                let mut server = self.shared.server();
                // If descriptors were exchanged since, the readable one may be gone, and to read another one
                // could block. A readable descriptor is reported again.
                if server.kick_generation() == generation {
                    server.handle_kick(queue);
                }
            }
            Token::Device(token) => {
                // Requests that came before the event come first: the group timer means that nothing has
                // come.
                self.shared.server().poll_queues();
                self.process_queues();
                let work = self.shared.server().handle_event(token);
                self.run_work(work);
            }
        }
    }

    fn process_queues(&self) {
        let work = self.shared.server().process_queues();
        self.run_work(work);
    }

    /// Runs `work` and the work that follows from it, without a lock on the server.
    fn run_work(&self, mut work: Option<Arc<dyn BlockingWork>>) {
        while let Some(next) = work {
            next.run();
            work = self.shared.server().finish_work();
        }
    }

    /// Processes the queues and polls them, until no request has come for `busy_poll`.
    fn busy_poll(&self) {
        self.shared.server().set_polled(true);
        let end = Instant::now() + BUSY_POLL_LIMIT;
        loop {
            self.process_queues();
            let until = end.min(Instant::now() + self.busy_poll);
            while !self.shared.server().has_work() && Instant::now() < until {
                // Lets another process use this processor first: the guest sends its next request only after
                // the shim has answered its interrupt handler.
                thread::yield_now();
                self.shared.server().poll_queues();
            }
            if !self.shared.server().has_work() || Instant::now() >= end {
                break;
            }
        }
        self.shared.server().set_polled(false);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::device::fake::FakeDevice;

    /// The frontend's messages do not extend the deadline.
    #[test]
    fn a_transfer_beyond_its_deadline_ends_the_daemon() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[0; 12]).unwrap();
        let stuck = FakeDevice { deadline: Some(Instant::now()), ..FakeDevice::default() };
        let daemon = Daemon::new(Box::new(stuck), Source::Stream(ours)).unwrap();
        let error = daemon.start().unwrap().run().unwrap_err();
        assert!(matches!(error, DaemonError::TransferTimeout), "{error}");
    }
}
