// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What stands behind a window: a backend, the event descriptors between it and the guest, and the shim's own view
//! of the rings.
//!
//! ```text
//!            ┌──────────── a new one, replayed to ────────────┐
//!            ▼                                                │
//!   has a backend ── it ends, hangs or leaves the protocol ──▶ waits for one ── 5 s ──▶ lost to the driver
//! ```
//!
//! This is where the transport's wishes (start, stop, kick) become calls to a backend, and where a backend that fails
//! is let go of: whatever happens, the transport gets an answer, and nothing of the guest stays mapped after a stop.
//!
//! A backend that goes takes nothing with it that cannot be had again. What the driver has said is in the transport and
//! here; kicks wait in their eventfds; which requests it had taken is written in memory that outlives it (see
//! [`Inflight`]). So the next backend is told all of it, and the driver sees a delay. Only where that is refused, or does
//! not come to pass in time, the device is [`Lost`] to its driver, which then has to reset it.
//!
//! No call waits for a backend that is not there. A reset finds the device stopped already.

mod link;
mod pace;
mod view;

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use crate::hypervisor::{Hypervisor, Mapping};
use crate::memory::Ring;
use crate::vhost_user::{Heard, Inflight, Notifier, Offer, Process, Session, SessionError, Start};
use crate::virtio_mmio::{Device, Lost, Transport};

use link::Link;
use pace::{Pace, Progress, Verdict};
use view::RingView;

/// How long a driver that uses the device is kept waiting for a new backend.
const AWAY_LIMIT: Duration = Duration::from_secs(5);

/// A device served by a backend, or by one after the other.
pub struct BackedDevice<H: Hypervisor> {
    name: String,
    hypervisor: Rc<H>,
    irq: u32,
    notifiers: Vec<Notifier>,
    inflight: Inflight,
    views: Vec<Option<RingView<H::Mapping>>>,
    /// What the driver wants of the device, if it has started it.
    wanted: Option<Wanted>,
    link: Link,
    /// Until when the driver is kept waiting, if it is.
    away_until: Option<Instant>,
    pace: Pace,
}

/// A device as its driver has started it.
#[derive(Clone)]
struct Wanted {
    features: u64,
    rings: Vec<Ring>,
    /// Whether no backend has been told of it yet: then the rings are at their beginning, and nothing is in flight.
    is_fresh: bool,
}

/// Why something has not been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// There is no backend; there may be one soon.
    Away,
    /// The backend does not want to, or must not.
    Refused,
}

impl<H: Hypervisor> BackedDevice<H> {
    /// A device called `name` in messages that interrupts by `irq`, and has no backend yet.
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
            wanted: None,
            link: Link::default(),
            away_until: None,
            pace: Pace::new(queues),
        }
    }

    /// For messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection to the backend, while there is one.
    #[must_use]
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.link.session().map(Session::as_fd)
    }

    /// Where the backend says that its configuration has changed, if it can.
    #[must_use]
    pub fn requests(&self) -> Option<BorrowedFd<'_>> {
        self.link.session().and_then(Session::requests)
    }

    /// The configuration, if the backend says that it has changed.
    fn changed_config(&mut self) -> Result<Option<Vec<u8>>, Lost> {
        let changed = self.link.session_mut().map(Session::changed_config);
        match self.judge(changed) {
            Ok(changed) => Ok(changed),
            Err(Failure::Away) => Ok(None),
            Err(Failure::Refused) => Err(self.give_up()),
        }
    }

    /// The event descriptors of the queues.
    #[must_use]
    pub fn notifiers(&self) -> &[Notifier] {
        &self.notifiers
    }

    /// Takes up a backend, and tells it what the driver wants.
    pub fn attach(&mut self, session: Session, process: Option<Process>) -> Result<(), Lost> {
        self.link.connect(session, process);
        self.pace.forget();
        self.run()
    }

    /// Tells the backend that no driver uses the device, if that is so: its hardware may still be as a driver left it that
    /// was reset, or whose guest ended, while there was no backend.
    pub fn tell_if_unused(&mut self) {
        if self.wanted.is_none() {
            let told = self.link.session_mut().map(Session::reset);
            let _ = self.judge(told);
        }
    }

    /// Whether a driver has started the device.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.wanted.is_some()
    }

    /// There is another backend in place of the one that there may be.
    pub fn supersede(&mut self) {
        if self.link.session().is_some() {
            self.miss("its backend has been replaced", true);
            self.link.take_news();
        }
    }

    /// The device cannot go on with what its driver has begun.
    fn refuse(&mut self, reason: &str) -> Lost {
        error!("{}: {reason}; the device needs a reset", self.name);
        self.give_up()
    }

    /// Something has come from the backend: the sign of life that it was asked for, or its end.
    pub fn hear(&mut self) {
        let Some(session) = self.link.session_mut() else { return };
        match session.hear() {
            Heard::Nothing | Heard::Answer => {}
            Heard::HangUp => self.miss("its backend has hung up", false),
            Heard::Noise => self.miss("its backend says what it was not asked", false),
        }
    }

    /// Whether [`Self::kicked`] has to be told when the driver kicks next, if the kernel lets it be seen.
    #[must_use]
    pub fn awaits_kick(&self) -> bool {
        let is_asked = self.link.session().is_none_or(|session| session.answer_by().is_some());
        self.wanted.is_some() && !is_asked && self.pace.is_at_rest()
    }

    /// From now on [`Self::kicked`] will be told.
    pub fn armed(&mut self) {
        if self.awaits_kick() {
            self.pace.armed(Instant::now(), progress(&self.views));
        }
    }

    /// The driver has kicked a queue.
    pub fn kicked(&mut self) {
        if self.awaits_kick() {
            self.pace.kicked(Instant::now(), progress(&self.views));
        }
    }

    /// When [`Self::attend`] may have something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let answer_by = self.link.session().and_then(Session::answer_by);
        let judged = answer_by.or(self.pace.deadline());
        [self.away_until, self.link.deadline(), judged].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn attend(&mut self, now: Instant) -> Result<(), Lost> {
        self.link.enforce(now);
        if self.away_until.is_some_and(|limit| limit <= now) {
            let limit = AWAY_LIMIT.as_secs();
            return Err(self.refuse(&format!("no backend serves it within {limit} s")));
        }
        self.judge_pace(now);
        Ok(())
    }

    /// Lets go of a backend that has not answered in time, and asks one whose queues stand still.
    fn judge_pace(&mut self, now: Instant) {
        let is_due = |session: &Session| session.answer_by().is_some_and(|answer_by| answer_by <= now);
        if self.link.session().is_some_and(is_due) {
            // The answer may be there already, if another device has held up this process.
            self.hear();
        }
        match self.link.session_mut() {
            Some(session) if is_due(session) => self.miss("its backend hangs", true),
            Some(session) if session.answer_by().is_none() => {
                if self.pace.check(now, progress(&self.views)) == Verdict::Ask
                    && let Err(error) = session.ask(now + pace::ANSWER)
                {
                    self.miss(&format!("its backend cannot be asked: {error}"), true);
                }
            }
            _ => {}
        }
    }

    /// Whether the connection has been cut since this was last asked.
    pub fn take_news(&mut self) -> bool {
        self.link.take_news()
    }

    /// The backend is gone or as good as that: from now on the driver waits for another.
    fn miss(&mut self, reason: &str, hangs: bool) {
        warn!("{}: {reason}", self.name);
        self.link.cut(hangs);
        self.pace.forget();
        self.await_backend();
    }

    fn await_backend(&mut self) {
        if self.wanted.is_some() {
            self.away_until.get_or_insert_with(|| Instant::now() + AWAY_LIMIT);
        }
    }

    /// Whether the backend has said since this was last asked that it cannot use a queue any more.
    fn take_failure(&self, queue: u16) -> bool {
        // The read fails if nothing has been said.
        self.notifiers.get(usize::from(queue)).is_some_and(|notifier| notifier.err.read().is_ok())
    }

    /// Nothing more is done for the driver until it resets the device.
    fn give_up(&mut self) -> Lost {
        self.let_wait();
        if self.link.session().is_some() {
            // It may be in the middle of what it refused.
            self.link.cut(false);
        }
        Lost
    }

    /// Whatever the driver wants, there is nothing to wait for.
    fn let_wait(&mut self) {
        self.wanted = None;
        self.away_until = None;
        self.pace.forget();
    }

    /// Has the backend stop, if there is one. If it does not by agreement it has to go, and has stopped as well.
    fn halt(&mut self) {
        self.let_wait();
        let stopped = self.link.session_mut().map(Session::stop);
        let _ = self.judge(stopped);
        // What it said of the queues belongs to the past then.
        for queue in (0..).take(self.notifiers.len()) {
            self.take_failure(queue);
        }
    }

    /// Takes a kick that nobody waits for.
    pub fn forget_kick(&self, queue: u16) {
        if let Some(notifier) = self.notifiers.get(usize::from(queue)) {
            // It fails if there is none.
            let _ = notifier.kick.read();
        }
    }

    /// What becomes of the backend by a call to it, if there is one.
    fn judge<T>(&mut self, called: Option<Result<T, SessionError>>) -> Result<T, Failure> {
        match called {
            None => Err(Failure::Away),
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) if error.is_refusal() => {
                error!("{}: {error}", self.name);
                self.link.cut(false);
                Err(Failure::Refused)
            }
            Some(Err(error)) => {
                self.miss(&error.to_string(), matches!(error, SessionError::Hangs(..)));
                Err(Failure::Away)
            }
        }
    }

    /// Has a backend do what the driver wants, now or when there is one.
    fn run(&mut self) -> Result<(), Lost> {
        let Some(wanted) = self.wanted.clone() else { return Ok(()) };
        match self.play(&wanted) {
            Ok(()) => {
                self.away_until = None;
                Ok(())
            }
            Err(Failure::Away) => {
                self.await_backend();
                Ok(())
            }
            Err(Failure::Refused) => Err(self.refuse("it cannot go on")),
        }
    }

    fn play(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        let Some(session) = self.link.session() else { return Err(Failure::Away) };
        if !wanted.is_fresh && !session.tracks_inflight() {
            self.check_nothing_outstanding(wanted)?;
        }
        let base = |ring: &Ring| if wanted.is_fresh { 0 } else { self.used_index(ring.index).unwrap_or(0) };
        let rings: Vec<_> = wanted.rings.iter().map(|ring| (*ring, base(ring))).collect();
        let start = Start {
            features: wanted.features,
            rings: &rings,
            notifiers: &self.notifiers,
            inflight: &self.inflight,
            is_fresh: wanted.is_fresh,
        };
        // From here on a backend may do requests, whether it comes to the end of this or not.
        self.wanted = Some(Wanted { is_fresh: false, ..wanted.clone() });
        let started = self.link.session_mut().map(|session| session.start(&start));
        self.judge(started)?;
        if !wanted.is_fresh {
            self.prompt(&rings);
        }
        self.pace.begin(Instant::now());
        Ok(())
    }

    /// Has both sides look at the rings: nobody knows which notification went with the former backend.
    fn prompt(&mut self, rings: &[(Ring, u16)]) {
        info!("{}: a new backend goes on", self.name);
        for (ring, _) in rings {
            self.kick(ring.index);
            if let Some(notifier) = self.notifiers.get(usize::from(ring.index)) {
                // It can only fail when 2⁶⁴ - 1 calls are pending already.
                let _ = notifier.call.write(1);
            }
        }
    }

    /// A backend that keeps no record of what it has taken leaves nobody to know what it had done of it. A request must not be
    /// repeated silently, and one that is never answered is no better.
    fn check_nothing_outstanding(&self, wanted: &Wanted) -> Result<(), Failure> {
        for ring in &wanted.rings {
            let view = self.views.get(usize::from(ring.index)).and_then(Option::as_ref);
            let Some(Progress { available, used }) = view.and_then(RingView::progress) else { continue };
            let outstanding = available.wrapping_sub(used);
            if outstanding != 0 {
                error!(
                    "{}: {outstanding} requests of queue {} were with the backend, which cannot say what it has done \
                     of them: it lacks the protocol feature INFLIGHT_SHMFD",
                    self.name, ring.index
                );
                return Err(Failure::Refused);
            }
        }
        Ok(())
    }

    fn map_view(&mut self, ring: &Ring) -> Result<(), Lost> {
        let view = RingView::map(&*self.hypervisor, ring).map_err(|error| {
            warn!("{}: the rings of queue {} cannot be mapped: {error}", self.name, ring.index);
            Lost
        })?;
        if let Some(place) = self.views.get_mut(usize::from(ring.index)) {
            *place = Some(view);
        }
        Ok(())
    }

    fn begin(&mut self, features: u64, rings: &[Ring], is_fresh: bool) -> Result<(), Lost> {
        let mapped = rings.iter().try_for_each(|ring| self.map_view(ring));
        if mapped.is_err() {
            self.views.fill_with(|| None);
            return mapped;
        }
        self.wanted = Some(Wanted { features, rings: rings.to_vec(), is_fresh });
        self.run()
    }
}

/// How far each queue is, where one is in use.
fn progress<M: Mapping>(views: &[Option<RingView<M>>]) -> impl Fn(usize) -> Option<Progress> {
    |queue| views.get(queue)?.as_ref()?.progress()
}

impl<H: Hypervisor> Transport<BackedDevice<H>> {
    /// The backend has something to say, which can only be that its configuration has changed: the driver hears of it.
    pub fn backend_speaks(&mut self) {
        match self.device_mut().changed_config() {
            Ok(Some(config)) => self.config_changed(config),
            Ok(None) => {}
            Err(Lost) => self.device_lost(),
        }
    }

    /// The backend says that it cannot use `queue` any more. As it works, it is kept; but the device is stopped, as if its
    /// driver had reset it, until it does.
    pub fn queue_failed(&mut self, queue: u16) {
        let device = self.device_mut();
        if device.take_failure(queue) && device.is_in_use() {
            warn!("{}: its driver has made queue {queue} unusable; the device needs a reset", device.name);
            self.device_lost();
        }
    }
}

impl<H: Hypervisor> Device for BackedDevice<H> {
    fn start(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        self.begin(features, rings, true)
    }

    fn resume(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        self.begin(features, rings, false)
    }

    fn stop(&mut self) {
        // Whatever was kicked and not noticed belongs to the past.
        (0..).take(self.notifiers.len()).for_each(|queue| self.forget_kick(queue));
        self.halt();
        self.views.fill_with(|| None);
        self.link.settle(&self.name);
    }

    fn begin_anew(&mut self, queue: Option<u16>) -> Result<(), Lost> {
        let emptied = match queue {
            None => self.inflight.clear(),
            Some(queue) => self.inflight.forget(queue),
        };
        emptied
            .map_err(|error| self.refuse(&format!("the record of requests in flight is not usable: {error}")))
    }

    fn abandon(&mut self) -> Vec<Option<u16>> {
        self.halt();
        let used = self.views.iter().map(|view| view.as_ref().and_then(RingView::used)).collect();
        self.views.fill_with(|| None);
        used
    }

    fn start_queue(&mut self, ring: &Ring) -> Result<(), Lost> {
        self.map_view(ring)?;
        if let Some(wanted) = &mut self.wanted {
            wanted.rings.push(*ring);
        }
        let notifiers = &self.notifiers;
        let started = self.link.session_mut().map(|session| session.start_queue(ring, notifiers));
        match self.judge(started) {
            Ok(()) | Err(Failure::Away) => Ok(()),
            Err(Failure::Refused) => Err(self.give_up()),
        }
    }

    fn stop_queue(&mut self, queue: u16) -> Result<(), Lost> {
        if let Some(view) = self.views.get_mut(usize::from(queue)) {
            *view = None;
        }
        if let Some(wanted) = &mut self.wanted {
            wanted.rings.retain(|ring| ring.index != queue);
        }
        let stopped = self.link.session_mut().map(|session| session.stop_queue(queue));
        let stopped = self.judge(stopped);
        self.link.settle(&self.name);
        self.take_failure(queue);
        match stopped {
            Ok(()) | Err(Failure::Away) => Ok(()),
            Err(Failure::Refused) => Err(self.give_up()),
        }
    }

    fn kick(&mut self, queue: u16) {
        let Some(notifier) = self.notifiers.get(usize::from(queue)) else { return };
        // It can only fail when 2⁶⁴ - 1 kicks are pending already.
        let _ = notifier.kick.write(1);
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        let written = self.link.session_mut().map(|session| session.write_config(offset, bytes));
        match self.judge(written) {
            Ok(written) => Ok(written),
            Err(Failure::Away) => Ok(None),
            Err(Failure::Refused) => Err(self.give_up()),
        }
    }

    fn used_index(&self, queue: u16) -> Option<u16> {
        self.views.get(usize::from(queue))?.as_ref()?.used()
    }

    fn interrupt(&mut self) {
        match self.hypervisor.raise(self.irq) {
            Ok(()) => debug!("{}: interrupt", self.name),
            Err(error) => error!("{}: cannot raise interrupt {}: {error}", self.name, self.irq),
        }
    }
}

/// Gives a device that was served before another backend, which has to be like the one that it had if the driver is to go on.
pub fn replace_backend<H: Hypervisor>(
    transport: &mut Transport<BackedDevice<H>>,
    session: Session,
    offer: Offer,
    process: Option<Process>,
) {
    transport.backend_replaced(session.offered(), offer.config);
    if transport.device_mut().attach(session, process).is_err() {
        transport.device_lost();
    }
    transport.device_mut().tell_if_unused();
}

#[cfg(test)]
mod tests;
