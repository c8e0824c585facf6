// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The connection of a device to its backend, from one life of the backend to the next.

use std::time::{Duration, Instant};

use log::error;

use crate::vhost_user::{Process, Session};

/// How long a backend may take to end by itself when its connection has, and how long when it has been killed.
const EXIT_LIMIT: Duration = Duration::from_secs(1);

/// The present backend, and what may be left of the last.
#[derive(Default)]
pub(super) struct Link {
    session: Option<Session>,
    process: Option<Process>,
    ending: Option<Ending>,
    /// Whether the connection has been cut and nobody told of it.
    is_news: bool,
}

/// A process without a connection. While it is there, it may have memory of the guest mapped.
struct Ending {
    process: Process,
    kill_at: Option<Instant>,
}

impl Link {
    /// Takes up a backend.
    pub(super) fn connect(&mut self, session: Session, process: Option<Process>) {
        self.cut(true);
        // As a rule it is gone by now: there is another since it was seen to end.
        self.ending.take_if(|ending| ending.process.ends_within(Duration::ZERO));
        self.is_news = false;
        self.session = Some(session);
        self.process = process;
    }

    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Ends the connection, upon which the process should end by itself and leave its hardware in order. One that hangs
    /// does not, and one that does not is killed later.
    ///
    /// What the process had mapped is unmapped by the kernel as it goes, with its descriptor of gntdev and our copy.
    pub(super) fn cut(&mut self, hangs: bool) {
        if self.session.take().is_some() {
            self.is_news = true;
        }
        let Some(process) = self.process.take() else { return };
        let kill_at = if hangs { None } else { Some(Instant::now() + EXIT_LIMIT) };
        if hangs {
            process.kill();
        }
        self.ending = Some(Ending { process, kill_at });
    }

    /// Whether the connection has been cut since this was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// When a process has had its time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ending.as_ref()?.kill_at
    }

    /// Kills a process that has had its time.
    pub(super) fn enforce(&mut self, now: Instant) {
        if let Some(ending) = &mut self.ending
            && ending.kill_at.is_some_and(|deadline| deadline <= now)
        {
            ending.kill_at = None;
            ending.process.kill();
        }
    }

    /// Sees to it that nothing is left of a process without a connection: kills it and waits for its end, for a limited
    /// time, since a vCPU waits as well.
    pub(super) fn settle(&mut self, name: &str) {
        let Some(ending) = self.ending.take() else { return };
        ending.process.kill();
        if !ending.process.ends_within(EXIT_LIMIT) {
            error!(
                "{name}: its backend cannot be killed and may have memory of the guest mapped: see what holds it up"
            );
            self.ending = Some(ending);
        }
    }
}
