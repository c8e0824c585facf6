// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon: a thread that serves the frontend, and one that works.
//!
//! ```text
//!   frontend ── messages ──▶ first thread ── door ─▶ backend ◀─ door ── worker ◀── kicks, the device's events
//!            ◀── answers ───                                              └─▶ Work: beside the backend, may be kept waiting
//! ```
//!
//! A bus that is shared may keep the worker waiting for long. The frontend is answered all the same, and can
//! stop queues. So it sees that the daemon lives; and a frontend that has no answer for seconds can take the
//! daemon for one that hangs. Once it has asked, the daemon also watches over the worker, and ends if that is
//! kept waiting for longer than others can be the reason.

mod memory_table;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::time::Timespec;
use vhost::vhost_user::{BackendReqHandler, Error};

use self::memory_table::Roomy;
use crate::device::{Device, Work};
use crate::session::Backend;
use crate::watch::{Token, Watcher};

/// Where frontends come from.
#[derive(Debug)]
pub enum Source {
    /// `--fd`: this one, connected already. The daemon ends with it.
    Stream(UnixStream),
    /// `--socket-path`: one after another, until the daemon is terminated.
    Path(PathBuf),
}

/// While requests keep coming, the worker looks at its other descriptors after so long.
const POLLED_AT_MOST: Duration = Duration::from_millis(10);

/// The worker needs little more than its own frames.
const STACK: usize = 256 * 1024;

/// So often the worker looks at a queue for which there is no kick descriptor.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// A daemon that does nothing yet.
pub struct Daemon {
    shared: Shared,
    frontends: Frontends,
    /// How long the worker looks for another request before it sleeps. Not at all by default.
    busy_poll: Duration,
}

enum Frontends {
    One(UnixStream),
    Many(UnixListener),
}

/// What both threads have.
#[derive(Clone)]
struct Shared {
    watcher: Watcher,
    /// Has the worker look at the queues.
    wake: Arc<OwnedFd>,
    backend: Arc<Mutex<Backend>>,
    /// Taken before the backend, by the one who wants it next: so a thread that takes the backend again and
    /// again does not keep the other from it.
    door: Arc<Mutex<()>>,
}

impl Shared {
    fn backend(&self) -> MutexGuard<'_, Backend> {
        let _door = self.door();
        lock(&self.backend)
    }

    fn door(&self) -> MutexGuard<'_, ()> {
        lock(&self.door)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    /// Takes up `device` and the frontends of `source`. Nothing is opened after this.
    ///
    /// # Errors
    /// When the socket cannot be bound, or the kernel refuses what the daemon needs to wait for events.
    pub fn new(device: Box<dyn Device>, source: Source) -> io::Result<Self> {
        let watcher = Watcher::new()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        watcher.insert(&wake, Token::Wake)?;
        let backend = Arc::new(Mutex::new(Backend::new(device, watcher.clone())?));
        let frontends = match source {
            Source::Stream(stream) => Frontends::One(stream),
            Source::Path(path) => Frontends::Many(bind(&path)?),
        };
        let shared = Shared { watcher, wake: Arc::new(wake), backend, door: Arc::default() };
        Ok(Self { shared, frontends, busy_poll: Duration::ZERO })
    }

    /// Has it look for another request for `time` after each, before it sleeps. That is quicker for a guest that sends one
    /// after the other, who saves the trap of a kick, and takes a processor's time.
    #[must_use]
    pub fn busy_poll(self, time: Duration) -> Self {
        Self { busy_poll: time, ..self }
    }

    /// Starts the worker, which does nothing before the daemon serves.
    ///
    /// # Errors
    /// When the kernel refuses another thread.
    pub fn start(self) -> io::Result<Started> {
        let Self { shared, frontends, busy_poll } = self;
        let worker = Worker { shared: shared.clone(), busy_poll };
        let (begin, begins) = channel();
        let named = thread::Builder::new().name("worker".into()).stack_size(STACK);
        named.spawn(move || worker.run(&begins))?;
        Ok(Started { shared, frontends, begin })
    }
}

/// A daemon whose threads are there.
pub struct Started {
    shared: Shared,
    frontends: Frontends,
    begin: Sender<()>,
}

impl Started {
    /// Serves. Returns when a [`Source::Stream`] is closed; the worker is to end with the process.
    ///
    /// # Errors
    /// When the kernel refuses to wait, or the worker has been waiting for its hardware for too long.
    pub fn run(self) -> io::Result<()> {
        let Self { shared, frontends, begin } = self;
        // It can only fail if the worker has ended, which ends the process.
        let _ = begin.send(());
        match frontends {
            Frontends::One(stream) => serve(&shared, stream),
            Frontends::Many(listener) => loop {
                // While a frontend is here, others wait in the socket's backlog.
                let (stream, _) = listener.accept()?;
                log::info!("a frontend connected");
                serve(&shared, stream)?;
            },
        }
    }
}

/// Serves one frontend until it leaves.
fn serve(shared: &Shared, stream: UnixStream) -> io::Result<()> {
    let socket = stream.try_clone()?;
    let mut requests = BackendReqHandler::from_stream(stream, Arc::clone(&shared.backend));
    loop {
        wait_for_message(shared, &socket)?;
        let table = Roomy::peek(&socket);
        let door = shared.door();
        let handled = match table {
            Some(table) => {
                let mut backend = lock(&shared.backend);
                let may_answer = backend.acknowledges();
                table.handle(&socket, &mut *backend, may_answer)
            }
            None => requests.handle_request(),
        };
        let mut backend = lock(&shared.backend);
        drop(door);
        match handled {
            Ok(()) => {}
            Err(error) if backend.outlives(&error) => {
                log::warn!("a request of the frontend failed: {error}");
            }
            Err(error) => {
                tell_end(&error);
                return backend.end_session();
            }
        }
        if backend.is_pending() || backend.is_unkicked() {
            // It can only fail if the worker is to be woken already.
            let _ = write(&*shared.wake, &1_u64.to_ne_bytes());
        }
    }
}

fn tell_end(error: &Error) {
    match error {
        Error::Disconnected | Error::PartialMessage | Error::SocketBroken(_) => {
            log::info!("the frontend left");
        }
        error => log::error!("the frontend is disconnected, for a request that failed: {error}"),
    }
}

/// Waits until the frontend has written, or left. Work that was under way at the beginning must not take too
/// long meanwhile.
fn wait_for_message(shared: &Shared, socket: &UnixStream) -> io::Result<()> {
    loop {
        let (deadline, now) = (shared.backend().deadline(), Instant::now());
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the kernel does not come back from a request to the hardware, and others cannot be the reason",
            ));
        }
        let timeout = deadline.map(|deadline| deadline - now).and_then(|left| left.try_into().ok());
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The thread that works.
struct Worker {
    shared: Shared,
    busy_poll: Duration,
}

impl Worker {
    /// Works until the process ends, from when that is wanted.
    fn run(&self, begins: &Receiver<()>) {
        if begins.recv().is_err() {
            return;
        }
        let mut ready = Vec::new();
        loop {
            if let Err(error) = self.turn(&mut ready) {
                log::error!("the daemon cannot go on: {error}");
                std::process::exit(1);
            }
        }
    }

    fn turn(&self, ready: &mut Vec<Token>) -> io::Result<()> {
        let (timeout, kicks) = {
            let mut backend = self.shared.backend();
            let is_unkicked = backend.is_unkicked();
            if is_unkicked {
                backend.look();
            }
            let timeout = match backend.is_pending() {
                true => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
                false => is_unkicked.then_some(LOOK_EVERY),
            };
            (timeout, backend.kicks())
        };
        self.shared.watcher.wait(timeout, ready)?;
        for token in &*ready {
            self.handle(*token, kicks);
        }
        if !self.busy_poll.is_zero() && ready.iter().any(|token| matches!(token, Token::Kick(_))) {
            self.poll();
        }
        self.work();
        Ok(())
    }

    /// Handles an event that was seen when `kicks` was what the backend counted.
    fn handle(&self, token: Token, kicks: u64) {
        match token {
            Token::Wake => {
                // The queues are looked at after all events.
                let _ = read(&*self.shared.wake, &mut [0; 8]);
            }
            Token::Kick(queue) => {
                let mut backend = self.shared.backend();
                // The descriptor that was readable may be gone. Reading another one could take for ever; if
                // that is readable, it will be seen.
                if backend.kicks() == kicks {
                    backend.kicked(queue);
                }
            }
            Token::Device(token) => {
                // What the driver sent before that comes first: a timer says that nothing has come.
                self.shared.backend().look();
                self.work();
                let work = self.shared.backend().event(token);
                self.carry_out(work);
            }
        }
    }

    fn work(&self) {
        let work = self.shared.backend().begin();
        self.carry_out(work);
    }

    /// Does `work` and what follows from it, with the backend free meanwhile.
    fn carry_out(&self, mut work: Option<Arc<dyn Work>>) {
        while let Some(next) = work {
            next.run();
            work = self.shared.backend().go_on();
        }
    }

    /// Works, and looks for more, until nothing has come for as long as the operator wants.
    fn poll(&self) {
        self.shared.backend().set_polled(true);
        let end = Instant::now() + POLLED_AT_MOST;
        loop {
            self.work();
            let until = end.min(Instant::now() + self.busy_poll);
            while !self.shared.backend().is_pending() && Instant::now() < until {
                // Whoever else wants this processor goes first: the shim may have the guest's interrupt
                // handler to answer, and before that the guest sends nothing.
                thread::yield_now();
                self.shared.backend().look();
            }
            if !self.shared.backend().is_pending() || Instant::now() >= end {
                break;
            }
        }
        self.shared.backend().set_polled(false);
    }
}

/// Binds to `path`. A socket file that a former daemon left there is replaced. One that somebody serves is not, nor is
/// anything else: the operator may have named the wrong file.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => replace(path),
        other => other,
    };
    bound.map_err(|error| io::Error::new(error.kind(), format!("no socket at {}: {error}", path.display())))
}

fn replace(path: &Path) -> io::Result<UnixListener> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::other("there is a file that is no socket; name another path"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("another daemon serves it; stop that one, or name another path")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::chain::Chain;
    use crate::device::{Left, QueueLimits, Refused, Start, Stop};
    use crate::inflight::Tail;

    /// A device whose work never comes to its end, and has had its time.
    struct Stuck;

    impl Device for Stuck {
        fn queues(&self) -> &'static [QueueLimits] {
            &[]
        }
        fn features(&self) -> u64 {
            0
        }
        fn accept_features(&mut self, _: u64) -> Result<(), Refused> {
            Ok(())
        }
        fn config(&self) -> &[u8] {
            &[]
        }
        fn process(&mut self, _: usize, _: &mut Vec<Chain>, _: &mut Vec<Chain>) {}
        fn work(&mut self) -> Option<Arc<dyn Work>> {
            None
        }
        fn worked(&mut self, _: &mut Vec<Chain>) {}
        fn deadline(&self) -> Option<Instant> {
            Some(Instant::now())
        }
        fn event(&mut self, _: u32, _: &mut Vec<Chain>) {}
        fn start(&mut self, _: usize, _: Start) {}
        fn stop(&mut self, _: usize, _: Stop, _: &mut Vec<Chain>) {}
        fn reset(&mut self) {}
        fn record_bytes(&self) -> usize {
            0
        }
        fn take_over(&mut self, _: Tail) {}
        fn survives(&self) -> bool {
            false
        }
        fn leave(&mut self, _: Left) {}
        fn watch(&mut self, _: &Watcher) -> io::Result<()> {
            Ok(())
        }
    }

    /// A frontend may ask whether it lives, and nothing of its guest comes back all the same.
    #[test]
    fn a_daemon_whose_work_never_ends_does() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[0; 12]).unwrap();
        let daemon = Daemon::new(Box::new(Stuck), Source::Stream(ours)).unwrap();
        let error = daemon.start().unwrap().run().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_socket_replaces_only_one_that_nobody_serves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = bind(&path).unwrap();
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains("another daemon serves it"), "{error}");
        drop(first);
        assert!(path.exists());
        bind(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "precious").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            let error = bind(path).unwrap_err().to_string();
            assert!(error.contains("a file that is no socket; name another path"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        assert!(link.is_symlink());
        let nowhere = directory.path().join("no/socket");
        assert!(bind(&nowhere).unwrap_err().to_string().contains("no/socket: No such file"));
    }
}
