// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The connection of a device to its backend, and the end of the backend's process after it.

use std::time::{Duration, Instant};

use log::error;

use crate::vhost_user::{Process, Session};

/// How long a backend may take to exit after its connection has ended, and how long after it has been
/// killed.
const EXIT_LIMIT: Duration = Duration::from_secs(1);

/// The present backend, and the process of the last one while it may be there.
#[derive(Default)]
pub(super) struct Link {
    session: Option<Session>,
    process: Option<Process>,
    ending: Option<Ending>,
    /// Whether the backend has been disconnected since [`Link::take_disconnected`] was called.
    is_disconnected: bool,
}

/// A process without a connection. Until it has exited, it may have memory of the guest mapped.
struct Ending {
    process: Process,
    kill_at: Option<Instant>,
}

impl Link {
    /// Replaces the present backend.
    pub(super) fn connect(&mut self, session: Session, process: Option<Process>) {
        self.disconnect(true);
        // As a rule it has exited: the supervisor starts another backend after that.
        self.ending.take_if(|ending| ending.process.exits_within(Duration::ZERO));
        self.is_disconnected = false;
        self.session = Some(session);
        self.process = process;
    }

    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Ends the connection. The process should exit by itself then and leave its hardware in order: it is
    /// killed at once if it `hangs`, and otherwise if it has not exited in time.
    ///
    /// As it exits, the kernel unmaps what it has mapped: its descriptor of gntdev is closed, and the copy
    /// in the session is by then.
    pub(super) fn disconnect(&mut self, hangs: bool) {
        self.is_disconnected |= self.session.take().is_some();
        let Some(process) = self.process.take() else { return };
        let kill_at = if hangs { None } else { Some(Instant::now() + EXIT_LIMIT) };
        if hangs {
            process.kill();
        }
        self.ending = Some(Ending { process, kill_at });
    }

    /// Whether the backend has been disconnected since the last call.
    pub(super) fn take_disconnected(&mut self) -> bool {
        std::mem::take(&mut self.is_disconnected)
    }

    /// When a process has to have exited.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ending.as_ref()?.kill_at
    }

    /// Kills a process that has not exited in time.
    pub(super) fn kill_overdue(&mut self, now: Instant) {
        if let Some(ending) = &mut self.ending
            && ending.kill_at.is_some_and(|deadline| deadline <= now)
        {
            ending.kill_at = None;
            ending.process.kill();
        }
    }

    /// Kills a process without a connection and waits until it has exited, for a limited time: a vCPU waits
    /// as well.
    pub(super) fn kill_disconnected(&mut self, name: &str) {
        let Some(ending) = self.ending.take() else { return };
        ending.process.kill();
        if !ending.process.exits_within(EXIT_LIMIT) {
            error!(
                "{name}: the backend cannot be killed and may have memory of the guest mapped; \
                 see where it hangs"
            );
            self.ending = Some(ending);
        }
    }
}
