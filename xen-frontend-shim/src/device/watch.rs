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
        if let Err(error) = session.poll_reply() {
            self.backend_lost(&error.to_string(), false);
        }
    }

    /// Whether [`Self::kicked`] has to be called when the driver kicks next.
    #[must_use]
    pub fn awaits_kick(&self) -> bool {
        let is_served = self.link.session().is_some_and(|session| session.ping_due().is_none());
        self.setup.is_some() && is_served && self.stall.is_idle()
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
        let ping_due = self.link.session().and_then(|session| session.ping_due());
        let watched = ping_due.or(self.stall.deadline());
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
        let is_overdue = |due: Instant| due <= now;
        let ping_due = |device: &Self| device.link.session().and_then(|session| session.ping_due());
        if ping_due(self).is_some_and(is_overdue) {
            // The reply may be there, if another device has kept this process busy.
            self.poll_backend();
        }
        if self.link.session().is_none() {
            return;
        }
        match ping_due(self) {
            Some(due) if is_overdue(due) => self.backend_lost("its backend hangs", true),
            Some(_) => {}
            None => {
                if self.stall.check(now, progress(&self.views)) {
                    self.ping(now + PING_LIMIT);
                }
            }
        }
    }

    fn ping(&mut self, due: Instant) {
        let pinged = self.link.session_mut().map_or(Ok(()), |session| session.ping(due));
        if let Err(error) = pinged {
            self.backend_lost(&format!("its backend cannot be pinged: {error}"), true);
        }
    }
}

/// How far each queue is that is in use.
fn progress<M: Mapping>(views: &[Option<RingView<M>>]) -> impl Fn(usize) -> Option<Progress> {
    |queue| views.get(queue)?.as_ref()?.progress()
}
