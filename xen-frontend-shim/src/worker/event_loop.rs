// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a worker waits for, and what it does then.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use log::warn;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::Served;
use crate::hypervisor::xen::XenGuest;
use crate::ioreq::Bus;
use crate::ioreq::bus::{Occupant, Window};
use crate::virtio_mmio::Device;

/// What an event is about.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// vCPUs have trapped.
    Traps,
    /// The supervisor has hung up.
    Control,
    /// The backend of a window has hung up.
    Backend(usize),
    /// A backend has used buffers of a queue, and the kernel does not see to the interrupt.
    Call(usize, usize),
    /// A queue has been kicked that may not be in use yet.
    EarlyKick(usize, u16),
}

/// The kick of a queue that starts its device. It is watched only while it would: an event of it comes once and has to
/// be asked for again.
struct EarlyKick {
    window: usize,
    fd: RawFd,
    token: u64,
    is_armed: bool,
}

/// The loop of one worker.
pub(super) struct EventLoop {
    epoll: Epoll,
    sources: Vec<Source>,
    early_kicks: Vec<EarlyKick>,
}

impl EventLoop {
    pub(super) fn new(traps: &impl AsFd, control: &impl AsFd) -> io::Result<Self> {
        let mut event_loop = Self { epoll: Epoll::new()?, sources: Vec::new(), early_kicks: Vec::new() };
        event_loop.watch(traps, EventSet::IN, Source::Traps)?;
        event_loop.watch(control, EventSet::READ_HANG_UP, Source::Control)?;
        Ok(event_loop)
    }

    /// Watches the backend of a window, and those of its calls that are `polled`.
    pub(super) fn watch_window(
        &mut self,
        index: usize,
        window: &Window<Served>,
        polled: &[bool],
    ) -> io::Result<()> {
        let Occupant::Device(transport) = &window.occupant else { return Ok(()) };
        if let Some(connection) = transport.device().connection() {
            self.watch(&connection, EventSet::READ_HANG_UP, Source::Backend(index))?;
        }
        for (queue, (notifier, polled)) in transport.device().notifiers().iter().zip(polled).enumerate() {
            if *polled {
                self.watch_raw(notifier.call.as_raw_fd(), EventSet::IN, Source::Call(index, queue))?;
            }
        }
        if transport.starts_by_kick() {
            for (queue, notifier) in (0..).zip(transport.device().notifiers()) {
                let fd = notifier.kick.as_raw_fd();
                let token = self.watch_raw(fd, EventSet::ONE_SHOT, Source::EarlyKick(index, queue))?;
                self.early_kicks.push(EarlyKick { window: index, fd, token, is_armed: false });
            }
        }
        Ok(())
    }

    /// Watches for the kicks that would start a device now.
    fn arm_early_kicks(&mut self, bus: &mut Bus<Served>) -> io::Result<()> {
        let windows = bus.windows_mut();
        for kick in self.early_kicks.iter_mut().filter(|kick| !kick.is_armed) {
            let occupant = windows.get(kick.window).map(|window| &window.occupant);
            if matches!(occupant, Some(Occupant::Device(transport)) if transport.awaits_early_kick()) {
                let event = EpollEvent::new(EventSet::IN | EventSet::ONE_SHOT, kick.token);
                self.epoll.ctl(ControlOperation::Modify, kick.fd, event)?;
                kick.is_armed = true;
            }
        }
        Ok(())
    }

    fn kicked_early(&mut self, bus: &mut Bus<Served>, token: u64, index: usize, queue: u16) {
        for kick in self.early_kicks.iter_mut().filter(|kick| kick.token == token) {
            kick.is_armed = false;
        }
        if let Some(Occupant::Device(transport)) =
            bus.windows_mut().get_mut(index).map(|window| &mut window.occupant)
        {
            transport.kicked_early(queue);
        }
    }

    fn watch(&mut self, fd: &impl AsFd, events: EventSet, source: Source) -> io::Result<()> {
        self.watch_raw(fd.as_fd().as_raw_fd(), events, source).map(drop)
    }

    fn watch_raw(&mut self, fd: RawFd, events: EventSet, source: Source) -> io::Result<u64> {
        let token = u64::try_from(self.sources.len()).map_err(io::Error::other)?;
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, token))?;
        self.sources.push(source);
        Ok(token)
    }

    /// Serves until the supervisor hangs up.
    pub(super) fn run(&mut self, guest: &XenGuest, bus: &mut Bus<Served>) -> io::Result<()> {
        // Requests may wait already, and channels be masked, if another worker was here before.
        for vcpu in 0..u32::try_from(guest.ports().len()).unwrap_or(u32::MAX) {
            bus.serve(guest, vcpu);
        }
        guest.rearm(guest.ports())?;
        let mut events = [EpollEvent::default(); 16];
        loop {
            self.arm_early_kicks(bus)?;
            let count = match self.epoll.wait(-1, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            for event in events.iter().take(count) {
                let source = usize::try_from(event.data()).ok().and_then(|token| self.sources.get(token));
                match source.copied() {
                    Some(Source::Traps) => serve(guest, bus)?,
                    Some(Source::Control) => return Ok(()),
                    Some(Source::Backend(index)) => hung_up(bus, index),
                    Some(Source::Call(index, queue)) => called(bus, index, queue),
                    Some(Source::EarlyKick(index, queue)) => {
                        self.kicked_early(bus, event.data(), index, queue);
                    }
                    None => {}
                }
            }
        }
    }
}

/// Serves the vCPUs that have trapped. Their channels stay masked until the kernel is told, also when it was the kernel
/// that answered.
fn serve(guest: &XenGuest, bus: &mut Bus<Served>) -> io::Result<()> {
    let ports = guest.fired()?;
    for port in &ports {
        if let Some(vcpu) = guest.vcpu(*port) {
            bus.serve(guest, vcpu);
        }
    }
    guest.rearm(&ports)
}

fn hung_up(bus: &mut Bus<Served>, index: usize) {
    let Some(window) = bus.windows_mut().get_mut(index) else { return };
    if let Occupant::Device(transport) = &mut window.occupant
        && transport.device_mut().backend_hung_up()
    {
        transport.device_lost();
    }
}

fn called(bus: &mut Bus<Served>, index: usize, queue: usize) {
    let Some(window) = bus.windows_mut().get_mut(index) else { return };
    let Occupant::Device(transport) = &mut window.occupant else { return };
    let device = transport.device_mut();
    let call = device.notifiers().get(queue).map(|notifier| notifier.call.read());
    match call {
        Some(Ok(_)) => device.interrupt(),
        // Somebody was faster.
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
        Some(Err(error)) => warn!("{}: queue {queue}: {error}", device.name()),
        None => {}
    }
}
