// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The resources of a guest that the supervisor holds from before its devices exist until the supervisor
//! ends.
//!
//! The supervisor assigns ioeventfds and irqfds, not the worker: the kernel accesses the ioreq page through
//! the mapping of the process that assigned them, and stops when that process ends.
//!
//! The ioreq server outlives the supervisor. Without a server the guest's next access to a device would be an
//! abort; with it the access waits for the next supervisor, which finds the server by its record.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use vmm_sys_util::eventfd::EventFd;
use xen_bindings::{
    Channel, DomId, Doorbell, Evtchn, Gntdev, IoEventFd, IoreqPage, IoreqServer, Irq, IrqFd, Port, Privcmd,
    eventfd_from,
};

use super::SupervisorError;
use super::server;
use crate::assignment::{Assignment, Description, KernelPaths, QueueEvents};
use crate::handoff::{Handoff, PassedFds};
use crate::state::{Found, GuestState, Record};
use crate::virtio_mmio::State;
use shim_config::{Device, Guest, WINDOW_SIZE};

/// The time limit for the first event of each channel. The event is there as soon as the channel is bound.
const FIRST_EVENT_LIMIT: Duration = Duration::from_secs(1);

/// The ioreq server of a guest with all that belongs to it except its devices, which are dropped before it.
/// The fields are dropped in this order: the kernel must release page and channels before they are closed.
pub(super) struct Claim {
    channels: Vec<Channel>,
    evtchn: Evtchn,
    page: Arc<IoreqPage>,
    server: IoreqServer,
    privcmd: Privcmd,
    state: GuestState,
    /// Whether a former supervisor created the server.
    is_adopted: bool,
    /// The addresses of the mapped windows. Windows of removed devices stay mapped: an access reads zero,
    /// where it would otherwise be an abort.
    mapped: Vec<u64>,
}

/// A device with the eventfds of its queues. They exist as long as the device is configured, for all its
/// workers and backends.
pub(super) struct ClaimedDevice {
    pub(super) device: Device,
    queues: Vec<ClaimedQueue>,
}

/// The eventfds of a queue, and their use by the kernel.
struct ClaimedQueue {
    kernel_kick: Option<IoEventFd>,
    kernel_call: Option<IrqFd>,
    kick: OwnedFd,
    call: OwnedFd,
}

/// Waits until each channel has fired, as it does once after it is bound. A channel that has fired is masked:
/// the kernel does not handle its events until it is unmasked.
fn wait_for_first_events(evtchn: &Evtchn, ports: &[Port]) -> Result<(), SupervisorError> {
    let deadline = Instant::now() + FIRST_EVENT_LIMIT;
    let mut silent = ports.to_vec();
    while !silent.is_empty() {
        // The rest of one second is always a valid time.
        let limit =
            Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap_or_default();
        let fd = evtchn.as_fd();
        if poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).map_err(io::Error::from)? == 0 {
            warn!("{} event channels have not fired after they were bound", silent.len());
            break;
        }
        let fired = evtchn.pending()?;
        silent.retain(|port| !fired.ports().any(|fired| fired == *port));
    }
    Ok(())
}

impl Claim {
    /// Adopts or creates the ioreq server of `guest`, maps its page and binds the event channels.
    pub(super) fn new(guest: &Guest, state: GuestState) -> Result<Self, SupervisorError> {
        let domain = DomId::new(guest.domid);
        // Every worker and backend gets its own restricted gntdev. A kernel that cannot restrict it serves no
        // guest: this is checked before anything is created.
        Gntdev::open_for(domain)?;
        let privcmd = Privcmd::open_for(domain)?;
        let (server, is_adopted) = server::find_or_create(&privcmd, domain, state.server()?)?;
        let page = server.page()?;
        // Xen writes the channels to the slots when the server is enabled.
        server.set_enabled(true)?;
        let evtchn = Evtchn::open()?;
        let bound = page.slots().iter().map(|slot| evtchn.bind(domain, slot.event_port()));
        let channels = bound.collect::<Result<_, _>>()?;
        // No other channels are needed.
        evtchn.restrict(domain)?;
        let mapped = Vec::new();
        let claim = Self { channels, evtchn, page, server, privcmd, state, is_adopted, mapped };
        // The event of a kick that waits already has come. If the kernel handled kicks before the worker has
        // answered this one, both would answer it.
        wait_for_first_events(&claim.evtchn, &claim.ports())?;
        Ok(claim)
    }

    /// Whether a former supervisor has served the guest.
    pub(super) fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    fn ports(&self) -> Vec<Port> {
        self.channels.iter().map(Channel::port).collect()
    }

    /// Creates the eventfds of a device and assigns them to the kernel where it supports that.
    pub(super) fn claim_device(&self, device: &Device) -> Result<ClaimedDevice, SupervisorError> {
        ClaimedDevice::new(&self.privcmd, &self.page, &self.ports(), device)
    }

    /// The properties and duplicates of the descriptors that a worker needs for a device.
    pub(super) fn assignment(&self, claimed: &ClaimedDevice) -> Result<Assignment, SupervisorError> {
        let ClaimedDevice { device, queues } = claimed;
        let kernel = queues.iter().map(|queue| KernelPaths {
            kick_by_kernel: queue.kernel_kick.is_some(),
            call_by_kernel: queue.kernel_call.is_some(),
        });
        let events = queues.iter().map(|ClaimedQueue { kick, call, .. }| {
            Ok(QueueEvents { kick: kick.try_clone()?, call: call.try_clone()? })
        });
        Ok(Assignment {
            description: Description::of(device, kernel.collect())?,
            state: self.state.transport(&device.name)?.into(),
            inflight: self.state.inflight(&device.name)?.into(),
            queues: events.collect::<io::Result<_>>()?,
        })
    }

    /// Logs whether the kernel passes on kicks and interrupts, which determines the latency of the devices.
    pub(super) fn log_paths<'a>(&self, guest: &Guest, devices: impl Iterator<Item = &'a ClaimedDevice>) {
        let queues: Vec<_> = devices.flat_map(|device| &device.queues).collect();
        let path = |by_kernel| if by_kernel { "the kernel" } else { "the shim (slower)" };
        info!(
            "{}: {} {} of {} vCPUs; kicks by {}, interrupts by {}",
            guest.name,
            if self.is_adopted { "adopted" } else { "created" },
            self.server.id(),
            self.channels.len(),
            path(queues.iter().all(|queue| queue.kernel_kick.is_some())),
            path(queues.iter().all(|queue| queue.kernel_call.is_some())),
        );
    }

    /// Makes Xen pass accesses to the window at `base` to the ioreq server. A worker must be ready to answer
    /// them.
    pub(super) fn map_window(&mut self, base: u64) -> Result<(), SupervisorError> {
        if self.mapped.contains(&base) {
            return Ok(());
        }
        match self.server.map_window(base, WINDOW_SIZE) {
            // A former supervisor has mapped it.
            Err(error) if self.is_adopted && error.io().kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        self.mapped.push(base);
        Ok(())
    }

    /// Whether a driver uses a device, according to its state record. The worker may not have written the
    /// last change, so ask the worker if there is one. The content comes from a guest and can be anything.
    pub(super) fn is_used(&self, device: &Device) -> bool {
        match self.state.transport(&device.name).and_then(|file| Record::peek::<State>(&file)) {
            Ok(Found::Nothing) => false,
            Ok(Found::Value(state)) => state.has_driver(),
            // The device stays as it is.
            Ok(Found::Damaged) | Err(_) => true,
        }
    }

    /// The directory in which the program of a device makes its socket. It need not exist.
    pub(super) fn sockets(&self, device: &Device) -> io::Result<PathBuf> {
        self.state.sockets(&device.name)
    }

    /// Removes the records of a device that has no driver any more.
    pub(super) fn remove_records(&self, device: &Device) -> io::Result<()> {
        self.state.remove(&device.name)
    }

    /// The descriptors that a worker inherits. `is_first`: no worker has served the guest since this claim
    /// was made.
    pub(super) fn hand_off(
        &self,
        guest: &Guest,
        is_first: bool,
    ) -> Result<(PassedFds, Handoff), SupervisorError> {
        let mut passed = PassedFds::default();
        let handoff = Handoff {
            name: guest.name.clone(),
            domid: guest.domid,
            memory: guest.memory.clone(),
            is_first,
            is_running: self.is_adopted || !is_first,
            server: self.server.id().get(),
            ports: self.ports().into_iter().map(Port::get).collect(),
            privcmd: passed.add(&self.privcmd)?,
            evtchn: passed.add(&self.evtchn)?,
            // A new one for each worker: when it is closed, the kernel removes the worker's mappings.
            gntdev: passed.add(Gntdev::open_for(self.page.domain())?)?,
        };
        Ok((passed, handoff))
    }
}

impl ClaimedDevice {
    fn new(
        privcmd: &Privcmd,
        page: &Arc<IoreqPage>,
        ports: &[Port],
        device: &Device,
    ) -> Result<Self, SupervisorError> {
        let mut queues = Vec::new();
        for queue in 0..device.queues {
            let (kick, kick_copy) = new_eventfd()?;
            let (call, call_copy) = new_eventfd()?;
            let doorbell = Doorbell { base: device.base, queue };
            let kernel_kick = if_supported(IoEventFd::assign(privcmd, page, ports, doorbell, &kick_copy))?;
            let irq = Irq::new(device.irq);
            let kernel_call = if_supported(IrqFd::assign(privcmd, page.domain(), irq, &call_copy))?;
            queues.push(ClaimedQueue { kernel_kick, kernel_call, kick, call });
        }
        Ok(Self { device: device.clone(), queues })
    }

    /// A device for tests, which needs no descriptors.
    #[cfg(test)]
    pub(super) fn without_queues(device: Device) -> Self {
        Self { device, queues: Vec::new() }
    }
}

/// Creates an eventfd. Returns the descriptor to pass on, and a duplicate to assign to the kernel.
fn new_eventfd() -> io::Result<(OwnedFd, EventFd)> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let copy = eventfd_from(fd.try_clone()?);
    Ok((fd, copy))
}

/// `None` if the kernel does not support the call.
fn if_supported<T>(assigned: xen_bindings::Result<T>) -> xen_bindings::Result<Option<T>> {
    match assigned {
        Ok(assigned) => Ok(Some(assigned)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}
