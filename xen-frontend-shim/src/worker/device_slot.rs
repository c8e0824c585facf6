// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device as its worker has it: before and after there is a backend for it.

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

use log::{error, info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use xen_bindings::{Doorbell, eventfd_from};

use super::Served;
use crate::assignment::{Assignment, Description, QueueEvents};
use crate::control::Connection;
use crate::device::{BackedDevice, replace_backend};
use crate::hypervisor::xen::XenGuest;
use crate::memory::GuestMemory;
use crate::state::{Found, Record};
use crate::vhost_user::{
    CONNECT_LIMIT, Client, ClientError, GuestBacking, Inflight, NegotiateError, Notifier, Process, Session,
};
use crate::virtio_mmio::{Identity, State};
use crate::window::{StateStore, Window};

/// What a device needs besides a backend, and the backend that is not connected to it yet.
pub(super) struct DeviceSlot {
    device: Description,
    queues: u16,
    domid: u16,
    /// The memory of the guest that backends reach.
    memory: GuestMemory,
    /// The parts of the window, until it is made.
    parts: Option<Parts>,
    /// Whether the worker passes on the interrupts of a queue, since the kernel does not.
    pub(super) polled_calls: Vec<bool>,
    doorbells: Vec<Doorbell>,
    /// Whether the device has a backend, or the guest does not wait for one.
    pub(super) is_settled: bool,
    /// The state that a former worker stored.
    found: Found<State>,
    candidate: Option<Candidate>,
    /// Has the process of the backend killed.
    kill: Rc<dyn Fn()>,
    /// The reason why the last backend was not used, which is said once.
    refusal: Option<String>,
}

/// What a window is made of besides the backend.
struct Parts {
    store: StateStore,
    notifiers: Vec<Notifier>,
    inflight: Inflight,
}

/// A backend that has been started and has not replied to its first ping.
struct Candidate {
    client: Client,
    memory: OwnedFd,
    process: Option<Process>,
}

impl DeviceSlot {
    /// A slot for the device that the supervisor has assigned. `kill` has the process of its backend killed.
    pub(super) fn new(
        domid: u16,
        memory: GuestMemory,
        assignment: Assignment,
        kill: Rc<dyn Fn()>,
    ) -> io::Result<Self> {
        let Assignment { description: device, state, inflight, queues } = assignment;
        let (record, found) = Record::open(state.into())?;
        let queue_size = device.properties.queue_size;
        let by_kernel = (0..).zip(&device.queues).filter(|(_, queue)| queue.kick_by_kernel);
        let doorbells = by_kernel.map(|(queue, _)| Doorbell { base: device.base, queue }).collect();
        Ok(Self {
            parts: Some(Parts {
                store: StateStore::new(record),
                notifiers: queues.into_iter().map(notifier).collect::<io::Result<_>>()?,
                inflight: Inflight::new(inflight.into(), queue_size),
            }),
            polled_calls: device.queues.iter().map(|queue| !queue.call_by_kernel).collect(),
            doorbells,
            queues: u16::try_from(device.queues.len()).map_err(io::Error::other)?,
            device,
            domid,
            memory,
            is_settled: false,
            candidate: None,
            kill,
            refusal: None,
            found,
        })
    }

    /// The name of the device in messages.
    pub(super) fn name(&self) -> &str {
        &self.device.name
    }

    /// The guest physical address of the registers.
    pub(super) fn base(&self) -> u64 {
        self.device.base
    }

    /// The queues whose kicks the kernel passes on.
    pub(super) fn doorbells(&self) -> Vec<Doorbell> {
        self.doorbells.clone()
    }

    /// Pings a backend that has been started. It is admitted when it has replied.
    pub(super) fn receive(&mut self, connection: Connection) -> Result<(), ClientError> {
        let Connection { socket, memory, pidfd } = connection;
        let process = pidfd.map(|pidfd| Process::new(pidfd, Rc::clone(&self.kill)));
        let client = pinged(socket).inspect_err(|_| process.iter().for_each(Process::kill))?;
        self.candidate = Some(Candidate { client, memory, process });
        Ok(())
    }

    /// Whether the candidate has replied to its ping; nothing if there is no candidate.
    pub(super) fn poll_reply(&mut self) -> Option<Result<bool, ClientError>> {
        Some(self.candidate.as_mut()?.client.poll_reply())
    }

    /// Whether a reply waits to be [polled](Self::poll_reply). Another device may have kept this process
    /// busy.
    fn has_answered(&self) -> bool {
        let Some(candidate) = &self.candidate else { return false };
        matches!(
            poll(&mut [PollFd::new(&candidate.client, PollFlags::IN)], Some(&Timespec::default())),
            Ok(1..)
        )
    }

    /// The deadline of the candidate.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.candidate.as_ref()?.client.ping_due()
    }

    /// Closes the connection to a candidate that cannot be used, for a reason that is logged when it changes.
    /// Its process ends at once: it has not served anything.
    pub(super) fn dismiss(&mut self, reason: &dyn Display) {
        if let Some(Candidate { process: Some(process), .. }) = self.candidate.take() {
            process.kill();
        }
        let reason = reason.to_string();
        if self.refusal.as_ref() != Some(&reason) {
            error!("{}: its backend cannot be used: {reason}", self.device.name);
            self.refusal = Some(reason);
        }
    }

    /// Whether the candidate has not replied before its deadline.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now) && !self.has_answered()
    }

    /// Connects the candidate to the device in `window`, which is made if it is absent.
    pub(super) fn admit(
        &mut self,
        window: &mut Option<Window<Served>>,
        guest: &Rc<XenGuest>,
    ) -> Result<(), NegotiateError> {
        let Some(Candidate { client, memory, process }) = self.candidate.take() else { return Ok(()) };
        let backing =
            Box::new(GuestBacking { device: memory, domid: self.domid, memory: self.memory.clone() });
        let opened = Session::open(client, self.device.properties.clone(), self.queues, backing);
        let (session, config) = opened.inspect_err(|_| process.iter().for_each(Process::kill))?;
        self.refusal = None;
        if !session.tracks_inflight() {
            warn!(
                "{}: its backend lacks the protocol feature INFLIGHT_SHMFD: should it end \
                 while it has requests, the device will need a reset",
                self.device.name
            );
        }
        if let Some(window) = window {
            replace_backend(window, session, config, process);
        } else if let Some((device, store)) = self.take_device(guest) {
            info!("{}: served, features {:#x}", self.device.name, session.offered());
            let store = Some(store);
            let window =
                window.insert(Window::new(self.identity(), session.offered(), config, device, store));
            // There is no driver's setup yet that the backend could refuse.
            let _ = window.device_mut().attach(session, process);
            window.device_mut().reset_if_unused();
        }
        Ok(())
    }

    /// The window of a device that a former worker has served and its driver has not reset. Its driver finds
    /// it before there is a backend, as when a backend is replaced.
    pub(super) fn restore(&mut self, guest: &Rc<XenGuest>) -> Option<Window<Served>> {
        let state = match std::mem::replace(&mut self.found, Found::Nothing) {
            Found::Value(state) if state.status.bits() != 0 => Some(state),
            Found::Nothing | Found::Value(_) => return None,
            Found::Damaged => None,
        };
        let (device, store) = self.take_device(guest)?;
        let (window, restored) = Window::restored(self.identity(), state, device, Some(store));
        // A driver that has the device does not wait; one that comes waits as for a new device.
        self.is_settled = window.state().has_driver();
        match restored {
            Ok(()) if self.is_settled => info!("{}: continues with its driver", self.device.name),
            Ok(()) => {}
            Err(error) => {
                error!("{}: it cannot continue: {error}; the device needs a reset", self.device.name);
            }
        }
        Some(window)
    }

    /// The device without a backend, and the store of its state. `None` after the first call.
    fn take_device(&mut self, guest: &Rc<XenGuest>) -> Option<(Served, StateStore)> {
        let Parts { store, notifiers, inflight } = self.parts.take()?;
        let Description { name, irq, .. } = &self.device;
        let device = BackedDevice::new(name.clone(), Rc::clone(guest), *irq, notifiers, inflight);
        Some((if self.device.properties.waits { device.that_waits() } else { device }, store))
    }

    fn identity(&self) -> Identity {
        let device = &self.device;
        Identity {
            name: device.name.clone(),
            device_id: device.device_id,
            demanded_features: device.properties.required_features,
            starts_by_kick: device.properties.starts_by_kick,
            queues: self.queues,
            queue_size_max: device.properties.queue_size,
            memory: self.memory.clone(),
        }
    }
}

/// A client that has pinged its backend.
fn pinged(socket: UnixStream) -> Result<Client, ClientError> {
    let mut client = Client::new(socket)?;
    client.ping(Instant::now() + CONNECT_LIMIT)?;
    Ok(client)
}

fn notifier(QueueEvents { kick, call }: QueueEvents) -> io::Result<Notifier> {
    Ok(Notifier {
        kick: eventfd_from(kick),
        call: eventfd_from(call),
        // The backend of the next worker reports a queue that it cannot use again.
        err: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
    })
}
