// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device and what its present frontend negotiated.
//!
//! A session lives from connect to disconnect; ending it replaces it as a whole, so that nothing of a former frontend
//! can be left over. How a frontend's messages make a session is in `protocol`. What the events of the daemon do to it,
//! turn by turn, is here.
//!
//! (Crate `vhost-user-backend` would do much of this, but it can only connect or accept by itself: a socket that is
//! connected already, as `--fd` passes it, has no way in. It also refuses in-flight tracking.)

mod protocol;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost::vhost_user::{Error, Result};
use vm_memory::GuestAddress;

use crate::chain::Chain;
use crate::device::{Device, Stop, Work};
use crate::memory::Memory;
use crate::queue::Ring;
use crate::watch::Watcher;

/// So long chains that are finished wait for others of their batch, lest each cost an interrupt. On a slow
/// bus they do not wait for all of them: the frontend expects to see some used.
const TURN: Duration = Duration::from_millis(500);

/// A device and the frontend it is served to.
///
/// It needs no process and no socket: what a frontend sends comes in by the methods of vhost's
/// `VhostUserBackendReqHandlerMut`, and what else happens by those below. So it can be driven by a test, or a fuzzer.
pub struct Backend {
    device: Box<dyn Device>,
    watcher: Watcher,
    session: Session,
    /// How often a kick descriptor has come or gone.
    kicks: u64,
    requests: Vec<Chain>,
    finished: Vec<Chain>,
    /// Since when chains that are finished wait to be given back together.
    since: Option<Instant>,
    /// Those of one queue.
    returning: Vec<Chain>,
}

/// Everything that ends with the connection.
struct Session {
    /// The driver's features were accepted. Until then, or after others were refused, no ring is worked on.
    accepted: bool,
    /// The frontend learns from an answer when its request failed, if it wants to.
    reply_ack: bool,
    /// The frontend says when the driver resets the device.
    announces_resets: bool,
    /// The frontend has memory in which another daemon finds what this one was at.
    recorded: bool,
    memory: Memory,
    /// Where the frontend's own addresses of the regions are: it names rings by them.
    regions: Vec<Region>,
    rings: Vec<Ring>,
}

/// A piece of the guest's memory.
struct Region {
    frontend: u64,
    guest: u64,
    size: u64,
}

impl Session {
    fn new(device: &dyn Device) -> io::Result<Self> {
        let limits = device.queues().iter().enumerate();
        let rings: std::result::Result<_, _> =
            limits.map(|(index, limits)| Ring::new(index, *limits)).collect();
        Ok(Self {
            accepted: false,
            reply_ack: false,
            announces_resets: false,
            recorded: false,
            memory: Memory::default(),
            regions: Vec::new(),
            rings: rings.map_err(io::Error::other)?,
        })
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        let position = usize::try_from(index).unwrap_or(usize::MAX);
        self.rings.get_mut(position).ok_or_else(|| refused(format_args!("there is no queue {index}")))
    }

    fn guest_address(&self, frontend: u64) -> Result<GuestAddress> {
        let inside = |region: &&Region| {
            (region.frontend..region.frontend.saturating_add(region.size)).contains(&frontend)
        };
        let region = self.regions.iter().find(inside).ok_or_else(|| {
            refused(format_args!("a ring is at {frontend:#x}, where there is no memory region"))
        })?;
        Ok(GuestAddress(frontend - region.frontend + region.guest))
    }
}

impl Backend {
    /// Serves `device`, whose descriptors `watcher` is to watch.
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    pub fn new(mut device: Box<dyn Device>, watcher: Watcher) -> io::Result<Self> {
        device.watch(&watcher)?;
        let session = Session::new(&*device)?;
        Ok(Self {
            device,
            watcher,
            session,
            kicks: 0,
            requests: Vec::new(),
            finished: Vec::new(),
            since: None,
            returning: Vec::new(),
        })
    }

    /// The frontend is gone, and with it all that it set up. One that keeps a record does so in order to come back.
    pub(crate) fn end_session(&mut self) -> io::Result<()> {
        self.forget_kicks();
        if self.session.recorded {
            self.device.wait_for_another();
        } else {
            self.device.reset();
        }
        self.finished.clear();
        self.session = Session::new(&*self.device)?;
        Ok(())
    }

    /// Whether the session can go on after `error`: a request was refused, and the frontend was told. What is refused may
    /// be the guest's doing, as a ring where it has no memory; that is no reason to leave. After any other error the
    /// frontend may be waiting for an answer that does not come: it learns by the end of the connection.
    pub(crate) fn outlives(&self, error: &Error) -> bool {
        self.session.reply_ack && matches!(error, Error::ReqHandlerError(_))
    }

    fn forget_kicks(&mut self) {
        self.kicks += 1;
        for ring in &mut self.session.rings {
            if let Some(kick) = ring.kick.take() {
                let _ = self.watcher.remove(&kick);
            }
        }
    }

    /// The kick descriptor of a queue is readable.
    pub fn kicked(&mut self, queue: u32) {
        if let Ok(ring) = self.session.ring(queue) {
            ring.kicked();
        }
    }

    /// Changes with each kick descriptor that comes or goes: what was found readable before may be another
    /// now.
    pub(crate) fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Whether a queue waits to be worked on, though nobody will kick.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let is_pending = |ring: &Ring| ring.pending && ring.is_running();
        self.session.accepted && self.session.rings.iter().any(is_pending)
    }

    /// When work that is under way is taken to never come to its end.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.device.deadline()
    }

    /// One turn of every queue that has something: takes all, has the device process it, and completes what
    /// is finished. What it returns is to be done next, without the backend, and [`go_on`](Self::go_on) is to
    /// be called then.
    pub(crate) fn begin(&mut self) -> Option<Arc<dyn Work>> {
        let Self { device, session, requests, finished, .. } = self;
        for (index, ring) in session.rings.iter_mut().enumerate() {
            if session.accepted && ring.pending {
                ring.take(&session.memory, requests);
                device.process(index, requests, finished);
            }
        }
        self.next()
    }

    /// Takes the result of the work that was done, and returns what is to be done next.
    pub(crate) fn go_on(&mut self) -> Option<Arc<dyn Work>> {
        self.device.worked(&mut self.finished);
        self.next()
    }

    /// Something happened on a descriptor that the device watches as `token`. To be called when what the
    /// driver sent before that is done: a timer says that nothing has come.
    pub(crate) fn event(&mut self, token: u32) -> Option<Arc<dyn Work>> {
        self.device.event(token, &mut self.finished);
        self.next()
    }

    /// What the device has to do next. What it has finished is given back when there is nothing, or [`TURN`]
    /// is over.
    fn next(&mut self) -> Option<Arc<dyn Work>> {
        let work = self.device.work();
        if work.is_none() {
            self.since = None;
            self.complete();
            self.session.rings.iter_mut().for_each(Ring::tell_failure);
        } else if self.since.get_or_insert_with(Instant::now).elapsed() >= TURN {
            self.since = None;
            self.complete();
        }
        work
    }

    /// Does `work` and what follows from it, for whoever has the backend for himself.
    fn carry_out(&mut self, mut work: Option<Arc<dyn Work>>) {
        while let Some(next) = work {
            next.run();
            work = self.go_on();
        }
    }

    /// Does all that the queues have.
    pub fn work(&mut self) {
        let work = self.begin();
        self.carry_out(work);
    }

    /// Something happened on a descriptor that the device watches as `token`.
    pub fn device_event(&mut self, token: u32) {
        self.look();
        self.work();
        let work = self.event(token);
        self.carry_out(work);
    }

    /// From now on somebody calls [`look`](Self::look) again and again, so the driver need not kick; or not any more.
    pub fn set_polled(&mut self, polled: bool) {
        let Session { memory, rings, .. } = &mut self.session;
        rings.iter_mut().for_each(|ring| ring.set_polled(memory, polled));
    }

    /// Looks for requests that nobody kicked for.
    pub fn look(&mut self) {
        let Session { memory, rings, .. } = &mut self.session;
        rings.iter_mut().for_each(|ring| ring.look(memory));
    }

    /// Returns what the device finished, each to the queue that it came from.
    fn complete(&mut self) {
        for (index, ring) in self.session.rings.iter_mut().enumerate() {
            self.returning.extend(self.finished.extract_if(.., |chain| chain.queue() == index));
            ring.complete(&self.session.memory, &mut self.returning);
        }
        self.finished.clear();
    }

    fn stop_ring(&mut self, index: u32) -> Result<u16> {
        let queue = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.session.ring(index)?;
        // A frontend that would come back after its death knows what it is about. Others take part in the protocol
        // feature, and yet do not send the message.
        let says_all = self.session.announces_resets && self.session.recorded;
        let meaning = if says_all { Stop::Queue } else { Stop::PerhapsReset };
        self.device.stop(queue, meaning, &mut self.finished);
        self.complete();
        self.kicks += 1;
        let watcher = self.watcher.clone();
        let ring = self.session.ring(index)?;
        ring.stop();
        if let Some(kick) = ring.kick.take() {
            let _ = watcher.remove(&kick);
        }
        (ring.call, ring.err) = (None, None);
        Ok(ring.next_available())
    }
}

/// For requests that are acknowledged. The frontend hears only that its request failed: the reason goes to the log.
fn refused(why: std::fmt::Arguments<'_>) -> Error {
    log::error!("a request of the frontend is refused: {why}");
    Error::ReqHandlerError(io::ErrorKind::InvalidInput.into())
}

/// For requests that are answered by what they ask for: there is no answer, and the connection ends.
fn unanswered(_: Error) -> Error {
    Error::InvalidParam
}

// With the feature, guest memory is Xen's.
#[cfg(all(test, not(feature = "xen")))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
