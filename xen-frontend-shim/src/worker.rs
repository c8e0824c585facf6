// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The process that serves one guest: its traps, its windows and the connections to its backends.
//!
//! ```text
//!   handoff ──▶ event loop: control socket ──▶ devices, each with a window ──▶ a backend for each ──▶ "ready"
//!                           event channels │ backends │ (calls) │ (kicks)
//! ```
//!
//! What drivers say is written down before they get an answer, so that another worker can go on from it.
//!
//! Nothing that happens here is fatal to another guest, and only the end of the supervisor ends it by intention.

mod event_loop;
mod seat;

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
use crate::ioreq::bus::{Occupant, Window};
use crate::virtio_mmio::Device;

use event_loop::{EventLoop, Source};
use seat::Seat;

/// What serves a window here.
type Served = BackedDevice<XenGuest>;

/// How long the guest waits for its backends when it starts. Whoever serves at a socket may come up later than we do.
const START_LIMIT: Duration = Duration::from_secs(10);

/// The process as a whole.
struct Worker {
    guest: Rc<XenGuest>,
    domid: u16,
    control: Control,
    /// By the numbers of their devices.
    seats: BTreeMap<u16, Seat>,
    bus: Bus<Served>,
    event_loop: EventLoop,
    /// Until when devices are waited for, if they are.
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
    let role = Role { logs_to_file: logging::is_to_file() };
    role.enter()?;
    let control = inherited.control()?;
    let guest = Rc::new(adopt(inherited, handoff)?);
    let mut worker = Worker {
        event_loop: EventLoop::new(&control)?,
        guest,
        control,
        seats: BTreeMap::new(),
        bus: Bus::default(),
        settled_by: None,
        is_serving: false,
        domid: handoff.domid,
        is_first: handoff.is_first,
        is_running: handoff.is_running,
    };
    // It has a page in common with the guest now, and has not looked at it.
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
    /// Serves until the supervisor hangs up.
    fn serve(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.settle()?;
            self.bus.keep();
            self.event_loop.arm_kicks(&mut self.bus)?;
            let deadline = self.look_around()?;
            self.event_loop.wait(deadline, &mut ready)?;
            for source in ready.drain(..) {
                match source {
                    Source::Alarm => self.attend(Instant::now())?,
                    Source::Traps => self.serve_traps()?,
                    Source::Control => match self.control.receive_order()? {
                        Some(Order::Assign(number, assignment)) => self.assign(number, assignment)?,
                        Some(Order::Begin) => self.settled_by = Some(Instant::now() + START_LIMIT),
                        Some(Order::Deliver(delivery)) => self.receive(delivery)?,
                        Some(Order::Release(number)) => self.release(number)?,
                        Some(Order::GuestGone) => self.guest_gone(),
                        None => return Ok(()),
                    },
                    Source::Backend(index) => self.hear(index)?,
                    Source::Requests(index) => self.requested(index),
                    Source::Call(index, queue) => self.called(index, queue),
                    Source::Kick(index, queue) => self.kicked(index, queue),
                    Source::Err(index, queue) => self.failed(index, queue),
                }
            }
        }
    }

    /// The supervisor hands over a device, which may be one that a former worker has served.
    fn assign(&mut self, number: u16, assignment: Assignment) -> io::Result<()> {
        let (mut seat, keeper) = Seat::new(self.domid, assignment)?;
        let occupant = seat.restore(&self.guest).map_or(Occupant::Absent, Occupant::Device);
        let (base, doorbells) = (seat.base(), seat.doorbells());
        let window = Window { base, doorbells, occupant, keeper: Some(keeper) };
        self.event_loop.watch_queues(number, &window, &seat.polled_calls)?;
        self.bus.insert(number, window);
        self.seats.insert(number, seat);
        if self.is_serving {
            self.settled_by = Some(Instant::now() + START_LIMIT);
        }
        Ok(())
    }

    /// The supervisor wants a device back, which it gets unless a driver uses it. Its backend ends with the connection.
    fn release(&mut self, number: u16) -> io::Result<()> {
        let Some(window) = self.bus.window_mut(number) else { return Ok(()) };
        if let Occupant::Device(transport) = &window.occupant
            && transport.state().has_driver()
        {
            return Ok(self.control.report(Report::Kept(number))?);
        }
        self.event_loop.forget_queues(number, window)?;
        self.bus.remove(number);
        self.seats.remove(&number);
        Ok(self.control.report(Report::Released(number))?)
    }

    /// Looks at all devices: how far they are, which have lost their backends, and when there is something to do.
    fn look_around(&mut self) -> io::Result<Option<Instant>> {
        let mut deadline = self.settled_by;
        for (number, window) in self.bus.windows_mut() {
            let mut due = self.seats.get(&number).and_then(Seat::deadline);
            if let Occupant::Device(transport) = &mut window.occupant {
                let device = transport.device_mut();
                due = due.into_iter().chain(device.deadline()).min();
                if device.take_disconnected() {
                    self.control.report(Report::Lost(number))?;
                }
            }
            deadline = deadline.into_iter().chain(due).min();
        }
        Ok(deadline)
    }

    /// Does what is due.
    fn attend(&mut self, now: Instant) -> io::Result<()> {
        let late = self.seats.iter_mut().filter_map(|(number, seat)| seat.enforce(now).then_some(*number));
        for number in late.collect::<Vec<_>>() {
            self.dismiss(number, &"its backend does not answer")?;
        }
        for (_, window) in self.bus.windows_mut() {
            if let Occupant::Device(transport) = &mut window.occupant
                && transport.device_mut().run_timers(now).is_err()
            {
                transport.device_lost();
            }
        }
        Ok(())
    }

    /// Says so as soon as every device has a backend or is known to have none, or has been waited for.
    ///
    /// Until it is said for the first time no access is answered: a device that is not there yet would seem to be absent.
    fn settle(&mut self) -> io::Result<()> {
        let Some(deadline) = self.settled_by else { return Ok(()) };
        for seat in self.seats.values_mut().filter(|seat| !seat.is_settled && deadline <= Instant::now()) {
            error!("{}: absent: nobody serves it within {} s", seat.name(), START_LIMIT.as_secs());
            seat.is_settled = true;
        }
        if !self.seats.values().all(|seat| seat.is_settled) {
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

    /// Answers what waits since somebody else was here, who may have died at any moment: before a request was claimed,
    /// before it was answered, or before Xen was told of the answer.
    ///
    /// If that was the supervisor, nobody has looked for kicks since, the kernel neither; and now it cannot, as the
    /// channels are masked.
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

    /// The guest has ended: nothing of it stays mapped, and the outputs of its devices are let go of.
    fn guest_gone(&mut self) {
        for (_, window) in self.bus.windows_mut() {
            if let Occupant::Device(transport) = &mut window.occupant {
                transport.guest_gone();
            }
        }
        info!("all devices are reset, since the guest has ended");
    }

    /// Serves the vCPUs that have trapped. Their channels stay masked until the kernel is told, also when it was the
    /// kernel that answered.
    fn serve_traps(&mut self) -> io::Result<()> {
        let fired = self.guest.fired()?;
        for port in fired.ports() {
            if let Some(vcpu) = self.guest.vcpu(port) {
                self.bus.serve(&*self.guest, vcpu);
            }
        }
        self.guest.rearm(&fired)
    }

    /// The supervisor has started a backend.
    fn receive(&mut self, delivery: Delivery) -> io::Result<()> {
        let number = delivery.device;
        let Some(seat) = self.seats.get_mut(&number) else { return Ok(()) };
        let Some(connection) = delivery.backend else {
            seat.is_settled = true;
            error!("{}: it has no backend", seat.name());
            return Ok(());
        };
        if let Some(Occupant::Device(transport)) =
            self.bus.window_mut(number).map(|window| &mut window.occupant)
        {
            transport.device_mut().disconnect_replaced();
        }
        self.event_loop.watch_backend(number, &connection.socket)?;
        match seat.receive(connection) {
            Ok(()) => Ok(()),
            Err(error) => self.dismiss(number, &error),
        }
    }

    /// Something has come from a backend: from one at the door, or from the one that serves the device.
    fn hear(&mut self, number: u16) -> io::Result<()> {
        let Some(seat) = self.seats.get_mut(&number) else { return Ok(()) };
        let Some(window) = self.bus.window_mut(number) else { return Ok(()) };
        match (seat.poll_reply(), &mut window.occupant) {
            (None, Occupant::Device(transport)) => transport.device_mut().poll_backend(),
            (None, Occupant::Absent) | (Some(Ok(false)), _) => {}
            (Some(Ok(true)), occupant) => {
                let was_absent = matches!(occupant, Occupant::Absent);
                if let Err(error) = seat.admit(occupant, &self.guest) {
                    return self.dismiss(number, &error);
                }
                seat.is_settled = true;
                self.event_loop.watch_requests(number, window)?;
                if was_absent {
                    self.event_loop.watch_queues(number, window, &seat.polled_calls)?;
                }
            }
            (Some(Err(error)), _) => self.dismiss(number, &error)?,
        }
        Ok(())
    }

    /// A backend has something to say of its own accord.
    fn requested(&mut self, index: u16) {
        let window = self.bus.window_mut(index);
        if let Some(Occupant::Device(transport)) = window.map(|window| &mut window.occupant) {
            device::config_changed(transport);
        }
    }

    /// A backend cannot be used.
    fn dismiss(&mut self, number: u16, reason: &dyn Display) -> io::Result<()> {
        let Some(seat) = self.seats.get_mut(&number) else { return Ok(()) };
        error!("{}: its backend cannot be used: {reason}", seat.name());
        seat.dismiss();
        // Another is started, and a guest that has not run yet has time for it: its driver looks for the device once. One that
        // runs is not kept from its other devices.
        seat.is_settled |= self.is_running;
        Ok(self.control.report(Report::Lost(number))?)
    }

    fn kicked(&mut self, index: u16, queue: u16) {
        self.event_loop.disarm(index, queue);
        let Some(window) = self.bus.window_mut(index) else { return };
        window.act(|transport| transport.kicked_early(queue));
        if let Occupant::Device(transport) = &mut window.occupant {
            // One that starts nothing is nobody's, and would be there again at once.
            if transport.awaits_early_kick() {
                transport.device_mut().drain_kick(queue);
            }
            transport.device_mut().kicked();
        }
    }

    fn failed(&mut self, index: u16, queue: u16) {
        let window = self.bus.window_mut(index);
        if let Some(Occupant::Device(transport)) = window.map(|window| &mut window.occupant) {
            device::queue_failed(transport, queue);
        }
    }

    fn called(&mut self, index: u16, queue: u16) {
        let Some(window) = self.bus.window_mut(index) else { return };
        let Occupant::Device(transport) = &mut window.occupant else { return };
        let device = transport.device_mut();
        let call = device.notifiers().get(usize::from(queue)).map(|notifier| notifier.call.read());
        match call {
            Some(Ok(_)) => device.interrupt(),
            // Somebody was faster.
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Err(error)) => warn!("{}: queue {queue}: {error}", device.name()),
            None => {}
        }
    }
}
