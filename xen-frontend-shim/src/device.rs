// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device behind a window: a backend, the event descriptors between it and the guest, and the shim's own
//! view of the rings.
//!
//! ```text
//!            ┌────────── another one, after a replay ─────────┐
//!            ▼                                                │
//!   has a backend ── it ends, hangs or leaves the protocol ──▶ waits for one ── 5 s ──▶ lost to the driver
//! ```
//!
//! - [`driver`]: what the driver requests, start to stop, becomes calls to the backend;
//! - [`replay`]: another backend gets the driver's setup and goes on, if [`recovery`] permits it;
//! - [`watch`]: a backend that hangs is found and killed;
//! - [`events`]: what a backend reports reaches the transport.
//!
//! A backend that ends takes nothing with it that is needed: what the driver has set up is kept here and in
//! the transport, kicks wait in their eventfds, and requests in flight are recorded in memory of the shim
//! ([`Inflight`]). Another backend gets all of it, and the driver sees a delay. If that fails or takes too
//! long, the device is [`Lost`] to its driver, which then has to reset it.
//!
//! No call waits for a backend that is absent: a reset finds the device stopped already.

mod driver;
mod events;
mod link;
mod recovery;
mod replay;
mod stall;
mod view;
mod watch;

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{error, warn};

use crate::hypervisor::Hypervisor;
use crate::memory::Ring;
use crate::vhost_user::{Inflight, Notifier, Session, SessionError};
use crate::virtio_mmio::Lost;

use link::Link;
use stall::StallDetector;
use view::RingView;

pub use events::{config_changed, queue_failed};
pub use replay::replace_backend;

/// How long the driver of a device without a backend waits for another one.
const ABSENCE_LIMIT: Duration = Duration::from_secs(5);

/// A device served by a backend, or by several, one after the other.
pub struct BackedDevice<H: Hypervisor> {
    name: String,
    hypervisor: Rc<H>,
    irq: u32,
    notifiers: Vec<Notifier>,
    inflight: Inflight,
    views: Vec<Option<RingView<H::Mapping>>>,
    /// What the driver has started the device with, until it stops it.
    setup: Option<Setup>,
    link: Link,
    /// How long the driver waits for another backend. `None`: without a limit.
    absence_limit: Option<Duration>,
    /// When the device is lost to its driver unless there is another backend.
    lost_at: Option<Instant>,
    stall: StallDetector,
}

/// What a driver starts a device with.
#[derive(Clone)]
struct Setup {
    features: u64,
    rings: Vec<Ring>,
    /// Whether no backend has got it yet: then the rings are at their beginning, and nothing is in flight.
    is_fresh: bool,
}

/// Why a backend has not done what it had to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// There is none; there may be one soon.
    NoBackend,
    /// It has refused, or must not.
    Refused,
}

impl<H: Hypervisor> BackedDevice<H> {
    /// A device that has no backend yet. Messages call it `name`; its interrupt is `irq`.
    pub fn new(
        name: String,
        hypervisor: Rc<H>,
        irq: u32,
        notifiers: Vec<Notifier>,
        inflight: Inflight,
    ) -> Self {
        let queues = notifiers.len();
        Self {
            name,
            hypervisor,
            irq,
            notifiers,
            inflight,
            views: (0..queues).map(|_| None).collect(),
            setup: None,
            link: Link::default(),
            absence_limit: Some(ABSENCE_LIMIT),
            lost_at: None,
            stall: StallDetector::new(queues),
        }
    }

    /// A device whose driver waits for another backend without a limit.
    #[must_use]
    pub fn that_waits(self) -> Self {
        Self { absence_limit: None, ..self }
    }

    /// The name of the device in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection to the backend, while there is one.
    #[must_use]
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.link.session().map(|session| session.client().as_fd())
    }

    /// The channel on which the backend reports changes of the configuration, if there is one.
    #[must_use]
    pub fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.link.session().and_then(Session::channel)
    }

    /// The event descriptors of the queues.
    #[must_use]
    pub fn notifiers(&self) -> &[Notifier] {
        &self.notifiers
    }

    /// Whether a driver has started the device.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.setup.is_some()
    }

    /// Whether the backend has been disconnected since the last call.
    pub fn take_disconnected(&mut self) -> bool {
        self.link.take_disconnected()
    }

    /// Discards a kick that has to start nothing.
    pub fn drain_kick(&self, queue: u16) {
        if let Some(notifier) = self.notifiers.get(usize::from(queue)) {
            // The read fails if there is none.
            let _ = notifier.kick.read();
        }
    }

    /// Whether the backend has reported since the last call that it cannot use a queue any more.
    fn take_queue_failure(&self, queue: u16) -> bool {
        // The read fails if it has not.
        self.notifiers.get(usize::from(queue)).is_some_and(|notifier| notifier.err.read().is_ok())
    }

    /// Handles the result of a call to the backend, if there is one: a backend that has failed is
    /// disconnected.
    fn handle_result<T>(&mut self, called: Option<Result<T, SessionError>>) -> Result<T, Failure> {
        match called {
            None => Err(Failure::NoBackend),
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) if error.is_refusal() => {
                error!("{}: {error}", self.name);
                self.link.disconnect(false);
                Err(Failure::Refused)
            }
            Some(Err(error)) => {
                self.backend_lost(&error.to_string(), error.is_timeout());
                Err(Failure::NoBackend)
            }
        }
    }

    /// As [`Self::handle_result`], for a call that another backend can make up for.
    fn handle_or_lose<T: Default>(&mut self, called: Option<Result<T, SessionError>>) -> Result<T, Lost> {
        match self.handle_result(called) {
            Ok(answer) => Ok(answer),
            Err(Failure::NoBackend) => Ok(T::default()),
            Err(Failure::Refused) => Err(self.lose()),
        }
    }

    /// Disconnects the backend, which is killed at once if it hangs: from now on the driver waits for
    /// another one.
    fn backend_lost(&mut self, reason: &str, hangs: bool) {
        warn!("{}: {reason}", self.name);
        self.link.disconnect(hangs);
        self.stall.reset();
        self.await_backend();
    }

    /// Has a driver that uses the device wait for another backend.
    fn await_backend(&mut self) {
        if let (Some(_), Some(limit)) = (&self.setup, self.absence_limit) {
            self.lost_at.get_or_insert_with(|| Instant::now() + limit);
        }
    }

    /// Reports that the device cannot go on, and stops to serve its driver.
    fn fail(&mut self, reason: &str) -> Lost {
        error!("{}: {reason}; the device needs a reset", self.name);
        self.lose()
    }

    /// Stops to serve the driver until it resets the device.
    fn lose(&mut self) -> Lost {
        self.clear_setup();
        // It may be in the middle of what it has refused.
        self.link.disconnect(false);
        Lost
    }

    /// Drops what the driver has started the device with, and all deadlines that follow from it.
    fn clear_setup(&mut self) {
        self.setup = None;
        self.lost_at = None;
        self.stall.reset();
    }
}

#[cfg(test)]
mod tests;
