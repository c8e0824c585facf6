// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a worker waits for, and what it does then.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

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
}

/// The loop of one worker.
pub(super) struct EventLoop {
    epoll: Epoll,
    sources: Vec<Source>,
}

impl EventLoop {
    pub(super) fn new(traps: &impl AsFd, control: &impl AsFd) -> io::Result<Self> {
        let mut event_loop = Self { epoll: Epoll::new()?, sources: Vec::new() };
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
        Ok(())
    }

    fn watch(&mut self, fd: &impl AsFd, events: EventSet, source: Source) -> io::Result<()> {
        self.watch_raw(fd.as_fd().as_raw_fd(), events, source)
    }

    fn watch_raw(&mut self, fd: i32, events: EventSet, source: Source) -> io::Result<()> {
        let token = u64::try_from(self.sources.len()).map_err(io::Error::other)?;
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, token))?;
        self.sources.push(source);
        Ok(())
    }

    /// Serves until the supervisor hangs up.
    pub(super) fn run(&self, guest: &XenGuest, bus: &mut Bus<Served>) -> io::Result<()> {
        // Requests may wait already, and channels be masked, if another worker was here before.
        for vcpu in 0..u32::try_from(guest.ports().len()).unwrap_or(u32::MAX) {
            bus.serve(guest, vcpu);
        }
        guest.rearm(guest.ports())?;
        let mut events = [EpollEvent::default(); 16];
        loop {
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
