// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The deadlines of a device, and what is done about a backend that hangs or has ended.

use std::time::{Duration, Instant};

use super::stall::Progress;
use super::view::RingView;
use super::{ABSENCE_LIMIT, BackedDevice};
use crate::hypervisor::{Hypervisor, Mapping};
use crate::virtio_mmio::Lost;

/// How long a backend that makes no progress may take to reply to a ping.
const PING_LIMIT: Duration = Duration::from_secs(5);

impl<H: Hypervisor> BackedDevice<H> {
    /// Reads what has arrived from the backend: the reply to a ping, or the end of the connection.
    pub fn poll_backend(&mut self) {
        let Some(session) = self.link.session_mut() else { return };
        if let Err(error) = session.client_mut().poll_reply() {
            self.backend_lost(&error.to_string(), false);
        }
    }

    /// Whether [`Self::kicked`] has to be called when the driver kicks next.
    #[must_use]
    pub fn awaits_kick(&self) -> bool {
        let has_backend = self.link.session().is_some();
        self.setup.is_some() && has_backend && self.ping_due().is_none() && self.stall.is_idle()
    }

    /// The next kick will be noticed. One just before may not have been.
    pub fn kick_armed(&mut self) {
        if self.awaits_kick() {
            self.stall.armed(Instant::now(), progress(&self.views));
        }
    }

    /// The driver has kicked a queue.
    pub fn kicked(&mut self) {
        if self.awaits_kick() {
            self.stall.kicked(Instant::now(), progress(&self.views));
        }
    }

    /// When [`Self::run_timers`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let watched = self.ping_due().or(self.stall.deadline());
        [self.lost_at, self.link.deadline(), watched].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn run_timers(&mut self, now: Instant) -> Result<(), Lost> {
        self.link.kill_overdue(now);
        if self.lost_at.is_some_and(|lost_at| lost_at <= now) {
            return Err(self.fail(&format!("no backend serves it within {} s", ABSENCE_LIMIT.as_secs())));
        }
        self.check_backend(now);
        Ok(())
    }

    /// Disconnects a backend that has not replied in time, and pings one that makes no progress.
    fn check_backend(&mut self, now: Instant) {
        if self.ping_due().is_some_and(|due| due <= now) {
            // The reply may be there, if another device has kept this process busy.
            self.poll_backend();
        }
        if self.ping_due().is_some_and(|due| due <= now) {
            self.backend_lost("the backend hangs: it has not replied to a ping in time", true);
        }
        let Some(session) = self.link.session_mut() else { return };
        let client = session.client_mut();
        if client.ping_due().is_none()
            && self.stall.check(now, progress(&self.views))
            && let Err(error) = client.ping(now + PING_LIMIT)
        {
            self.backend_lost(&format!("the backend cannot be pinged: {error}"), true);
        }
    }

    /// When the reply to a ping is due, while one is outstanding.
    fn ping_due(&self) -> Option<Instant> {
        self.link.session().and_then(|session| session.client().ping_due())
    }
}

/// How far each queue is that is in use.
fn progress<M: Mapping>(views: &[Option<RingView<M>>]) -> impl Fn(usize) -> Option<Progress> {
    |queue| views.get(queue)?.as_ref()?.progress()
}
