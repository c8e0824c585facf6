// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device and what its present frontend negotiated.
//!
//! A session lives from connect to disconnect; ending it replaces it as a whole, so that nothing of a former frontend
//! can be left over. How a frontend's messages make a session is in `protocol`. What the events of the daemon do to it,
//! turn by turn, is here.
//!
//! # When the frontend leaves
//!
//! What becomes of GPIO outputs is decided in one place, [`Backend::end_session`], which all ways lead to: the connection
//! is closed, by the frontend, by its death or for a request that failed. They stay as they are if two things hold: the
//! frontend keeps a record, so that its driver can go on; and whoever started this daemon keeps the lines requested, and so
//! will start another (KEEP_FD, as our supervisor has it). Otherwise they go to their safe values. A record alone promises
//! nothing: frontends keep one that will never come back. If one does, to this daemon or another, the lines are
//! set up again as the record says.
//!
//! Before that, a frontend that stops the queues and has no word for a reset may have a driver that is gone
//! ([`Stop::PerhapsReset`]): the lines go to their safe values as well.
//!
//! # When a request is refused
//!
//! The rings that it is about stop, whether or not the frontend wants an answer: nothing more is read from where they were, or
//! written there. A ring starts again by a kick descriptor, and not before all that was refused has come in a form that can
//! be accepted. A request that is about no ring, for there is no such queue or nothing to be written, changes nothing.
//!
//! (Crate `vhost-user-backend` would do much of this, but it can only connect or accept by itself: a socket that is
//! connected already, as `--fd` passes it, has no way in. It also refuses in-flight tracking.)

mod protocol;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost::vhost_user::{Backend as Channel, Error, Result};
use vm_memory::GuestAddress;

use crate::chain::Chain;
use crate::device::{Device, Left, Start, Stop, Work};
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
    /// The driver's features, once they were accepted. Before that no ring is worked on.
    accepted: Option<u64>,
    /// The frontend learns from an answer when its request failed, if it wants to.
    reply_ack: bool,
    /// The frontend says when the driver resets the device.
    announces_resets: bool,
    /// The frontend has memory in which another daemon finds what this one was at.
    recorded: bool,
    /// Where this daemon may ask the frontend for something. It does not, and keeps the channel open.
    channel: Option<Channel>,
    /// It gave such memory, which was refused.
    record_refused: bool,
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
            accepted: None,
            reply_ack: false,
            announces_resets: false,
            recorded: false,
            channel: None,
            record_refused: false,
            memory: Memory::default(),
            regions: Vec::new(),
            rings: rings.map_err(io::Error::other)?,
        })
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        let position = usize::try_from(index).unwrap_or(usize::MAX);
        self.rings.get_mut(position).ok_or_else(|| refused(format_args!("there is no queue {index}")))
    }

    /// Whether the frontend says when the driver resets the device. One that keeps a record knows what it is about; others take
    /// part in the protocol feature, and yet do not send the message.
    fn says_all(&self) -> bool {
        self.announces_resets && self.recorded
    }

    /// Whose ring it is that starts at `base`. Without a word from the frontend, one that begins at zero is a new driver's.
    fn start_at(&self, base: u16) -> Start {
        match (self.says_all(), base) {
            (true, _) => Start::AsRecorded,
            (false, 0) => Start::Anew,
            (false, _) => Start::Again,
        }
    }

    fn meaning_of_stop(&self) -> Stop {
        if self.says_all() { Stop::Queue } else { Stop::PerhapsReset }
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

    /// The frontend is gone, and with it all that it set up. What that means for the hardware is decided here, for all ways in
    /// which a frontend can leave: see above.
    pub(crate) fn end_session(&mut self) -> io::Result<()> {
        self.forget_kicks();
        let goes_on = self.session.recorded && self.device.survives();
        self.device.leave(if goes_on { Left::Driver } else { Left::Nothing });
        self.finished.clear();
        self.session = Session::new(&*self.device)?;
        Ok(())
    }

    /// Whether the session can go on after `error`: a request was refused, and the frontend was told. What is refused may
    /// be the guest's doing, as a ring where it has no memory; that is no reason to leave. After any other error the
    /// frontend may be waiting for an answer that does not come: it learns by the end of the connection.
    pub(crate) fn outlives(&self, error: &Error) -> bool {
        self.acknowledges() && matches!(error, Error::ReqHandlerError(_))
    }

    /// Whether the frontend may have its requests acknowledged.
    pub(crate) fn acknowledges(&self) -> bool {
        self.session.reply_ack
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

    /// Whether a queue waits to be worked on, or has failed and the frontend is to be told, though no kick will come.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let is_pending = |ring: &Ring| ring.pending && ring.is_running();
        let Session { accepted, rings, .. } = &self.session;
        accepted.is_some() && rings.iter().any(is_pending) || rings.iter().any(Ring::has_failed)
    }

    /// Whether a queue that runs has no kick descriptor: the frontend wants it to be looked at time and again (vhost-user,
    /// "VHOST_USER_SET_VRING_KICK").
    #[must_use]
    pub fn is_unkicked(&self) -> bool {
        self.session.rings.iter().any(|ring| ring.is_running() && ring.kick.is_none())
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
            if session.accepted.is_some() && ring.pending {
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

    /// Returns what the device finished, each to the queue that it came from. What belongs to a queue that is disabled waits
    /// until that is enabled or stopped: its driver may have taken the ring's memory back.
    fn complete(&mut self) {
        for index in 0..self.session.rings.len() {
            self.give_back(index, |ring| ring.is_running());
        }
        let rings = &self.session.rings;
        self.finished.retain(|chain| rings.get(chain.queue()).is_some_and(Ring::is_started));
    }

    /// The same for one queue, if it is in the state to.
    fn give_back(&mut self, index: usize, may: impl FnOnce(&Ring) -> bool) {
        let Self { session: Session { rings, memory, .. }, finished, returning, .. } = self;
        if let Some(ring) = rings.get_mut(index).filter(|ring| may(ring)) {
            returning.extend(finished.extract_if(.., |chain| chain.queue() == index));
            ring.complete(memory, returning);
        }
    }

    fn stop_ring(&mut self, index: u32) -> Result<u16> {
        let queue = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.session.ring(index)?;
        self.device.stop(queue, self.session.meaning_of_stop(), &mut self.finished);
        self.give_back(queue, Ring::is_started);
        self.complete();
        self.forget_kick(index);
        let ring = self.session.ring(index)?;
        ring.stop();
        (ring.call, ring.err) = (None, None);
        Ok(ring.next_available())
    }

    /// Stops a ring of which nobody knows any more where it is: what there is of it is dropped, and its driver hears nothing.
    fn abandon_ring(&mut self, index: u32) {
        let Ok(queue) = usize::try_from(index) else { return };
        if !self.session.ring(index).is_ok_and(|ring| ring.is_started()) {
            return;
        }
        self.device.stop(queue, self.session.meaning_of_stop(), &mut self.finished);
        self.finished.retain(|chain| chain.queue() != queue);
        self.complete();
        self.forget_kick(index);
        if let Ok(ring) = self.session.ring(index) {
            ring.stop();
        }
    }

    fn forget_kick(&mut self, index: u32) {
        self.kicks += 1;
        if let Some(kick) = self.session.ring(index).ok().and_then(|ring| ring.kick.take()) {
            let _ = self.watcher.remove(&kick);
        }
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
