// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The process that serves one guest: its traps, its windows and its backends.
//!
//! ```text
//!   handoff ──▶ devices (start or reach each backend) ──▶ "ready" ──▶ event loop
//!                                  event channels │ backends │ (calls) │ early kicks │ control socket
//! ```
//!
//! Nothing that happens here is fatal to another guest, and only the end of the supervisor ends it by intention.

mod event_loop;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::rc::Rc;

use log::{error, info};
use thiserror::Error;
use xen_bindings::{DomId, Doorbell, Evtchn, Gntdev, IoreqServerId, Port, Privcmd, eventfd_from};

use crate::config::{Backend, Device};
use crate::device::BackedDevice;
use crate::handoff::{DeviceHandoff, Handoff, Inheritance, QueueHandoff, READY};
use crate::hypervisor::xen::XenGuest;
use crate::ioreq::Bus;
use crate::ioreq::bus::{Occupant, Window};
use crate::vhost_user::program::connect;
use crate::vhost_user::{
    DeviceKind, Grants, Limits, NegotiateError, Notifier, Program, Session, StartError, Watchdog,
};
use crate::virtio_mmio::{Identity, Transport, features};

use event_loop::EventLoop;

/// What serves a window here.
type Served = BackedDevice<XenGuest>;

/// Why a device cannot be had.
#[derive(Debug, Error)]
enum AbsentError {
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("its backend cannot be used: {0}")]
    Negotiate(#[from] NegotiateError),
    #[error("its backend has given up ({0}), for the reason that it gave above")]
    Ended(ExitStatus),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Serves the guest that `handoff` describes until the supervisor hangs up.
pub fn run(inheritance: &Inheritance, handoff: Handoff) -> io::Result<()> {
    let mut control = UnixStream::from(inheritance.control()?);
    let guest = Rc::new(adopt(inheritance, &handoff)?);
    let watchdog = Watchdog::start(Limits::default())?;
    let mut windows = Vec::new();
    let mut polled_calls = Vec::new();
    for (device, given) in handoff.guest.device.iter().zip(&handoff.device) {
        polled_calls.push(given.queue.iter().map(|queue| !queue.call_by_kernel).collect::<Vec<_>>());
        windows.push(window(inheritance, &guest, handoff.guest.domid, device, given, &watchdog)?);
    }
    let mut bus = Bus::new(windows);
    let mut event_loop = EventLoop::new(&*guest, &control)?;
    for (index, window) in bus.windows_mut().iter().enumerate() {
        let polled = polled_calls.get(index).map(Vec::as_slice).unwrap_or_default();
        event_loop.watch_window(index, window, polled)?;
    }
    if handoff.is_replacement {
        take_over(&guest, &mut bus);
    }
    control.write_all(&[READY])?;
    event_loop.run(&guest, &mut bus)
}

/// What drivers said to a former worker is not known. They have to begin anew, and until they do, at least every access
/// is answered.
fn take_over(guest: &XenGuest, bus: &mut Bus<Served>) {
    guest.abandon_taken();
    for window in bus.windows_mut() {
        if let Occupant::Device(transport) = &mut window.occupant {
            transport.device_lost();
        }
    }
}

fn adopt(inheritance: &Inheritance, handoff: &Handoff) -> io::Result<XenGuest> {
    XenGuest::adopt(
        DomId::new(handoff.guest.domid),
        IoreqServerId::new(handoff.server),
        Privcmd::from_fd(inheritance.take(handoff.privcmd)?),
        Evtchn::from_fd(inheritance.take(handoff.evtchn)?),
        Gntdev::from_fd(inheritance.take(handoff.gntdev)?),
        handoff.ports.iter().copied().map(Port::new).collect(),
    )
}

/// The window of `device`: with the device in it, or, if that cannot be had, saying so to the guest.
fn window(
    inheritance: &Inheritance,
    guest: &Rc<XenGuest>,
    domid: u16,
    device: &Device,
    given: &DeviceHandoff,
    watchdog: &Watchdog,
) -> io::Result<Window<Served>> {
    let gntdev = inheritance.take(given.gntdev)?;
    let notifiers = given.queue.iter().map(|queue| notifier(inheritance, queue));
    let notifiers = notifiers.collect::<io::Result<Vec<_>>>()?;
    let by_kernel = (0..).zip(&given.queue).filter(|(_, queue)| queue.kick_by_kernel);
    let doorbells = by_kernel.map(|(queue, _)| Doorbell { base: device.base, queue }).collect();
    let grants = Grants { gntdev, domid };
    let occupant = match transport(guest, device, notifiers, grants, watchdog) {
        Ok(transport) => Occupant::Device(transport),
        Err(error) => {
            error!("{}: absent: {error}", device.name);
            Occupant::Absent
        }
    };
    Ok(Window { base: device.base, doorbells, occupant })
}

fn notifier(inheritance: &Inheritance, queue: &QueueHandoff) -> io::Result<Notifier> {
    Ok(Notifier {
        kick: eventfd_from(inheritance.take(queue.kick)?),
        call: eventfd_from(inheritance.take(queue.call)?),
    })
}

fn transport(
    guest: &Rc<XenGuest>,
    device: &Device,
    notifiers: Vec<Notifier>,
    grants: Grants,
    watchdog: &Watchdog,
) -> Result<Transport<Served>, AbsentError> {
    let (program, socket) = match &device.backend {
        Backend::Command(command) => {
            let (program, socket) = Program::start(command)?;
            (Some(program), socket)
        }
        Backend::Socket(path) => (None, connect(path)?),
    };
    let kind = DeviceKind::of(device.device_id);
    let identity = Identity {
        name: device.name.clone(),
        device_id: device.device_id,
        features: 0,
        demanded_features: kind.required_features,
        starts_by_kick: kind.starts_by_kick,
        queues: device.queues,
        queue_size_max: kind.queue_size_max,
    };
    let opened = Session::open(socket, kind, device.queues, watchdog, Box::new(grants));
    let (session, offer) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // A program that has ended has said why, and knows better than we.
            let status = program.and_then(Program::end).filter(|status| !status.success());
            return Err(status.map_or(error.into(), AbsentError::Ended));
        }
    };
    let identity = Identity { features: features::offered(offer.features), ..identity };
    info!("{}: served, features {:#x}", device.name, identity.features);
    let name = device.name.clone();
    let backed = BackedDevice::new(name, Rc::clone(guest), device.irq, notifiers, session, program);
    Ok(Transport::new(identity, offer.config, backed))
}
