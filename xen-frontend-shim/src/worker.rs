// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The process that serves one guest: its traps, its windows and the connections to its backends.
//!
//! ```text
//!   handoff ──▶ event loop: control socket ──▶ devices, each with a window ──▶ their backends ──▶ Ready
//!                           event channels │ backends │ (calls) │ (kicks)
//! ```
//!
//! What a driver writes is stored before its access is answered, so that another worker can continue from it
//! ([`crate::window`]). A worker serves one guest, so its failure affects no other; it ends when the
//! supervisor ends.

mod device_slot;
mod event_loop;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use confinement::Enforcement;
use confinement::role::worker::WorkerRole as Role;
use log::{error, info, warn};
use thiserror::Error;
use xen_bindings::{DomId, Evtchn, Gntdev, IoreqServerId, Port, Privcmd};

use crate::assignment::Assignment;
use crate::control::{Control, Delivery, Order, Report};
use crate::device::{self, BackedDevice};
use crate::handoff::{Handoff, HandoffError, InheritedFds};
use crate::hypervisor::Hypervisor;
use crate::hypervisor::xen::XenGuest;
use crate::ioreq::Bus;
use crate::ioreq::bus::Region;
use crate::memory::GuestMemory;
use crate::virtio_mmio::Device;

use device_slot::DeviceSlot;
use event_loop::{EventLoop, Source};

/// The device behind a window.
type Served = BackedDevice<XenGuest>;

/// How long a guest waits for its backends when it starts. A backend at a socket may start later than the
/// worker.
const START_LIMIT: Duration = Duration::from_secs(10);

/// The process.
struct Worker {
    guest: Rc<XenGuest>,
    domid: u16,
    /// The memory of the guest that backends reach.
    memory: GuestMemory,
    control: Rc<Control>,
    /// By the numbers of the devices.
    slots: BTreeMap<u16, DeviceSlot>,
    bus: Bus<Served>,
    event_loop: EventLoop,
    /// Until when the guest waits for its devices, while it does.
    settled_by: Option<Instant>,
    /// Whether the guest's accesses are answered.
    is_serving: bool,
    is_first: bool,
    is_running: bool,
}

/// Errors that end a worker.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The inherited descriptors are not as described.
    #[error("{0}")]
    Handoff(#[from] HandoffError),
    /// The process cannot be confined.
    #[error("{0}")]
    Confinement(#[from] confinement::Error),
}

/// Serves the guest that `handoff` describes until the supervisor closes the control socket.
pub fn run(inherited: &InheritedFds, handoff: &Handoff, seccomp: Enforcement) -> Result<(), WorkerError> {
    let maps_ram = !handoff.memory.is_empty();
    let role = Role { logs_to_file: logging::is_to_file(), maps_ram };
    role.enter()?;
    let control = inherited.control()?;
    let guest = Rc::new(adopt(inherited, handoff)?);
    let mut worker = Worker {
        event_loop: EventLoop::new(&control)?,
        guest,
        control: Rc::new(control),
        slots: BTreeMap::new(),
        bus: Bus::default(),
        settled_by: None,
        is_serving: false,
        domid: handoff.domid,
        memory: handoff.memory.clone().into(),
        is_first: handoff.is_first,
        is_running: handoff.is_running,
    };
    // The ioreq page is mapped and has not been read.
    role.enforce(seccomp)?;
    Ok(worker.serve()?)
}

fn adopt(inherited: &InheritedFds, handoff: &Handoff) -> Result<XenGuest, WorkerError> {
    Ok(XenGuest::adopt(
        DomId::new(handoff.domid),
        IoreqServerId::new(handoff.server),
        Privcmd::from_fd(inherited.take(handoff.privcmd)?),
        Evtchn::from_fd(inherited.take(handoff.evtchn)?),
        Gntdev::from_fd(inherited.take(handoff.gntdev)?),
        handoff.ports.iter().copied().map(Port::new).collect(),
    )?)
}

impl Worker {
    /// Serves until the supervisor closes the control socket.
    fn serve(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.settle()?;
            self.event_loop.arm_kicks(&mut self.bus)?;
            let deadline = self.deadline()?;
            self.event_loop.wait(deadline, &mut ready)?;
            for source in ready.drain(..) {
                match source {
                    Source::Alarm => self.run_timers(Instant::now())?,
                    Source::Traps => self.serve_traps()?,
                    Source::Control => match self.control.receive_order()? {
                        Some(Order::Assign(number, assignment)) => self.assign(number, assignment)?,
                        Some(Order::Begin) => self.settled_by = Some(Instant::now() + START_LIMIT),
                        Some(Order::Deliver(delivery)) => self.receive_backend(delivery)?,
                        Some(Order::Release(number)) => self.release(number)?,
                        Some(Order::GuestGone) => self.guest_gone(),
                        None => return Ok(()),
                    },
                    Source::Backend(number) => self.poll_backend(number)?,
                    Source::BackendRequest(number) => self.handle_backend_request(number),
                    Source::Call(number, queue) => self.handle_call(number, queue),
                    Source::Kick(number, queue) => self.handle_kick(number, queue),
                    Source::Err(number, queue) => self.handle_queue_error(number, queue),
                }
            }
        }
    }

    /// Takes over a device, which a former worker may have served.
    fn assign(&mut self, number: u16, assignment: Assignment) -> io::Result<()> {
        let mut slot = DeviceSlot::new(self.domid, self.memory.clone(), assignment, self.killer(number))?;
        let window = slot.restore(&self.guest);
        if let Some(window) = &window {
            self.event_loop.watch_queues(number, window, &slot.polled_calls)?;
        }
        self.bus.insert(number, Region { base: slot.base(), doorbells: slot.doorbells(), window });
        self.slots.insert(number, slot);
        if self.is_serving {
            self.settled_by = Some(Instant::now() + START_LIMIT);
        }
        Ok(())
    }

    /// Requests of the supervisor that it kills the backend of a device.
    fn killer(&self, number: u16) -> Rc<dyn Fn()> {
        let control = Rc::clone(&self.control);
        Rc::new(move || {
            if let Err(error) = control.report(Report::Kill(number)) {
                warn!("cannot request that a backend is killed: {error}");
            }
        })
    }

    /// Removes a device, unless a driver uses it. Its backend ends with the connection.
    fn release(&mut self, number: u16) -> io::Result<()> {
        let Some(region) = self.bus.region_mut(number) else { return Ok(()) };
        if let Some(window) = &region.window {
            if window.state().has_driver() {
                return Ok(self.control.report(Report::Kept(number))?);
            }
            self.event_loop.unwatch_queues(number, window)?;
        }
        self.bus.remove(number);
        self.slots.remove(&number);
        Ok(self.control.report(Report::Released(number))?)
    }

    /// The next deadline of all devices. Reports the devices that have lost their backends.
    fn deadline(&mut self) -> io::Result<Option<Instant>> {
        let mut deadline = self.slots.values().filter_map(DeviceSlot::deadline).chain(self.settled_by).min();
        for (number, window) in self.bus.windows_mut() {
            let device = window.device_mut();
            deadline = deadline.into_iter().chain(device.deadline()).min();
            if device.take_disconnected() {
                self.control.report(Report::Lost(number))?;
            }
        }
        Ok(deadline)
    }

    /// Does what is due at `now`.
    fn run_timers(&mut self, now: Instant) -> io::Result<()> {
        let overdue = self.slots.iter().filter(|(_, slot)| slot.is_overdue(now));
        for number in overdue.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.dismiss(number, &"its backend does not answer")?;
        }
        for (_, window) in self.bus.windows_mut() {
            if window.device_mut().run_timers(now).is_err() {
                window.device_lost();
            }
        }
        Ok(())
    }

    /// Reports that the guest can run, as soon as every device has a backend, is known to have none, or has
    /// been waited for.
    ///
    /// Before the first report no access is answered: a device without a backend would seem to be absent.
    fn settle(&mut self) -> io::Result<()> {
        let Some(deadline) = self.settled_by else { return Ok(()) };
        for slot in self.slots.values_mut().filter(|slot| !slot.is_settled && deadline <= Instant::now()) {
            error!("{}: absent: no backend serves it within {} s", slot.name(), START_LIMIT.as_secs());
            slot.is_settled = true;
        }
        if !self.slots.values().all(|slot| slot.is_settled) {
            return Ok(());
        }
        self.settled_by = None;
        if !std::mem::replace(&mut self.is_serving, true) {
            self.take_over()?;
            self.event_loop.watch_traps(&*self.guest)?;
            self.guest.rearm_all()?;
        }
        Ok(self.control.report(Report::Ready)?)
    }

    /// Answers the requests that a former worker has left. It may have ended before it claimed a request,
    /// before it answered it, or before it notified Xen of the answer.
    ///
    /// After a former supervisor, kicks wait as well: the kernel has not served them since, and cannot now,
    /// as the channels are masked.
    fn take_over(&mut self) -> io::Result<()> {
        for vcpu in 0..self.guest.vcpus() {
            self.bus.serve_left_behind(&*self.guest, vcpu);
            if self.is_first {
                self.bus.serve_for_kernel(&*self.guest, vcpu);
            } else {
                self.bus.serve(&*self.guest, vcpu);
            }
        }
        self.guest.wake_answered()
    }

    /// Resets all devices, since the guest has ended: nothing of it stays mapped, and its outputs become
    /// safe.
    fn guest_gone(&mut self) {
        self.bus.windows_mut().for_each(|(_, window)| window.guest_gone());
        info!("all devices are reset, since the guest has ended");
    }

    /// Serves the vCPUs that have trapped. Their channels stay masked until they are armed again, even those
    /// whose requests the kernel has answered.
    fn serve_traps(&mut self) -> io::Result<()> {
        let fired = self.guest.fired()?;
        for port in fired.ports() {
            if let Some(vcpu) = self.guest.vcpu(port) {
                self.bus.serve(&*self.guest, vcpu);
            }
        }
        self.guest.rearm(&fired)
    }

    /// Receives the connection to a backend that the supervisor has started, or the message that there is
    /// none.
    fn receive_backend(&mut self, delivery: Delivery) -> io::Result<()> {
        let number = delivery.device;
        let Some(slot) = self.slots.get_mut(&number) else { return Ok(()) };
        let Some(connection) = delivery.backend else {
            if !std::mem::replace(&mut slot.is_settled, true) {
                error!("{}: it has no backend, and the guest does not wait for one", slot.name());
            }
            return Ok(());
        };
        if let Some(window) = self.bus.window_mut(number) {
            window.device_mut().disconnect_replaced();
        }
        self.event_loop.watch_backend(number, &connection.socket)?;
        match slot.receive(connection) {
            Ok(()) => Ok(()),
            Err(error) => self.dismiss(number, &error),
        }
    }

    /// Reads a message of a backend: of one that is not connected to its device yet, or of the one that
    /// serves it.
    fn poll_backend(&mut self, number: u16) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(&number) else { return Ok(()) };
        match slot.poll_reply() {
            Some(Ok(false)) => Ok(()),
            Some(Ok(true)) => self.admit(number),
            Some(Err(error)) => self.dismiss(number, &error),
            None => {
                if let Some(window) = self.bus.window_mut(number) {
                    window.device_mut().poll_backend();
                }
                Ok(())
            }
        }
    }

    /// Connects a backend that has replied to its first ping.
    fn admit(&mut self, number: u16) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(&number) else { return Ok(()) };
        let Some(region) = self.bus.region_mut(number) else { return Ok(()) };
        let was_absent = region.window.is_none();
        if let Err(error) = slot.admit(&mut region.window, &self.guest) {
            return self.dismiss(number, &error);
        }
        slot.is_settled = true;
        let Some(window) = &region.window else { return Ok(()) };
        self.event_loop.watch_backend_requests(number, window)?;
        if was_absent {
            self.event_loop.watch_queues(number, window, &slot.polled_calls)?;
        }
        Ok(())
    }

    fn handle_backend_request(&mut self, number: u16) {
        if let Some(window) = self.bus.window_mut(number) {
            device::config_changed(window);
        }
    }

    /// Closes the connection to a backend that cannot be used.
    fn dismiss(&mut self, number: u16, reason: &dyn Display) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(&number) else { return Ok(()) };
        slot.dismiss(reason);
        // The supervisor starts another. A guest that has not run yet waits for it, since its driver looks
        // for the device once; a guest that runs does not wait, since it uses other devices.
        slot.is_settled |= self.is_running;
        Ok(self.control.report(Report::Refused(number))?)
    }

    fn handle_kick(&mut self, number: u16, queue: u16) {
        self.event_loop.disarm(number, queue);
        let Some(window) = self.bus.window_mut(number) else { return };
        window.kicked_early(queue);
        // No backend reads a kick that does not start the device: the event would come again at once.
        if window.transport().awaits_early_kick() {
            window.device_mut().drain_kick(queue);
        }
        window.device_mut().kicked();
    }

    fn handle_queue_error(&mut self, number: u16, queue: u16) {
        if let Some(window) = self.bus.window_mut(number) {
            device::queue_failed(window, queue);
        }
    }

    fn handle_call(&mut self, number: u16, queue: u16) {
        let Some(window) = self.bus.window_mut(number) else { return };
        let device = window.device_mut();
        let call = device.notifiers().get(usize::from(queue)).map(|notifier| notifier.call.read());
        match call {
            Some(Ok(_)) => device.interrupt(),
            // The notification has been read already.
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Err(error)) => warn!("{}: queue {queue}: {error}", device.name()),
            None => {}
        }
    }
}
