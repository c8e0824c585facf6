// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices of one guest, each with its backend, and how they come and go when the configuration is read again.
//!
//! ```text
//!   added ──▶ served ── no more wanted ──▶ asked for ── the worker has let go of it ──▶ leaving ── its backend has ended ──▶ gone
//!               ▲                              │
//!               └───── its driver uses it ─────┘
//! ```
//!
//! A device is added when all that leave are gone: it may have the place or the hardware of one of them. A backend is started when
//! there is a worker to give it to and nothing is left of the one before, for the same reason.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use xen_bindings::{DomId, Gntdev};

use super::SupervisorError;
use super::back_off::BackOff;
use super::backend::Backend;
use super::claim::{Claim, ClaimedDevice};
use super::reload::{is_same_to_guest, merge};
use super::watch::{Subject, Watch};
use crate::control::{Connection, Control};
use shim_config::{Device, Guest};

/// How long a backend may take to end by itself when its connection has.
const EXIT_LIMIT: Duration = Duration::from_secs(1);

/// How far a device has come on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is served.
    Served,
    /// The worker has been asked to let go of it.
    Asked,
    /// Only its backend's process may be left.
    Leaving,
}

/// One device.
struct ServedDevice {
    claimed: ClaimedDevice,
    backend: Backend,
    stage: Stage,
}

/// All devices of a guest, by their numbers.
pub(super) struct Devices {
    /// The guest's place among all guests, and its name.
    guest: u16,
    name: String,
    domain: DomId,
    devices: BTreeMap<u16, ServedDevice>,
    /// The number that was given last.
    last: u16,
    /// What there is to be when all that leave are gone.
    wanted: Option<Vec<Device>>,
    /// Whether devices have come or gone, and nobody has been told yet.
    is_news: bool,
}

impl Devices {
    /// Claims the devices of `guest`, whose place among all guests is `index`.
    pub(super) fn new(index: u16, guest: &Guest, claim: &Claim) -> Result<Self, SupervisorError> {
        let (name, domain, devices) = (guest.name.clone(), DomId::new(guest.domid), BTreeMap::new());
        let mut all =
            Self { guest: index, name, domain, devices, last: u16::MAX, wanted: None, is_news: false };
        for device in &guest.device {
            all.add(device, claim, None)?;
        }
        claim.report(guest, all.devices.values().map(|device| &device.claimed));
        Ok(all)
    }

    /// Adds a device, and tells the worker, if there is one.
    fn add(
        &mut self,
        device: &Device,
        claim: &Claim,
        worker: Option<&Control>,
    ) -> Result<(), SupervisorError> {
        let claimed = claim.device(device)?;
        let name = format!("{}/{}", self.name, device.name);
        let backend = Backend::new(name, device.backend.clone(), device.user);
        // One that is not in use: an event of a device that is gone must not meet another.
        let mut numbers = (1..=u16::MAX).map(|more| self.last.wrapping_add(more));
        let number = numbers.find(|number| !self.devices.contains_key(number));
        let number = number.ok_or_else(|| io::Error::other("there are too many devices"))?;
        if let Some(worker) = worker {
            worker.assign(number, &claim.assign(&claimed)?)?;
        }
        self.last = number;
        self.devices.insert(number, ServedDevice { claimed, backend, stage: Stage::Served });
        Ok(())
    }

    /// Gives a new worker all devices that are to be served.
    pub(super) fn assign(&self, worker: &Control, claim: &Claim) -> Result<(), SupervisorError> {
        for (number, device) in self.served() {
            worker.assign(number, &claim.assign(&device.claimed)?)?;
        }
        Ok(worker.begin()?)
    }

    fn served(&self) -> impl Iterator<Item = (u16, &ServedDevice)> {
        let served = self.devices.iter().filter(|(_, device)| device.stage == Stage::Served);
        served.map(|(number, device)| (*number, device))
    }

    /// The configuration of the devices that are served.
    fn configuration(&self) -> Vec<Device> {
        self.served().map(|(_, device)| device.claimed.device.clone()).collect()
    }

    /// Starts and kills whatever is due, and adds and removes devices if that can be done now.
    pub(super) fn attend(&mut self, worker: Option<&Control>, claim: &Claim, watch: &Watch, now: Instant) {
        for device in self.devices.values_mut() {
            if let Some(process) = device.backend.process() {
                process.enforce(now);
            }
        }
        self.remove_and_add(worker, claim);
        if let Some(worker) = worker {
            let (guest, domain) = (self.guest, self.domain);
            for (number, device) in &mut self.devices {
                if device.stage == Stage::Served {
                    let subject = Subject::Backend(guest, *number);
                    device.start_backend(*number, domain, worker, watch, subject, now);
                }
            }
        }
    }

    /// When [`Self::attend`] has something to do, if nothing happens before.
    pub(super) fn deadline(&self, has_worker: bool) -> Option<Instant> {
        let deadline =
            |device: &ServedDevice| device.backend.deadline(has_worker && device.stage == Stage::Served);
        self.devices.values().filter_map(deadline).min()
    }

    /// Begins to give the guest these devices in place of those that it has.
    pub(super) fn reload(&mut self, wanted: Vec<Device>, worker: Option<&Control>, claim: &Claim) {
        let are = self.configuration();
        let merged = merge(&are, &wanted, |device| claim.is_used(device));
        for refusal in &merged.refusals {
            warn!("{}: {refusal}", self.name);
        }
        if merged.devices == are && self.wanted.is_none() {
            return;
        }
        for (number, device) in &mut self.devices {
            if device.stage != Stage::Served || merged.devices.contains(&device.claimed.device) {
                continue;
            }
            match worker.map(|worker| worker.release(*number)) {
                None => device.leave(Instant::now()),
                Some(Ok(())) => device.stage = Stage::Asked,
                Some(Err(error)) => {
                    warn!("{}: stays as it is: its worker does not listen: {error}", device.backend.name);
                }
            }
        }
        self.wanted = Some(wanted);
    }

    /// Removes what is gone. When nothing is on its way out any more, adds what is wanted.
    fn remove_and_add(&mut self, worker: Option<&Control>, claim: &Claim) {
        let Some(wanted) = &self.wanted else { return };
        let is_gone =
            |_: &u16, device: &mut ServedDevice| device.stage == Stage::Leaving && device.backend.is_absent();
        for (_, gone) in self.devices.extract_if(.., is_gone) {
            let former = &gone.claimed.device;
            if !wanted.iter().any(|device| is_same_to_guest(device, former))
                && let Err(error) = claim.forget(former)
            {
                warn!("{}: what its driver has said cannot be forgotten: {error}", gone.backend.name);
            }
        }
        if self.devices.values().any(|device| device.stage != Stage::Served) {
            return;
        }
        let are = self.configuration();
        // Those of them that are not wanted stay for a reason that was given.
        let mut merged = merge(&are, wanted, |_| true).devices;
        self.wanted = None;
        merged.retain(|device| !are.contains(device));
        self.is_news = true;
        let mut is_more = false;
        for device in &merged {
            match self.add(device, claim, worker) {
                Ok(()) => is_more = true,
                Err(error) => error!("{}: {} cannot be added: {error}", self.name, device.name),
            }
        }
        // What was added is not there for the guest before the worker says so.
        if !is_more {
            self.answered();
        }
    }

    /// All devices answer, as the worker says.
    pub(super) fn answered(&mut self) {
        if self.wanted.is_none() && std::mem::take(&mut self.is_news) {
            info!("{}: has {} devices from now on", self.name, self.served().count());
        }
    }

    /// Where the windows of the devices are.
    pub(super) fn windows(&self) -> Vec<u64> {
        self.served().map(|(_, device)| device.claimed.device.base).collect()
    }

    /// Forgets what drivers have said, since there are none any more.
    pub(super) fn forget(&self, claim: &Claim) -> io::Result<()> {
        self.devices.values().try_for_each(|device| claim.forget(&device.claimed.device))
    }

    /// The worker has let go of a device that it was asked for.
    pub(super) fn released(&mut self, number: u16, now: Instant) {
        if let Some(device) = self.asked(number) {
            device.leave(now);
        }
    }

    /// The worker has not let go of a device that it was asked for: a driver has come meanwhile.
    pub(super) fn kept(&mut self, number: u16) {
        if let Some(device) = self.asked(number) {
            warn!("{}: stays as it is: its driver uses it; unbind that first", device.backend.name);
            device.stage = Stage::Served;
        }
    }

    fn asked(&mut self, number: u16) -> Option<&mut ServedDevice> {
        self.devices.get_mut(&number).filter(|device| device.stage == Stage::Asked)
    }

    /// The worker has let go of the connection to a backend.
    pub(super) fn connection_ended(&mut self, number: u16, now: Instant) {
        let Some(ServedDevice { backend, .. }) = self.devices.get_mut(&number) else { return };
        if backend.let_go() {
            let pause = backend.back_off.ended(now);
            warn!("{}: its backend has hung up; connecting again in {pause:?}", backend.name);
        }
    }

    /// The program of a device's backend has ended.
    pub(super) fn backend_ended(&mut self, number: u16, watch: &Watch, now: Instant) -> io::Result<()> {
        let Some(ServedDevice { backend, stage, .. }) = self.devices.get_mut(&number) else { return Ok(()) };
        if let Some(process) = backend.process() {
            watch.remove(&process.as_fd());
        }
        match backend.ended()? {
            Some(status) if *stage == Stage::Served => {
                let pause = backend.back_off.ended(now);
                warn!("{}: its backend has ended ({status}); another is started in {pause:?}", backend.name);
            }
            Some(_) => info!("{}: its backend has ended with the device", backend.name),
            None => {}
        }
        Ok(())
    }

    /// The worker has ended, and with it all connections. A driver may have come to a device that the worker was asked for.
    pub(super) fn worker_ended(&mut self, claim: &Claim, now: Instant) {
        for device in self.devices.values_mut() {
            match device.stage {
                Stage::Asked if claim.is_used(&device.claimed.device) => device.stage = Stage::Served,
                Stage::Asked => device.leave(now),
                Stage::Served | Stage::Leaving => {}
            }
            device.disconnect(now);
        }
    }
}

impl ServedDevice {
    /// Nothing of it is with a worker.
    fn leave(&mut self, now: Instant) {
        self.stage = Stage::Leaving;
        self.disconnect(now);
    }

    /// The connection to its backend has ended, upon which the backend should.
    fn disconnect(&mut self, now: Instant) {
        self.backend.let_go();
        if let Some(process) = self.backend.process() {
            process.expect_end(now + EXIT_LIMIT);
        }
    }

    fn start_backend(
        &mut self,
        number: u16,
        domain: DomId,
        worker: &Control,
        watch: &Watch,
        subject: Subject,
        now: Instant,
    ) {
        let backend = &mut self.backend;
        if !backend.is_absent() || !backend.back_off.is_due(now) {
            return;
        }
        backend.back_off.started(now);
        let delivered = match start(backend, domain, watch, subject) {
            Ok(connection) => worker.deliver(number, Some(&connection)),
            Err(error) => {
                let pause = backend.back_off.ended(now);
                if pause == BackOff::FIRST {
                    error!("{}: {error}; trying again from time to time", backend.name);
                }
                // A socket may be there in a moment, and the worker waits for it. A program will not.
                if backend.is_elsewhere() { Ok(()) } else { worker.deliver(number, None) }
            }
        };
        if let Err(error) = delivered {
            warn!("{}: its worker does not take its backend: {error}", backend.name);
        }
    }
}

fn start(
    backend: &mut Backend,
    domain: DomId,
    watch: &Watch,
    subject: Subject,
) -> Result<Connection, SupervisorError> {
    let gntdev = Gntdev::open_for(domain)?.as_fd().try_clone_to_owned()?;
    let connection = backend.start(gntdev).map_err(io::Error::other)?;
    if let Some(process) = backend.process() {
        watch.add(&process.as_fd(), subject)?;
    }
    Ok(connection)
}
