// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device and the session with its present frontend.
//!
//! A [`Session`] lasts from connect to disconnect and is replaced as a whole, so that no state of one
//! frontend reaches the next. `protocol` has the messages of the frontend, `settings` applies them, and this
//! file has the events of the daemon.
//!
//! # When the frontend disconnects
//!
//! [`DeviceServer::end_session`] alone decides about the GPIO outputs, whichever way the connection ended.
//! They stay as they are if two conditions hold: the frontend keeps an in-flight record, so that its driver
//! can continue; and the parent process holds the lines (KEEP_FD, as our supervisor does) and so will start
//! another daemon. Otherwise they go to their safe values: a record alone does not mean that the frontend
//! returns. If it does return, to this daemon or another, the lines are set up again from the record.
//!
//! A frontend that cannot report a reset stops the queues both for a reset and for a pause
//! ([`QueueStop::MaybeReset`]). The lines go to their safe values then, too.
//!
//! # When a request is refused
//!
//! The rings that it concerns stop, whether or not the frontend asked for a reply: no ring is used with its
//! former settings. A ring starts again with a kick descriptor, and only after every refused setting was sent
//! again and accepted. A request for a queue that does not exist changes nothing.

mod protocol;
mod settings;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost::vhost_user::{Backend as BackendChannel, Error, Result};
use vm_memory::GuestAddress;

use crate::chain::Chain;
use crate::device::{BlockingWork, Device, Disconnect, QueueStart, QueueStop};
use crate::memory::Memory;
use crate::queue::Ring;
use crate::watch::Watcher;

/// How long finished chains wait for others of their batch, so that they share an interrupt. On a slow bus
/// not all of a batch is waited for: the frontend's watchdog expects used buffers.
const COMPLETION_DELAY: Duration = Duration::from_millis(500);

/// A device and the frontend that it is served to.
///
/// It uses neither threads nor sockets: the frontend's messages are the methods of vhost's
/// `VhostUserBackendReqHandlerMut`, all other events the methods below. So tests and fuzzers can drive it.
pub struct DeviceServer {
    device: Box<dyn Device>,
    watcher: Watcher,
    session: Session,
    /// Counts the exchanges of kick descriptors.
    kick_generation: u64,
    requests: Vec<Chain>,
    finished: Vec<Chain>,
    /// Since when finished chains wait to be completed together.
    waiting_since: Option<Instant>,
    /// The finished chains of one queue.
    returning: Vec<Chain>,
}

/// Why a device cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A descriptor of the device cannot be watched.
    #[error("a descriptor cannot be watched: {0}")]
    Watch(#[from] io::Error),
    /// The limits of a queue are invalid.
    #[error("a queue has an invalid size: {0}")]
    QueueSize(#[from] virtio_queue::Error),
}

/// The state that ends with the connection.
struct Session {
    /// The features that the driver accepted. No ring is processed without them.
    accepted: Option<u64>,
    /// REPLY_ACK was negotiated.
    reply_ack: bool,
    /// RESET_DEVICE was negotiated.
    reset_device: bool,
    /// The frontend has passed an in-flight record.
    has_record: bool,
    /// The last in-flight record was refused.
    record_refused: bool,
    /// The channel for requests to the frontend. It is unused and kept open.
    channel: Option<BackendChannel>,
    memory: Memory,
    /// The memory table in the frontend's addresses, which are those of SET_VRING_ADDR.
    regions: Vec<MemoryRegion>,
    rings: Vec<Ring>,
}

/// An entry of the memory table.
struct MemoryRegion {
    frontend: u64,
    guest: u64,
    size: u64,
}

impl Session {
    fn new(device: &dyn Device) -> std::result::Result<Self, SessionError> {
        let limits = device.queues().iter().enumerate();
        let rings =
            limits.map(|(index, limits)| Ring::new(index, *limits)).collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            accepted: None,
            reply_ack: false,
            reset_device: false,
            has_record: false,
            record_refused: false,
            channel: None,
            memory: Memory::default(),
            regions: Vec::new(),
            rings,
        })
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        let position = usize::try_from(index).unwrap_or(usize::MAX);
        self.rings.get_mut(position).ok_or_else(|| refusal(format_args!("there is no queue {index}")))
    }

    /// Whether the frontend reports resets by the driver: it has negotiated RESET_DEVICE and keeps an
    /// in-flight record. Frontends without a record negotiate the feature and do not send the message.
    fn reports_resets(&self) -> bool {
        self.reset_device && self.has_record
    }

    /// Which driver starts a ring at `base`. Without reports of resets, a ring that starts at 0 is a new
    /// driver's.
    fn queue_start(&self, base: u16) -> QueueStart {
        match (self.reports_resets(), base) {
            (true, _) => QueueStart::AsRecorded,
            (false, 0) => QueueStart::NewDriver,
            (false, _) => QueueStart::SameDriver,
        }
    }

    fn queue_stop(&self) -> QueueStop {
        if self.reports_resets() { QueueStop::QueueOnly } else { QueueStop::MaybeReset }
    }

    fn guest_address(&self, frontend: u64) -> Result<GuestAddress> {
        let contains = |region: &&MemoryRegion| {
            (region.frontend..region.frontend.saturating_add(region.size)).contains(&frontend)
        };
        let region = self.regions.iter().find(contains).ok_or_else(|| {
            refusal(format_args!("a ring is at {frontend:#x}, where there is no memory region"))
        })?;
        Ok(GuestAddress(frontend - region.frontend + region.guest))
    }
}

impl DeviceServer {
    /// Serves `device`, and adds its descriptors to `watcher`.
    ///
    /// # Errors
    /// When a descriptor cannot be watched, or the limits of a queue are invalid.
    pub fn new(mut device: Box<dyn Device>, watcher: Watcher) -> std::result::Result<Self, SessionError> {
        device.watch(&watcher)?;
        let session = Session::new(&*device)?;
        Ok(Self {
            device,
            watcher,
            session,
            kick_generation: 0,
            requests: Vec::new(),
            finished: Vec::new(),
            waiting_since: None,
            returning: Vec::new(),
        })
    }

    /// Drops the session and decides whether the hardware stays as it is: see the module's documentation.
    pub(crate) fn end_session(&mut self) -> std::result::Result<(), SessionError> {
        self.remove_all_kicks();
        let has_record = self.session.has_record;
        match self.device.persistence() {
            Some(device) if has_record && device.keeps_hardware() => {
                device.disconnect(Disconnect::DriverContinues);
            }
            Some(device) => device.disconnect(Disconnect::Final),
            None => self.device.reset(),
        }
        self.finished.clear();
        self.session = Session::new(&*self.device)?;
        Ok(())
    }

    /// Whether the session continues after `error`: a request was refused and the reply has the error. The
    /// guest can cause that, by a ring outside of its memory for example. After any other error the frontend
    /// may wait for a reply that does not come, and the connection must be closed.
    pub(crate) fn can_continue_after(&self, error: &Error) -> bool {
        self.has_reply_ack() && matches!(error, Error::ReqHandlerError(_))
    }

    /// Whether REPLY_ACK was negotiated.
    pub(crate) fn has_reply_ack(&self) -> bool {
        self.session.reply_ack
    }

    fn remove_all_kicks(&mut self) {
        self.kick_generation += 1;
        for ring in &mut self.session.rings {
            if let Some(kick) = ring.kick.take() {
                let _ = self.watcher.remove(&kick);
            }
        }
    }

    /// Handles a readable kick descriptor.
    pub fn handle_kick(&mut self, queue: u32) {
        if let Ok(ring) = self.session.ring(queue) {
            ring.read_kick();
        }
    }

    /// Returns a number that changes whenever a kick descriptor is added or removed. An event of an older
    /// generation may belong to a descriptor that is gone.
    pub(crate) fn kick_generation(&self) -> u64 {
        self.kick_generation
    }

    /// Whether a queue must be processed, or a failure reported, without another kick.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let is_pending = |ring: &Ring| ring.pending && ring.is_running();
        let Session { accepted, rings, .. } = &self.session;
        accepted.is_some() && rings.iter().any(is_pending) || rings.iter().any(Ring::has_failure)
    }

    /// Whether a running queue has no kick descriptor and must be polled (vhost-user,
    /// "VHOST_USER_SET_VRING_KICK").
    #[must_use]
    pub fn needs_polling(&self) -> bool {
        self.session.rings.iter().any(|ring| ring.is_running() && ring.kick.is_none())
    }

    /// Returns when the work that is running has taken too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.device.deadline()
    }

    /// Returns why the device can no longer be served, if that is so.
    pub(crate) fn failure(&mut self) -> Option<io::Error> {
        self.device.failure()
    }

    /// Processes every pending queue once: takes the available chains, passes them to the device and
    /// completes the finished ones. Returned work must be run without a lock on the server, followed by
    /// [`finish_work`](Self::finish_work).
    pub(crate) fn process_queues(&mut self) -> Option<Arc<dyn BlockingWork>> {
        let Self { device, session, requests, finished, .. } = self;
        for (index, ring) in session.rings.iter_mut().enumerate() {
            if session.accepted.is_some() && ring.pending {
                ring.take(&session.memory, requests);
                device.process(index, requests, finished);
            }
        }
        self.next_work()
    }

    /// Passes the result of the finished work to the device, and returns the next work.
    pub(crate) fn finish_work(&mut self) -> Option<Arc<dyn BlockingWork>> {
        self.device.finish_work(&mut self.finished);
        self.next_work()
    }

    /// Passes an event of the device's descriptor `token` to the device. Requests that came before it must
    /// have been processed: the group timer means that nothing has come.
    pub(crate) fn handle_event(&mut self, token: u32) -> Option<Arc<dyn BlockingWork>> {
        self.device.handle_event(token, &mut self.finished);
        self.next_work()
    }

    /// Returns the device's next work. Completes the finished chains if there is none, or after
    /// [`COMPLETION_DELAY`].
    fn next_work(&mut self) -> Option<Arc<dyn BlockingWork>> {
        let work = self.device.next_work();
        if work.is_none() {
            self.waiting_since = None;
            self.complete_finished();
            self.session.rings.iter_mut().for_each(Ring::report_failure);
        } else if self.waiting_since.get_or_insert_with(Instant::now).elapsed() >= COMPLETION_DELAY {
            self.waiting_since = None;
            self.complete_finished();
        }
        work
    }

    /// Announces that [`poll_queues`](Self::poll_queues) is called continuously, so that drivers need not
    /// kick; or that it no longer is.
    pub fn set_polled(&mut self, polled: bool) {
        let Session { memory, rings, .. } = &mut self.session;
        rings.iter_mut().for_each(|ring| ring.set_polled(memory, polled));
    }

    /// Marks queues as pending that have requests without a kick.
    pub fn poll_queues(&mut self) {
        let Session { memory, rings, .. } = &mut self.session;
        rings.iter_mut().for_each(|ring| ring.poll(memory));
    }

    /// Completes the finished chains of running queues. Chains of a disabled queue wait until it is enabled
    /// or stopped: its driver may have reused the ring's memory.
    fn complete_finished(&mut self) {
        for index in 0..self.session.rings.len() {
            self.complete_queue(index, |ring| ring.is_running());
        }
        let rings = &self.session.rings;
        self.finished.retain(|chain| rings.get(chain.queue()).is_some_and(Ring::is_started));
    }

    /// Completes the finished chains of one queue, if its ring satisfies `may_complete`.
    fn complete_queue(&mut self, index: usize, may_complete: impl FnOnce(&Ring) -> bool) {
        let Self { session: Session { rings, memory, .. }, finished, returning, .. } = self;
        if let Some(ring) = rings.get_mut(index).filter(|ring| may_complete(ring)) {
            returning.extend(finished.extract_if(.., |chain| chain.queue() == index));
            ring.complete(memory, returning);
        }
    }

    /// Stops a ring, completes its chains and returns the next available index.
    fn stop_ring(&mut self, index: u32) -> Result<u16> {
        let queue = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.session.ring(index)?;
        self.device.stop(queue, self.session.queue_stop(), &mut self.finished);
        self.complete_queue(queue, Ring::is_started);
        self.complete_finished();
        self.remove_kick(index);
        let ring = self.session.ring(index)?;
        ring.stop();
        (ring.call, ring.err) = (None, None);
        Ok(ring.next_available())
    }

    /// Stops a ring whose location is no longer known: its chains are dropped, and its driver is not
    /// notified.
    fn discard_ring(&mut self, index: u32) {
        let Ok(queue) = usize::try_from(index) else { return };
        if !self.session.ring(index).is_ok_and(|ring| ring.is_started()) {
            return;
        }
        self.device.stop(queue, self.session.queue_stop(), &mut self.finished);
        self.finished.retain(|chain| chain.queue() != queue);
        self.complete_finished();
        self.remove_kick(index);
        if let Ok(ring) = self.session.ring(index) {
            ring.stop();
        }
    }

    fn remove_kick(&mut self, index: u32) {
        self.kick_generation += 1;
        if let Some(kick) = self.session.ring(index).ok().and_then(|ring| ring.kick.take()) {
            let _ = self.watcher.remove(&kick);
        }
    }
}

/// A server without threads, for tests and fuzzers.
#[cfg(any(test, feature = "test-support"))]
impl DeviceServer {
    /// Runs `work` and the work that follows from it, where no other thread uses the server.
    fn run_work(&mut self, mut work: Option<Arc<dyn BlockingWork>>) {
        while let Some(next) = work {
            next.run();
            work = self.finish_work();
        }
    }

    /// Processes the queues and runs all work that results.
    pub fn process_all(&mut self) {
        let work = self.process_queues();
        self.run_work(work);
    }

    /// Handles an event of the device's descriptor `token` and runs all work that results.
    pub fn process_event(&mut self, token: u32) {
        self.poll_queues();
        self.process_all();
        let work = self.handle_event(token);
        self.run_work(work);
    }
}

/// Logs why a request is refused, and returns the error of its reply, which has no field for a reason.
fn refusal(why: std::fmt::Arguments<'_>) -> Error {
    log::error!("a request of the frontend is refused: {why}");
    Error::ReqHandlerError(io::ErrorKind::InvalidInput.into())
}

/// Replaces the error of a request whose reply cannot express one: the connection is closed.
fn without_reply(_: Error) -> Error {
    Error::InvalidParam
}

// With the feature, guest memory is Xen's.
#[cfg(all(test, not(feature = "xen")))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
