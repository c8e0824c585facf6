// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the supervisor holds of a guest, from before its devices exist until the supervisor ends.
//!
//! The kernel's part in kicks and interrupts is arranged here and not by the worker: the kernel looks at the ioreq page
//! through the mapping of whoever arranged it, and stops when that process is gone. So it has to be one that stays.
//!
//! The ioreq server outlives even the supervisor: without it, the guest's next access to a device would be an abort; with
//! it, the access waits for the next supervisor, which finds the server by the record that this one leaves.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;
use xen_bindings::{
    Channel, DomId, Doorbell, Evtchn, Gntdev, IoEventFd, IoreqPage, IoreqServer, IoreqServerId, Irq, IrqFd,
    Port, Privcmd, eventfd_from,
};

use super::SupervisorError;
use crate::assignment::{Assignment, Description, KernelPaths, QueueEvents};
use crate::handoff::{Handoff, PassedFds};
use crate::state::{Found, GuestState, Record};
use crate::virtio_mmio::State;
use shim_config::{Device, Guest, WINDOW_SIZE};

/// How long to wait for the event by which a channel begins. It is there as soon as the channel is bound.
const FIRST_EVENT_LIMIT: Duration = Duration::from_secs(1);

/// A guest's ioreq server with all that belongs to it, but its devices, which must go before it does. The fields are dropped in
/// this order: the kernel must let go of page and channels before they go.
pub(super) struct Claim {
    channels: Vec<Channel>,
    evtchn: Evtchn,
    page: Arc<IoreqPage>,
    server: IoreqServer,
    privcmd: Privcmd,
    state: GuestState,
    /// Whether the server was there before.
    is_adopted: bool,
    /// Where the windows are that have been mapped. Those of devices that were removed stay: the guest then finds
    /// nothing there, instead of taking an abort.
    mapped: Vec<u64>,
}

/// What a device has as long as it is configured, whoever serves it: the event descriptors of its queues.
pub(super) struct ClaimedDevice {
    pub(super) device: Device,
    queues: Vec<ClaimedQueue>,
}

/// A queue's event descriptors, and what the kernel does with them.
struct ClaimedQueue {
    kernel_kick: Option<IoEventFd>,
    kernel_call: Option<IrqFd>,
    kick: OwnedFd,
    call: OwnedFd,
}

/// What is written down about ioreq servers before there is one, and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Those that were there before, which somebody else in this domain has made.
    others: Vec<u16>,
    /// Ours, once it was made.
    own: Option<u16>,
}

impl Known {
    /// Which of those that `exist` is ours.
    fn find(&self, exist: &[u16]) -> Option<u16> {
        let is_ours = |id: &&u16| match self.own {
            Some(own) => own == **id,
            // Whoever wrote this died between making it and saying which it is.
            None => !self.others.contains(id),
        };
        exist.iter().find(is_ours).copied()
    }
}

/// The server of `domain` that a former supervisor has left, or a new one. And which of both it is.
fn find_or_create(
    privcmd: &Privcmd,
    domain: DomId,
    record: File,
) -> Result<(IoreqServer, bool), SupervisorError> {
    let (mut record, known) = Record::open::<Known>(record)?;
    let known = known.value();
    let others: Vec<_> = IoreqServer::list(privcmd, domain)?.into_iter().map(IoreqServerId::get).collect();
    if let Some(left) = known.and_then(|known| known.find(&others)) {
        let known = Known { others: others.into_iter().filter(|id| *id != left).collect(), own: Some(left) };
        record.write(&known)?;
        return Ok((IoreqServer::adopt(privcmd, domain, IoreqServerId::new(left)), true));
    }
    let mut known = Known { others, own: None };
    record.write(&known)?;
    let server = IoreqServer::create(privcmd, domain)?;
    known.own = Some(server.id().get());
    record.write(&known)?;
    Ok((server.keep(), false))
}

/// Waits until each channel has fired, as it does once when it is bound. After that they are masked: nothing that the
/// kernel does on an event of theirs happens until somebody unmasks them.
fn settle(evtchn: &Evtchn, ports: &[Port]) -> Result<(), SupervisorError> {
    let deadline = Instant::now() + FIRST_EVENT_LIMIT;
    let mut silent = ports.to_vec();
    while !silent.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&evtchn.as_fd(), PollFlags::IN)], Some(&limit)).map_err(io::Error::from)?
            == 0
        {
            warn!("{} event channels have not begun to fire", silent.len());
            break;
        }
        let fired = evtchn.pending()?;
        silent.retain(|port| !fired.ports().any(|fired| fired == *port));
    }
    Ok(())
}

impl Claim {
    /// Takes up the ioreq server of `guest`, or makes it, and all that goes with it.
    pub(super) fn new(guest: &Guest, state: GuestState) -> Result<Self, SupervisorError> {
        let domain = DomId::new(guest.domid);
        // Each worker and each backend gets one of its own. Where the kernel has none for one guest alone, none is served:
        // before anything is made.
        Gntdev::open_for(domain)?;
        let privcmd = Privcmd::open()?;
        privcmd.restrict(domain)?;
        let (server, is_adopted) = find_or_create(&privcmd, domain, state.server()?)?;
        let page = server.page()?;
        // Only now do the slots say which channels to bind.
        server.set_enabled(true)?;
        let evtchn = Evtchn::open()?;
        let channels: Vec<_> = page
            .slots()
            .iter()
            .map(|slot| evtchn.bind(domain, slot.event_port()))
            .collect::<Result<_, _>>()?;
        // The channels that it has are all that it ever needs.
        evtchn.restrict(domain)?;
        let claim = Self { channels, evtchn, page, server, privcmd, state, is_adopted, mapped: Vec::new() };
        // A kick that waits already has had its event. So the kernel must not look for kicks before the worker has
        // answered that one, or both would.
        settle(&claim.evtchn, &claim.ports())?;
        Ok(claim)
    }

    /// Whether the guest's accesses have come here before.
    pub(super) fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    /// What a worker needs to serve a device, to which the claim keeps its right.
    pub(super) fn assign(&self, claimed: &ClaimedDevice) -> Result<Assignment, SupervisorError> {
        let ClaimedDevice { device, queues } = claimed;
        let carriers = queues.iter().map(|queue| KernelPaths {
            kick_by_kernel: queue.kernel_kick.is_some(),
            call_by_kernel: queue.kernel_call.is_some(),
        });
        let events = queues.iter().map(|ClaimedQueue { kick, call, .. }| {
            Ok(QueueEvents { kick: kick.try_clone()?, call: call.try_clone()? })
        });
        Ok(Assignment {
            description: Description::of(device, carriers.collect()),
            state: self.state.transport(&device.name)?.into(),
            inflight: self.state.inflight(&device.name)?.into(),
            queues: events.collect::<io::Result<_>>()?,
        })
    }

    fn ports(&self) -> Vec<Port> {
        self.channels.iter().map(Channel::port).collect()
    }

    /// Claims a device, of which no driver knows, or which there was before.
    pub(super) fn device(&self, device: &Device) -> Result<ClaimedDevice, SupervisorError> {
        ClaimedDevice::new(&self.privcmd, &self.page, &self.ports(), device)
    }

    /// Says who carries kicks and interrupts, since it decides how fast the devices are.
    pub(super) fn report<'a>(&self, guest: &Guest, devices: impl Iterator<Item = &'a ClaimedDevice>) {
        let queues: Vec<_> = devices.flat_map(|device| &device.queues).collect();
        let carrier = |by_kernel| if by_kernel { "the kernel" } else { "the shim (slower)" };
        info!(
            "{}: {} {} of {} vCPUs; kicks by {}, interrupts by {}",
            guest.name,
            if self.is_adopted { "took over" } else { "made" },
            self.server.id(),
            self.channels.len(),
            carrier(queues.iter().all(|queue| queue.kernel_kick.is_some())),
            carrier(queues.iter().all(|queue| queue.kernel_call.is_some())),
        );
    }

    /// Sends the guest's accesses to the window at `base` here, which somebody must be ready to answer.
    pub(super) fn map_window(&mut self, base: u64) -> Result<(), SupervisorError> {
        if self.mapped.contains(&base) {
            return Ok(());
        }
        match self.server.map_window(base, WINDOW_SIZE) {
            // A former supervisor has done it.
            Err(error) if self.is_adopted && error.io().kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        self.mapped.push(base);
        Ok(())
    }

    /// Whether a driver uses a device, as far as the worker has said. To be sure, ask when there is none. What the worker keeps
    /// came from a guest, so it may be anything.
    pub(super) fn is_used(&self, device: &Device) -> bool {
        match self.state.transport(&device.name).and_then(|file| Record::peek::<State>(&file)) {
            Ok(Found::Nothing) => false,
            Ok(Found::Value(state)) => state.has_driver(),
            // What cannot be read is not touched.
            Ok(Found::Damaged) | Err(_) => true,
        }
    }

    /// Forgets what the driver of a device has said, since there is none any more.
    pub(super) fn forget(&self, device: &Device) -> io::Result<()> {
        self.state.forget(&device.name)
    }

    /// What a worker needs besides devices. `is_first` says that none has answered the guest since this claim was made.
    pub(super) fn hand_off(
        &self,
        guest: &Guest,
        is_first: bool,
    ) -> Result<(PassedFds, Handoff), SupervisorError> {
        let mut parcel = PassedFds::default();
        let handoff = Handoff {
            name: guest.name.clone(),
            domid: guest.domid,
            is_first,
            is_running: self.is_adopted || !is_first,
            server: self.server.id().get(),
            ports: self.ports().into_iter().map(Port::get).collect(),
            privcmd: parcel.add(&self.privcmd)?,
            evtchn: parcel.add(&self.evtchn)?,
            // A fresh one each time: what a dead worker had mapped goes with its own.
            gntdev: parcel.add(Gntdev::open_for(self.page.domain())?)?,
        };
        Ok((parcel, handoff))
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
}

/// A new eventfd, as a descriptor to pass on and as what it is.
fn new_eventfd() -> io::Result<(OwnedFd, EventFd)> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let copy = eventfd_from(fd.try_clone()?);
    Ok((fd, copy))
}

/// `None` where the kernel cannot do it.
fn if_supported<T>(assigned: xen_bindings::Result<T>) -> xen_bindings::Result<Option<T>> {
    match assigned {
        Ok(assigned) => Ok(Some(assigned)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_whenever_its_supervisor_died() {
        // (others, own, those that exist, the one that is ours)
        for (others, own, exist, ours) in [
            (vec![], Some(0), vec![0], Some(0)),
            (vec![0], Some(1), vec![0, 1], Some(1)),
            // The guest was made anew, or somebody destroyed it.
            (vec![0], Some(1), vec![0], None),
            // Killed before it was made, and after, but before that was written down.
            (vec![0, 2], None, vec![0, 2], None),
            (vec![0, 2], None, vec![0, 1, 2], Some(1)),
        ] {
            let known = Known { others, own };
            assert_eq!(known.find(&exist), ours, "{known:?} {exist:?}");
        }
    }
}
