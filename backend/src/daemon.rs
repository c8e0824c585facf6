// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon: one thread that waits for the frontend, the kicks and the device.

mod memory_table;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::Timespec;
use vhost::vhost_user::{BackendReqHandler, Error};

use self::memory_table::Roomy;
use crate::device::Device;
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

/// While requests keep coming, the daemon looks at its other descriptors after so long.
const POLLED_AT_MOST: Duration = Duration::from_millis(10);

/// So often the daemon looks at a queue for which there is no kick descriptor.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// A daemon with its device and its frontend.
pub struct Daemon {
    watcher: Watcher,
    /// How long it looks for another request before it sleeps. Not at all by default.
    busy_poll: Duration,
    /// The lock is the `vhost` crate's wish. One thread takes it, so it is always free.
    backend: Arc<Mutex<Backend>>,
    frontend: Option<Frontend>,
    listener: Option<UnixListener>,
}

struct Frontend {
    requests: BackendReqHandler<Mutex<Backend>>,
    socket: UnixStream,
}

impl Daemon {
    /// Takes up `device` and the frontends of `source`. Nothing is opened after this.
    ///
    /// # Errors
    /// When the socket cannot be bound, or the kernel refuses what the daemon needs to wait for events.
    pub fn new(device: Box<dyn Device>, source: Source) -> io::Result<Self> {
        let watcher = Watcher::new()?;
        let backend = Arc::new(Mutex::new(Backend::new(device, watcher.clone())?));
        let mut daemon = Self { watcher, busy_poll: Duration::ZERO, backend, frontend: None, listener: None };
        match source {
            Source::Stream(stream) => daemon.connect(stream)?,
            Source::Path(path) => daemon.listen(&path)?,
        }
        Ok(daemon)
    }

    /// Has it look for another request for `time` after each, before it sleeps. That is quicker for a guest that sends one
    /// after the other, who saves the trap of a kick, and takes a processor's time.
    #[must_use]
    pub fn busy_poll(self, time: Duration) -> Self {
        Self { busy_poll: time, ..self }
    }

    fn listen(&mut self, path: &Path) -> io::Result<()> {
        let listener = bind(path)?;
        self.watcher.insert(&listener, Token::Listener)?;
        self.listener = Some(listener);
        Ok(())
    }

    fn connect(&mut self, stream: UnixStream) -> io::Result<()> {
        let socket = stream.try_clone()?;
        self.watcher.insert(&socket, Token::Frontend)?;
        let requests = BackendReqHandler::from_stream(stream, Arc::clone(&self.backend));
        self.frontend = Some(Frontend { requests, socket });
        Ok(())
    }

    /// Serves. Returns when a [`Source::Stream`] is closed.
    ///
    /// # Errors
    /// When the kernel refuses to wait for events.
    pub fn run(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while self.frontend.is_some() || self.listener.is_some() {
            let timeout = self.timeout();
            self.watcher.wait(timeout, &mut ready)?;
            // The frontend comes last: what it asks for may close descriptors whose events are in this very list.
            ready.sort_by_key(|token| *token == Token::Frontend);
            for token in &ready {
                self.handle(*token)?;
            }
            if !self.busy_poll.is_zero() && ready.iter().any(|token| matches!(token, Token::Kick(_))) {
                self.poll();
            }
            let mut backend = self.backend();
            if backend.is_unkicked() {
                backend.look();
            }
            backend.work();
        }
        Ok(())
    }

    /// How long to wait for an event, if not for ever.
    fn timeout(&self) -> Option<Timespec> {
        let backend = self.backend();
        match (backend.is_pending(), backend.is_unkicked()) {
            (true, _) => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
            (false, true) => Some(LOOK_EVERY),
            (false, false) => None,
        }
    }

    /// Works, and looks for more, until nothing has come for as long as the operator wants.
    fn poll(&self) {
        let mut backend = self.backend();
        backend.set_polled(true);
        let end = Instant::now() + POLLED_AT_MOST;
        loop {
            backend.work();
            let until = end.min(Instant::now() + self.busy_poll);
            while !backend.is_pending() && Instant::now() < until {
                // Whoever else wants this processor goes first: the shim may have the guest's interrupt handler to answer, and before
                // that the guest sends nothing.
                std::thread::yield_now();
                backend.look();
            }
            if !backend.is_pending() || Instant::now() >= end {
                break;
            }
        }
        backend.set_polled(false);
    }

    fn handle(&mut self, token: Token) -> io::Result<()> {
        match token {
            Token::Listener => self.accept(),
            Token::Frontend => self.answer_frontend(),
            Token::Kick(queue) => {
                self.backend().kicked(queue);
                Ok(())
            }
            Token::Device(token) => {
                self.backend().device_event(token);
                Ok(())
            }
        }
    }

    /// Takes the next frontend. While it is here, others wait in the socket's backlog.
    fn accept(&mut self) -> io::Result<()> {
        if let (Some(listener), None) = (&self.listener, &self.frontend) {
            let (stream, _) = listener.accept()?;
            self.watcher.remove(listener)?;
            self.connect(stream)?;
            log::info!("a frontend connected");
        }
        Ok(())
    }

    fn answer_frontend(&mut self) -> io::Result<()> {
        let Some(frontend) = &mut self.frontend else { return Ok(()) };
        let handled = match Roomy::peek(&frontend.socket) {
            Some(table) => {
                let mut backend = self.backend.lock().unwrap_or_else(PoisonError::into_inner);
                let may_answer = backend.acknowledges();
                table.handle(&frontend.socket, &mut *backend, may_answer)
            }
            None => frontend.requests.handle_request(),
        };
        match handled {
            Ok(()) => return Ok(()),
            Err(Error::Disconnected | Error::PartialMessage | Error::SocketBroken(_)) => {
                log::info!("the frontend left");
            }
            Err(error) if self.backend().outlives(&error) => {
                log::warn!("a request of the frontend failed: {error}");
                return Ok(());
            }
            Err(error) => log::error!("the frontend is disconnected, for a request that failed: {error}"),
        }
        self.disconnect()
    }

    fn disconnect(&mut self) -> io::Result<()> {
        if let Some(frontend) = self.frontend.take() {
            self.watcher.remove(&frontend.socket)?;
        }
        self.backend().end_session()?;
        if let Some(listener) = &self.listener {
            self.watcher.insert(listener, Token::Listener)?;
        }
        Ok(())
    }

    fn backend(&self) -> MutexGuard<'_, Backend> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
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
    use super::*;

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
