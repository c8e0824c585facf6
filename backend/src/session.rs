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
//! connected already, as `--fd` passes it, has no way in. It also refuses in-flight tracking, and brings two threads.)

mod protocol;

use std::io;

use vhost::vhost_user::{Backend as Channel, Error, Result};
use vm_memory::GuestAddress;

use crate::chain::Chain;
use crate::device::{Device, Left, Start, Stop};
use crate::memory::Memory;
use crate::queue::Ring;
use crate::watch::Watcher;

/// A device and the frontend it is served to.
///
/// It needs no process and no socket: what a frontend sends comes in by the methods of vhost's
/// `VhostUserBackendReqHandlerMut`, and what else happens by those below. So it can be driven by a test, or a fuzzer.
pub struct Backend {
    device: Box<dyn Device>,
    watcher: Watcher,
    session: Session,
    requests: Vec<Chain>,
    finished: Vec<Chain>,
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
            requests: Vec::new(),
            finished: Vec::new(),
            returning: Vec::new(),
        })
    }

    /// The frontend is gone, and with it all that it set up. What that means for the hardware is decided here, for all ways in
    /// which a frontend can leave: see above.
    pub(crate) fn end_session(&mut self) -> io::Result<()> {
        self.forget_kicks();
        let goes_on = self.session.recorded && self.device.survives();
        self.device.leave(if goes_on { Left::Driver } else { Left::Nothing });
        self.requests.clear();
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

    /// Whether a queue waits to be worked on, though nobody will kick.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let is_pending = |ring: &Ring| ring.pending && ring.is_running();
        !self.requests.is_empty()
            || self.session.accepted.is_some() && self.session.rings.iter().any(is_pending)
    }

    /// Whether a queue that runs has no kick descriptor: the frontend wants it to be looked at time and again (vhost-user,
    /// "VHOST_USER_SET_VRING_KICK").
    #[must_use]
    pub fn is_unkicked(&self) -> bool {
        self.session.rings.iter().any(|ring| ring.is_running() && ring.kick.is_none())
    }

    /// One turn of every queue that has something: take all, work, complete all. A device that is slow leaves some of it for
    /// the next turn, before which the frontend gets one.
    pub fn work(&mut self) {
        let Self { device, session, requests, finished, returning: _, watcher: _ } = self;
        match requests.first().map(Chain::queue) {
            Some(left) => device.process(left, requests, finished),
            None => {
                for (index, ring) in session.rings.iter_mut().enumerate() {
                    if requests.is_empty() && session.accepted.is_some() && ring.pending {
                        ring.take(&session.memory, requests);
                        device.process(index, requests, finished);
                    }
                }
            }
        }
        self.complete();
        if self.requests.is_empty() {
            self.session.rings.iter_mut().for_each(Ring::tell_failure);
        }
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

    /// Something happened on a descriptor that the device watches as `token`. What the driver sent before that comes first:
    /// a timer says that nothing has come.
    pub fn device_event(&mut self, token: u32) {
        self.look();
        self.work();
        self.device.event(token, &mut self.finished);
        self.complete();
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

    /// What was left for the next turn fails: none of it has been begun.
    fn give_up(&mut self, queue: usize) {
        let of_queue = |chain: &&mut Chain| chain.queue() == queue;
        self.requests.iter_mut().filter(of_queue).for_each(Chain::interrupt);
        while self.requests.first().is_some_and(|chain| chain.queue() == queue) {
            self.device.process(queue, &mut self.requests, &mut self.finished);
        }
    }

    fn stop_ring(&mut self, index: u32) -> Result<u16> {
        let queue = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.session.ring(index)?;
        self.give_up(queue);
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
        self.requests.retain(|chain| chain.queue() != queue);
        self.device.stop(queue, self.session.meaning_of_stop(), &mut self.finished);
        self.finished.retain(|chain| chain.queue() != queue);
        self.complete();
        self.forget_kick(index);
        if let Ok(ring) = self.session.ring(index) {
            ring.stop();
        }
    }

    fn forget_kick(&mut self, index: u32) {
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
