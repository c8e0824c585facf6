// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The place of a device in a worker, before and after there is a backend for it.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use log::{error, info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shim_config::DeviceKind;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use xen_bindings::{Doorbell, eventfd_from};

use super::Served;
use crate::assignment::{Assignment, Description, QueueEvents};
use crate::control::Connection;
use crate::device::{BackedDevice, replace_backend};
use crate::hypervisor::xen::XenGuest;
use crate::ioreq::bus::{Keeper, Occupant};
use crate::state::{Found, Record};
use crate::vhost_user::{
    CONNECT_LIMIT, Client, ClientError, Grants, Inflight, NegotiateError, Notifier, Process, Session,
};
use crate::virtio_mmio::{Identity, State, Transport};

/// What a device needs besides a backend.
pub(super) struct Seat {
    device: Description,
    queues: u16,
    domid: u16,
    /// Until a device has them.
    parts: Option<Parts>,
    /// Whether the worker has to see to the interrupts of a queue.
    pub(super) polled_calls: Vec<bool>,
    doorbells: Vec<Doorbell>,
    /// Whether it is known how it starts: with a backend, or without.
    pub(super) is_settled: bool,
    /// What the driver said to a former worker.
    found: Found<State>,
    candidate: Option<Candidate>,
}

/// What a device has whatever backend it has.
struct Parts {
    notifiers: Vec<Notifier>,
    inflight: Inflight,
}

/// A backend that has been started and has not replied to its first ping.
struct Candidate {
    client: Client,
    gntdev: OwnedFd,
    pidfd: Option<OwnedFd>,
}

impl Seat {
    /// Takes what the supervisor has handed over. What is kept of the device goes into its window.
    pub(super) fn new(domid: u16, assignment: Assignment) -> io::Result<(Self, Keeper)> {
        let Assignment { description: device, state, inflight, queues } = assignment;
        let (record, found) = Record::open(state.into())?;
        let queue_size = DeviceKind::of(device.device_id).queue_size_max;
        let by_kernel = (0..).zip(&device.queues).filter(|(_, queue)| queue.kick_by_kernel);
        let doorbells = by_kernel.map(|(queue, _)| Doorbell { base: device.base, queue }).collect();
        let seat = Self {
            parts: Some(Parts {
                notifiers: queues.into_iter().map(notifier).collect::<io::Result<_>>()?,
                inflight: Inflight::new(inflight.into(), queue_size),
            }),
            polled_calls: device.queues.iter().map(|queue| !queue.call_by_kernel).collect(),
            doorbells,
            queues: u16::try_from(device.queues.len()).map_err(io::Error::other)?,
            device,
            domid,
            is_settled: false,
            candidate: None,
            found,
        };
        Ok((seat, Keeper::new(record)))
    }

    /// For messages.
    pub(super) fn name(&self) -> &str {
        &self.device.name
    }

    /// Where the device's registers are.
    pub(super) fn base(&self) -> u64 {
        self.device.base
    }

    /// The queues whose kicks the kernel serves.
    pub(super) fn doorbells(&self) -> Vec<Doorbell> {
        self.doorbells.clone()
    }

    /// Pings a backend that has been started. It is admitted when it has replied.
    pub(super) fn receive(&mut self, connection: Connection) -> Result<(), ClientError> {
        let Connection { socket, gntdev, pidfd } = connection;
        let mut client = Client::new(socket)?;
        client.ping(Instant::now() + CONNECT_LIMIT)?;
        self.candidate = Some(Candidate { client, gntdev, pidfd });
        Ok(())
    }

    /// Whether the candidate has replied to its ping; nothing if there is no candidate.
    pub(super) fn poll_reply(&mut self) -> Option<Result<bool, ClientError>> {
        Some(self.candidate.as_mut()?.client.poll_reply())
    }

    /// Whether there is something to [poll](Self::poll_reply), which another device may have kept this process from.
    fn has_answered(&self) -> bool {
        let Some(candidate) = &self.candidate else { return false };
        matches!(
            poll(&mut [PollFd::new(&candidate.client, PollFlags::IN)], Some(&Timespec::default())),
            Ok(1..)
        )
    }

    /// When the backend at the door has had its time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.candidate.as_ref()?.client.ping_due()
    }

    /// Sends the backend at the door away.
    pub(super) fn dismiss(&mut self) {
        self.candidate = None;
    }

    /// Kills the backend at the door if it has had its time. True if it had.
    pub(super) fn enforce(&mut self, now: Instant) -> bool {
        if self.deadline().is_none_or(|deadline| deadline > now) || self.has_answered() {
            return false;
        }
        if let Some(pidfd) = self.candidate.take().and_then(|candidate| candidate.pidfd) {
            Process::new(pidfd).kill();
        }
        true
    }

    /// Lets the backend at the door in: into the device that is there, or into one that is made for it.
    pub(super) fn admit(
        &mut self,
        occupant: &mut Occupant<Served>,
        guest: &Rc<XenGuest>,
    ) -> Result<(), NegotiateError> {
        let Some(Candidate { client, gntdev, pidfd }) = self.candidate.take() else { return Ok(()) };
        let kind = DeviceKind::of(self.device.device_id);
        let grants = Box::new(Grants { gntdev, domid: self.domid });
        let process = pidfd.map(Process::new);
        let (session, config) = Session::open(client, kind, self.queues, grants)?;
        if !session.tracks_inflight() {
            warn!(
                "{}: its backend lacks the protocol feature INFLIGHT_SHMFD: should it end while it has requests, the \
                 device will need a reset",
                self.device.name
            );
        }
        if let Occupant::Device(transport) = occupant {
            replace_backend(transport, session, config, process);
        } else if let Some(device) = self.take_device(guest) {
            info!("{}: served, features {:#x}", self.device.name, session.offered());
            let mut transport = Transport::new(self.identity(), session.offered(), config, device);
            // Nobody has said anything yet that it could refuse.
            let _ = transport.device_mut().attach(session, process);
            transport.device_mut().reset_if_unused();
            *occupant = Occupant::Device(transport);
        }
        Ok(())
    }

    /// The device that a former worker has served, if its driver has not reset it: it is there for the driver before there is a
    /// backend for it, as when a backend is replaced.
    pub(super) fn restore(&mut self, guest: &Rc<XenGuest>) -> Option<Transport<Served>> {
        let state = match std::mem::replace(&mut self.found, Found::Nothing) {
            Found::Value(state) if state.status.bits() != 0 => Some(state),
            Found::Nothing | Found::Value(_) => return None,
            Found::Damaged => None,
        };
        let (transport, restored) = Transport::restored(self.identity(), state, self.take_device(guest)?);
        // A driver that has it is not kept waiting; one that comes waits as for a device that is new.
        self.is_settled = transport.state().has_driver();
        match restored {
            Ok(()) if self.is_settled => info!("{}: goes on with the driver that it has", self.device.name),
            Ok(()) => {}
            Err(error) => error!("{}: it cannot go on: {error}; the device needs a reset", self.device.name),
        }
        Some(transport)
    }

    /// The device without a backend. There is one.
    fn take_device(&mut self, guest: &Rc<XenGuest>) -> Option<Served> {
        let Parts { notifiers, inflight } = self.parts.take()?;
        let Description { name, irq, .. } = &self.device;
        Some(BackedDevice::new(name.clone(), Rc::clone(guest), *irq, notifiers, inflight))
    }

    fn identity(&self) -> Identity {
        let device = &self.device;
        let kind = DeviceKind::of(device.device_id);
        Identity {
            name: device.name.clone(),
            device_id: device.device_id,
            demanded_features: kind.required_features,
            starts_by_kick: kind.starts_by_kick,
            queues: self.queues,
            queue_size_max: kind.queue_size_max,
        }
    }
}

fn notifier(QueueEvents { kick, call }: QueueEvents) -> io::Result<Notifier> {
    Ok(Notifier {
        kick: eventfd_from(kick),
        call: eventfd_from(call),
        // A queue that is not usable is none for the next worker's backend either, which says so again.
        err: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
    })
}
