// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a worker waits for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::Served;
use crate::epoll::EpollSet;
use crate::ioreq::Bus;
use crate::ioreq::bus::{Occupant, Window};

/// What an event is about. Windows and queues have their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Source {
    /// vCPUs have trapped.
    Traps,
    /// The supervisor has something, or has hung up.
    Control,
    /// The backend of a window has said something, or has hung up.
    Backend(u16),
    /// The backend of a window has something to say of its own accord.
    Requests(u16),
    /// A backend has used buffers of a queue, and the kernel does not see to the interrupt.
    Call(u16, u16),
    /// A backend cannot use a queue any more.
    Err(u16, u16),
    /// A queue has been kicked, and somebody here waits for that.
    Kick(u16, u16),
    /// A deadline has passed that somebody had when the alarm was set.
    Alarm,
}

/// The kick of a queue, which is the backend's to read. It is watched only while somebody here waits for it: an event of it
/// comes once and has to be asked for again.
struct Kick {
    window: u16,
    queue: u16,
    fd: RawFd,
    is_armed: bool,
}

/// The loop of one worker.
pub(super) struct EventLoop {
    epoll: EpollSet<Source>,
    kicks: Vec<Kick>,
    alarm: Alarm,
}

/// A timer that is set when a deadline needs it, and is not set back when the deadline is gone.
///
/// Nearly every deadline is that of a request, and gone within microseconds. A wait with a timeout would set the kernel's
/// timer and set it back for each of them; this one rings in vain once every few seconds.
struct Alarm {
    timer: TimerFd,
    rings_at: Option<Instant>,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        Ok(Self { timer: TimerFd::new()?, rings_at: None })
    }

    /// Sees to it that it rings at `deadline`, or before.
    fn set(&mut self, deadline: Instant) -> io::Result<()> {
        if self.rings_at.is_some_and(|rings_at| rings_at <= deadline) {
            return Ok(());
        }
        // A duration of zero would stop it.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        self.timer.reset(left, None)?;
        self.rings_at = Some(deadline);
        Ok(())
    }

    /// It has rung.
    fn silence(&mut self) -> io::Result<()> {
        self.rings_at = None;
        self.timer.wait()?;
        Ok(())
    }
}

impl EventLoop {
    pub(super) fn new(control: &impl AsFd) -> io::Result<Self> {
        let event_loop = Self { epoll: EpollSet::new()?, kicks: Vec::new(), alarm: Alarm::new()? };
        event_loop.watch(control, EventSet::IN, Source::Control)?;
        event_loop.watch_raw(event_loop.alarm.timer.as_raw_fd(), EventSet::IN, Source::Alarm)?;
        Ok(event_loop)
    }

    /// Watches for traps.
    pub(super) fn watch_traps(&self, traps: &impl AsFd) -> io::Result<()> {
        self.watch(traps, EventSet::IN, Source::Traps)
    }

    /// Watches the connection to the backend of a window, until it is closed.
    pub(super) fn watch_backend(&self, window: u16, connection: &impl AsFd) -> io::Result<()> {
        self.watch(connection, EventSet::IN | EventSet::READ_HANG_UP, Source::Backend(window))
    }

    /// Watches what the backend of a window says of its own accord, until it is let go of.
    pub(super) fn watch_requests(&self, index: u16, window: &Window<Served>) -> io::Result<()> {
        let Occupant::Device(transport) = &window.occupant else { return Ok(()) };
        match transport.device().channel() {
            Some(channel) => self.watch(&channel, EventSet::IN, Source::Requests(index)),
            None => Ok(()),
        }
    }

    /// Watches the event descriptors of a window in which there is a device now: those of its calls that are `polled`, those
    /// of errors, and its kicks, when somebody waits for them.
    pub(super) fn watch_queues(
        &mut self,
        index: u16,
        window: &Window<Served>,
        polled: &[bool],
    ) -> io::Result<()> {
        let Occupant::Device(transport) = &window.occupant else { return Ok(()) };
        let notifiers = || (0..).zip(transport.device().notifiers());
        for ((queue, notifier), _) in notifiers().zip(polled).filter(|(_, polled)| **polled) {
            self.watch_raw(notifier.call.as_raw_fd(), EventSet::IN, Source::Call(index, queue))?;
        }
        for (queue, notifier) in notifiers() {
            self.watch_raw(notifier.err.as_raw_fd(), EventSet::IN, Source::Err(index, queue))?;
            let fd = notifier.kick.as_raw_fd();
            self.watch_raw(fd, EventSet::ONE_SHOT, Source::Kick(index, queue))?;
            self.kicks.push(Kick { window: index, queue, fd, is_armed: false });
        }
        Ok(())
    }

    /// Watches the event descriptors of a window no more, which is to be closed here but is open elsewhere.
    pub(super) fn forget_queues(&mut self, index: u16, window: &Window<Served>) -> io::Result<()> {
        let Occupant::Device(transport) = &window.occupant else { return Ok(()) };
        for notifier in transport.device().notifiers() {
            for eventfd in [&notifier.kick, &notifier.call] {
                // Calls from which the kernel makes interrupts are not in the set.
                self.epoll.remove(eventfd)?;
            }
        }
        self.kicks.retain(|kick| kick.window != index);
        Ok(())
    }

    /// Watches for the kicks that would start a device now, or would be the first after a rest.
    pub(super) fn arm_kicks(&mut self, bus: &mut Bus<Served>) -> io::Result<()> {
        for kick in self.kicks.iter_mut().filter(|kick| !kick.is_armed) {
            let occupant = bus.window_mut(kick.window).map(|window| &mut window.occupant);
            if let Some(Occupant::Device(transport)) = occupant
                && (transport.awaits_early_kick() || transport.device().awaits_kick())
            {
                let source = Source::Kick(kick.window, kick.queue);
                self.epoll.modify(&kick.fd, EventSet::IN | EventSet::ONE_SHOT, &source)?;
                kick.is_armed = true;
                transport.device_mut().kick_armed();
            }
        }
        Ok(())
    }

    /// A kick has come that is not watched any more.
    pub(super) fn disarm(&mut self, window: u16, queue: u16) {
        let mut kicks = self.kicks.iter_mut();
        if let Some(kick) = kicks.find(|kick| (kick.window, kick.queue) == (window, queue)) {
            kick.is_armed = false;
        }
    }

    fn watch(&self, fd: &impl AsFd, events: EventSet, source: Source) -> io::Result<()> {
        self.watch_raw(fd.as_fd().as_raw_fd(), events, source)
    }

    fn watch_raw(&self, fd: RawFd, events: EventSet, source: Source) -> io::Result<()> {
        self.epoll.add(&fd, events, &source)
    }

    /// Waits for events, of which the alarm is one not later than `deadline`, and adds to `ready` what has happened.
    pub(super) fn wait(&mut self, deadline: Option<Instant>, ready: &mut Vec<Source>) -> io::Result<()> {
        if let Some(deadline) = deadline {
            self.alarm.set(deadline)?;
        }
        self.epoll.wait(None, ready)?;
        if ready.contains(&Source::Alarm) {
            self.alarm.silence()?;
        }
        Ok(())
    }
}
