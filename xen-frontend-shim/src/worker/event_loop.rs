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
use crate::window::Window;

/// The source of an event, by the numbers of device and queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Source {
    /// The event channels: vCPUs have trapped.
    Traps,
    /// The control socket: a message of the supervisor, or its end.
    Control,
    /// The connection to a backend: a reply, or the end of the backend.
    Backend(u16),
    /// The channel on which a backend sends requests.
    BackendRequest(u16),
    /// A backend has used buffers of a queue whose interrupts the kernel does not pass on.
    Call(u16, u16),
    /// A backend cannot use a queue any more (SET_VRING_ERR).
    Err(u16, u16),
    /// A queue has been kicked while the worker watched for it.
    Kick(u16, u16),
    /// The timer has expired; the deadline that it was set for may not exist any more.
    Alarm,
}

/// The kick eventfd of a queue. The backend reads it; the worker watches it for one event at a time, only
/// while it needs that event.
struct Kick {
    device: u16,
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

/// A timer that is set for a deadline and not cleared when the deadline is gone.
///
/// Nearly every deadline is that of a request, and is gone within microseconds. A wait with a time limit
/// would set and clear the kernel's timer for each of them; this timer expires in vain once every few
/// seconds.
struct Alarm {
    timer: TimerFd,
    expires_at: Option<Instant>,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        Ok(Self { timer: TimerFd::new()?, expires_at: None })
    }

    /// Sets the timer to expire at `deadline`, unless it expires earlier.
    fn set(&mut self, deadline: Instant) -> io::Result<()> {
        if self.expires_at.is_some_and(|expires_at| expires_at <= deadline) {
            return Ok(());
        }
        // A duration of zero would stop it.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        self.timer.reset(left, None)?;
        self.expires_at = Some(deadline);
        Ok(())
    }

    /// Clears the timer after it has expired.
    fn clear(&mut self) -> io::Result<()> {
        self.expires_at = None;
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

    /// Watches the event channels.
    pub(super) fn watch_traps(&self, traps: &impl AsFd) -> io::Result<()> {
        self.watch(traps, EventSet::IN, Source::Traps)
    }

    /// Watches the connection to the backend of a device until it is closed.
    pub(super) fn watch_backend(&self, device: u16, connection: &impl AsFd) -> io::Result<()> {
        self.watch(connection, EventSet::IN | EventSet::READ_HANG_UP, Source::Backend(device))
    }

    /// Watches the channel on which the backend of a device sends requests, until it is closed.
    pub(super) fn watch_backend_requests(&self, number: u16, window: &Window<Served>) -> io::Result<()> {
        match window.device().channel() {
            Some(channel) => self.watch(&channel, EventSet::IN, Source::BackendRequest(number)),
            None => Ok(()),
        }
    }

    /// Watches the eventfds of a device: errors, kicks while they are armed, and the calls of the queues that
    /// are `polled`.
    pub(super) fn watch_queues(
        &mut self,
        number: u16,
        window: &Window<Served>,
        polled: &[bool],
    ) -> io::Result<()> {
        let notifiers = || (0..).zip(window.device().notifiers());
        for ((queue, notifier), _) in notifiers().zip(polled).filter(|(_, polled)| **polled) {
            self.watch_raw(notifier.call.as_raw_fd(), EventSet::IN, Source::Call(number, queue))?;
        }
        for (queue, notifier) in notifiers() {
            self.watch_raw(notifier.err.as_raw_fd(), EventSet::IN, Source::Err(number, queue))?;
            let fd = notifier.kick.as_raw_fd();
            self.watch_raw(fd, EventSet::ONE_SHOT, Source::Kick(number, queue))?;
            self.kicks.push(Kick { device: number, queue, fd, is_armed: false });
        }
        Ok(())
    }

    /// Stops watching the eventfds of a device that is removed: other processes keep them open.
    pub(super) fn unwatch_queues(&mut self, number: u16, window: &Window<Served>) -> io::Result<()> {
        for notifier in window.device().notifiers() {
            for eventfd in [&notifier.kick, &notifier.call] {
                // Calls that the kernel passes on are not in the set.
                self.epoll.remove(eventfd)?;
            }
        }
        self.kicks.retain(|kick| kick.device != number);
        Ok(())
    }

    /// Arms the kicks that would start a device, or would be the first after an idle time.
    pub(super) fn arm_kicks(&mut self, bus: &mut Bus<Served>) -> io::Result<()> {
        for kick in self.kicks.iter_mut().filter(|kick| !kick.is_armed) {
            if let Some(window) = bus.window_mut(kick.device)
                && (window.transport().awaits_early_kick() || window.device().awaits_kick())
            {
                let source = Source::Kick(kick.device, kick.queue);
                self.epoll.modify(&kick.fd, EventSet::IN | EventSet::ONE_SHOT, &source)?;
                kick.is_armed = true;
                window.device_mut().kick_armed();
            }
        }
        Ok(())
    }

    /// Notes that the armed kick of a queue has come.
    pub(super) fn disarm(&mut self, device: u16, queue: u16) {
        let mut kicks = self.kicks.iter_mut();
        if let Some(kick) = kicks.find(|kick| (kick.device, kick.queue) == (device, queue)) {
            kick.is_armed = false;
        }
    }

    fn watch(&self, fd: &impl AsFd, events: EventSet, source: Source) -> io::Result<()> {
        self.watch_raw(fd.as_fd().as_raw_fd(), events, source)
    }

    fn watch_raw(&self, fd: RawFd, events: EventSet, source: Source) -> io::Result<()> {
        self.epoll.add(&fd, events, &source)
    }

    /// Waits for events, at most until `deadline`, and adds them to `ready`.
    pub(super) fn wait(&mut self, deadline: Option<Instant>, ready: &mut Vec<Source>) -> io::Result<()> {
        if let Some(deadline) = deadline {
            self.alarm.set(deadline)?;
        }
        self.epoll.wait(None, ready)?;
        if ready.contains(&Source::Alarm) {
            self.alarm.clear()?;
        }
        Ok(())
    }
}
