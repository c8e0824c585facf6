// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the supervisor holds of a guest, from before its devices exist until the supervisor ends.
//!
//! The kernel's part in kicks and interrupts is arranged here and not by the worker: the kernel looks at the ioreq page
//! through the mapping of whoever arranged it, and goes on looking when that process is gone. So it has to be one that
//! stays.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use log::info;
use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::eventfd::EventFd;
use xen_bindings::{
    Channel, DomId, Doorbell, Evtchn, Gntdev, IoEventFd, IoreqPage, IoreqServer, Irq, IrqFd, Port, Privcmd,
    eventfd_from,
};

use super::SupervisorError;
use crate::config::{Device, Guest, WINDOW_SIZE};
use crate::handoff::{DeviceHandoff, Handoff, Parcel, QueueHandoff};

/// A guest's ioreq server with all that belongs to it. The fields are dropped in this order: the kernel must let go of
/// page and channels before they go.
pub(super) struct Claim {
    devices: Vec<ClaimedDevice>,
    channels: Vec<Channel>,
    evtchn: Evtchn,
    _page: Arc<IoreqPage>,
    server: Option<IoreqServer>,
    privcmd: Privcmd,
}

/// A device's queues.
struct ClaimedDevice {
    queues: Vec<ClaimedQueue>,
}

/// A queue's event descriptors, and what the kernel does with them.
struct ClaimedQueue {
    kernel_kick: Option<IoEventFd>,
    kernel_call: Option<IrqFd>,
    kick: OwnedFd,
    call: OwnedFd,
}

impl Claim {
    /// Makes the ioreq server of `guest` and all that goes with it.
    pub(super) fn new(guest: &Guest) -> Result<Self, SupervisorError> {
        let domain = DomId::new(guest.domid);
        let privcmd = Privcmd::open()?;
        privcmd.restrict(domain)?;
        let server = IoreqServer::create(&privcmd, domain)?;
        let page = server.page()?;
        // Only now do the slots say which channels to bind.
        server.set_enabled(true)?;
        let evtchn = Evtchn::open()?;
        let channels: Vec<_> = page
            .slots()
            .iter()
            .map(|slot| evtchn.bind(domain, slot.event_port()))
            .collect::<Result<_, _>>()?;
        let ports: Vec<_> = channels.iter().map(Channel::port).collect();
        let claim_device = |device| ClaimedDevice::new(&privcmd, domain, &page, &ports, device);
        let devices: Vec<_> = guest.device.iter().map(claim_device).collect::<Result<_, _>>()?;
        let claim = Self { devices, channels, evtchn, _page: page, server: Some(server), privcmd };
        claim.report(guest);
        Ok(claim)
    }

    /// Says who carries kicks and interrupts, since it decides how fast the devices are.
    fn report(&self, guest: &Guest) {
        let queues = || self.devices.iter().flat_map(|device| &device.queues);
        let carrier = |by_kernel| if by_kernel { "the kernel" } else { "the shim (slower)" };
        info!(
            "{}: {} vCPUs; kicks by {}, interrupts by {}",
            guest.name,
            self.channels.len(),
            carrier(queues().all(|queue| queue.kernel_kick.is_some())),
            carrier(queues().all(|queue| queue.kernel_call.is_some())),
        );
    }

    /// Sends the guest's accesses to its devices here, which somebody must be ready to answer.
    pub(super) fn map_windows(&self, guest: &Guest) -> Result<(), SupervisorError> {
        for device in &guest.device {
            self.server()?.map_window(device.base, WINDOW_SIZE)?;
        }
        Ok(())
    }

    fn server(&self) -> io::Result<&IoreqServer> {
        self.server.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What a worker needs.
    pub(super) fn hand_off(
        &self,
        guest: &Guest,
        is_replacement: bool,
    ) -> Result<(Parcel, Handoff), SupervisorError> {
        let mut parcel = Parcel::default();
        let handoff = Handoff {
            is_replacement,
            server: self.server()?.id().get(),
            ports: self.channels.iter().map(|channel| channel.port().get()).collect(),
            privcmd: parcel.add(&self.privcmd)?,
            evtchn: parcel.add(&self.evtchn)?,
            // Fresh ones each time: what a dead worker or backend had mapped goes with its own.
            gntdev: parcel.add(Gntdev::open()?)?,
            device: self
                .devices
                .iter()
                .map(|device| device.hand_off(&mut parcel))
                .collect::<Result<_, _>>()?,
            guest: guest.clone(),
        };
        Ok((parcel, handoff))
    }
}

impl Drop for Claim {
    /// The ioreq server stays: without it, the guest's next access to a device would be an abort; with it, the access waits.
    fn drop(&mut self) {
        self.devices.clear();
        if let Some(server) = self.server.take() {
            let _ = server.release();
        }
    }
}

impl ClaimedDevice {
    fn new(
        privcmd: &Privcmd,
        domain: DomId,
        page: &Arc<IoreqPage>,
        ports: &[Port],
        device: &Device,
    ) -> Result<Self, SupervisorError> {
        let mut queues = Vec::new();
        for queue in 0..device.queues {
            let (kick, kick_copy) = new_eventfd()?;
            let (call, call_copy) = new_eventfd()?;
            let doorbell = Doorbell { base: device.base, queue };
            // Before the window exists, so that no kick can come before the kernel looks for it.
            let kernel_kick = if_supported(IoEventFd::assign(privcmd, page, ports, doorbell, &kick_copy))?;
            let kernel_call = if_supported(IrqFd::assign(privcmd, domain, Irq::new(device.irq), &call_copy))?;
            queues.push(ClaimedQueue { kernel_kick, kernel_call, kick, call });
        }
        Ok(Self { queues })
    }

    fn hand_off(&self, parcel: &mut Parcel) -> Result<DeviceHandoff, SupervisorError> {
        let mut queues = Vec::new();
        for queue in &self.queues {
            queues.push(QueueHandoff {
                kick: parcel.add(&queue.kick)?,
                kick_by_kernel: queue.kernel_kick.is_some(),
                call: parcel.add(&queue.call)?,
                call_by_kernel: queue.kernel_call.is_some(),
            });
        }
        Ok(DeviceHandoff { gntdev: parcel.add(Gntdev::open()?)?, queue: queues })
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
