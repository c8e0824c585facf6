// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices of one guest with their backends, and their changes when the configuration is read again.
//!
//! ```text
//!   added ──▶ Served ── not wanted ──▶ Releasing ── worker releases it ──▶ Released ── backend ends ──▶ gone
//!               ▲                          │
//!               └─── a driver uses it ─────┘
//! ```
//!
//! Devices are added when all released ones are gone: a new one may have the address or the hardware of an
//! old one. For the same reason a backend is started when the former one has ended; and there must be a
//! worker to give it to.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use confinement::Enforcement;
use log::{error, info, warn};

use super::SupervisorError;
use super::backend::{End, ManagedBackend, UNUSABLE};
use super::claim::Claim;
use super::device::{ManagedDevice, Stage};
use super::memory::MemoryAccess;
use super::reload::{is_same_to_guest, merge};
use super::watch::{Subject, Watch};
use crate::control::Control;
use shim_config::{Device, Guest};

/// The time that a worker has to answer a request to release a device. A worker may wait for backends for up
/// to 5 s each before it answers.
const RELEASE_LIMIT: Duration = Duration::from_secs(20);

/// How long a guest waits for the backend of an optional device when its worker starts.
const OPTIONAL_LIMIT: Duration = Duration::from_secs(2);

/// All devices of a guest, by their numbers.
pub(super) struct Devices {
    /// The index of the guest.
    guest: u16,
    name: String,
    memory: MemoryAccess,
    seccomp: Enforcement,
    devices: BTreeMap<u16, ManagedDevice>,
    /// The number that was given last.
    last: u16,
    /// The devices of the new configuration, until they are added.
    wanted: Option<Vec<Device>>,
    /// Whether devices have been added or removed, which is not logged yet.
    is_changed: bool,
}

impl Devices {
    /// Claims the devices of `guest`.
    pub(super) fn new(
        index: u16,
        guest: &Guest,
        claim: &Claim,
        seccomp: Enforcement,
    ) -> Result<Self, SupervisorError> {
        let mut all = Self {
            guest: index,
            name: guest.name.clone(),
            memory: MemoryAccess::of(guest),
            seccomp,
            devices: BTreeMap::new(),
            last: u16::MAX,
            wanted: None,
            is_changed: false,
        };
        for device in &guest.device {
            all.add(device, claim, None)?;
        }
        claim.log_paths(guest, all.devices.values().map(|device| &device.claimed));
        Ok(all)
    }

    /// Adds a device, and assigns it to the worker if there is one.
    fn add(
        &mut self,
        device: &Device,
        claim: &Claim,
        worker: Option<&Control>,
    ) -> Result<(), SupervisorError> {
        let claimed = claim.claim_device(device)?;
        let name = format!("{}/{}", self.name, device.name);
        let sockets = claim.sockets(device)?;
        let backend = ManagedBackend::new(name, device.backend.clone(), sockets, self.seccomp);
        // Numbers are used again as late as possible: an event of a removed device must not reach a new one.
        let mut numbers = (1..=u16::MAX).map(|more| self.last.wrapping_add(more));
        let number = numbers.find(|number| !self.devices.contains_key(number));
        let number = number.ok_or(SupervisorError::TooManyDevices)?;
        if let Some(worker) = worker {
            worker.assign(number, &claim.assignment(&claimed)?)?;
        }
        self.last = number;
        let waited_until = None;
        self.devices.insert(number, ManagedDevice { claimed, backend, stage: Stage::Served, waited_until });
        Ok(())
    }

    /// Assigns all served devices to a new worker.
    pub(super) fn assign(
        &mut self,
        worker: &Control,
        claim: &Claim,
        now: Instant,
    ) -> Result<(), SupervisorError> {
        for (number, device) in self.served() {
            worker.assign(number, &claim.assignment(&device.claimed)?)?;
        }
        for device in self.devices.values_mut() {
            device.waited_until = device.claimed.device.optional.then(|| now + OPTIONAL_LIMIT);
        }
        Ok(worker.begin()?)
    }

    fn served(&self) -> impl Iterator<Item = (u16, &ManagedDevice)> {
        let served = self.devices.iter().filter(|(_, device)| device.stage == Stage::Served);
        served.map(|(number, device)| (*number, device))
    }

    /// The configuration of the served devices.
    fn configuration(&self) -> Vec<Device> {
        self.served().map(|(_, device)| device.claimed.device.clone()).collect()
    }

    /// Kills overdue backends, removes and adds devices, and starts backends, as far as each can be done now.
    pub(super) fn advance(&mut self, worker: Option<&Control>, claim: &Claim, watch: &Watch, now: Instant) {
        for device in self.devices.values_mut() {
            if let Some(process) = device.backend.process() {
                process.kill_if_overdue(now);
            }
        }
        self.remove_released(claim);
        self.add_wanted(worker, claim);
        if let Some(worker) = worker {
            self.start_backends(worker, watch, now);
        }
    }

    /// The time at which [`Self::advance`] is to be called if no event comes before.
    pub(super) fn deadline(&self, has_worker: bool) -> Option<Instant> {
        let deadlines = self.devices.values().flat_map(|device| {
            let (may_start, other) = match device.stage {
                Stage::Served => (has_worker, device.waited_until.filter(|_| has_worker)),
                Stage::Releasing(answer_by) => (false, answer_by),
                Stage::Released => (false, None),
            };
            [device.backend.deadline(may_start), other]
        });
        deadlines.flatten().min()
    }

    /// Whether the worker has not answered a request to release a device in time. True once for each request.
    pub(super) fn take_overdue_release(&mut self, now: Instant) -> bool {
        let mut is_any_overdue = false;
        for device in self.devices.values_mut() {
            if let Stage::Releasing(answer_by) = &mut device.stage
                && answer_by.is_some_and(|deadline| deadline <= now)
            {
                *answer_by = None;
                is_any_overdue = true;
            }
        }
        is_any_overdue
    }

    /// Starts to replace the devices of the guest by those that are wanted.
    pub(super) fn reload(
        &mut self,
        wanted: Vec<Device>,
        worker: Option<&Control>,
        claim: &Claim,
        now: Instant,
    ) {
        let current = self.configuration();
        let merged = merge(&current, &wanted, |device| claim.is_used(device));
        for refusal in &merged.refusals {
            warn!("{}: {refusal}", self.name);
        }
        if merged.devices == current && self.wanted.is_none() {
            return;
        }
        for (number, device) in &mut self.devices {
            if device.stage != Stage::Served || merged.devices.contains(&device.claimed.device) {
                continue;
            }
            match worker.map(|worker| worker.release(*number)) {
                None => device.released(now),
                Some(Ok(())) => device.stage = Stage::Releasing(Some(now + RELEASE_LIMIT)),
                Some(Err(error)) => {
                    warn!("{}: stays as it is: its worker cannot be asked: {error}", device.backend.name());
                }
            }
        }
        self.wanted = Some(wanted);
    }

    /// Removes the released devices whose backends have ended. The state record stays if the guest takes a
    /// wanted device for the same one.
    fn remove_released(&mut self, claim: &Claim) {
        let Some(wanted) = &self.wanted else { return };
        let is_gone = |_: &u16, device: &mut ManagedDevice| {
            device.stage == Stage::Released && device.backend.is_absent()
        };
        for (_, gone) in self.devices.extract_if(.., is_gone) {
            let former = &gone.claimed.device;
            if !wanted.iter().any(|device| is_same_to_guest(device, former))
                && let Err(error) = claim.remove_records(former)
            {
                warn!("{}: its records cannot be removed: {error}", gone.backend.name());
            }
        }
    }

    /// Adds the wanted devices when all others are served or gone.
    fn add_wanted(&mut self, worker: Option<&Control>, claim: &Claim) {
        if self.devices.values().any(|device| device.stage != Stage::Served) {
            return;
        }
        let Some(wanted) = self.wanted.take() else { return };
        let current = self.configuration();
        // Devices that are not wanted and still here stay, for a reason that was logged.
        let mut added = merge(&current, &wanted, |_| true).devices;
        added.retain(|device| !current.contains(device));
        self.is_changed = true;
        let mut is_any_added = false;
        for device in &added {
            match self.add(device, claim, worker) {
                Ok(()) => is_any_added = true,
                Err(error) => error!("{}: {} cannot be added: {error}", self.name, device.name),
            }
        }
        // The worker reports when the added devices answer.
        if !is_any_added {
            self.log_change();
        }
    }

    /// Logs a change of the devices, if there was one and it is complete.
    pub(super) fn log_change(&mut self) {
        if self.wanted.is_none() && std::mem::take(&mut self.is_changed) {
            info!("{}: has {} devices from now on", self.name, self.served().count());
        }
    }

    /// The addresses of the windows of the served devices.
    pub(super) fn windows(&self) -> Vec<u64> {
        self.served().map(|(_, device)| device.claimed.device.base).collect()
    }

    /// Removes the records of all devices.
    pub(super) fn remove_records(&self, claim: &Claim) -> io::Result<()> {
        self.devices.values().try_for_each(|device| claim.remove_records(&device.claimed.device))
    }

    /// Handles the report that the worker has released a device.
    pub(super) fn released(&mut self, number: u16, now: Instant) {
        if let Some(device) = self.releasing(number) {
            device.released(now);
        }
    }

    /// Handles the report that the worker keeps a device, since a driver uses it.
    pub(super) fn kept(&mut self, number: u16) {
        if let Some(device) = self.releasing(number) {
            warn!("{}: stays as it is: its driver uses it; unbind that first", device.backend.name());
            device.stage = Stage::Served;
        }
    }

    fn releasing(&mut self, number: u16) -> Option<&mut ManagedDevice> {
        self.devices.get_mut(&number).filter(|device| matches!(device.stage, Stage::Releasing(_)))
    }

    /// Handles the report that the worker has closed the connection to a backend that has served the device.
    pub(super) fn connection_closed(&mut self, number: u16, now: Instant) {
        if let Some(ManagedDevice { backend, .. }) = self.devices.get_mut(&number)
            && backend.connection_closed(true)
        {
            backend.failed("connection to the backend closed", now);
        }
    }

    /// Handles the report that the worker cannot use a backend, and has closed the connection to it.
    pub(super) fn refused(&mut self, number: u16, worker: Option<&Control>, now: Instant) {
        let Some(device) = self.devices.get_mut(&number) else { return };
        if device.backend.connection_closed(false) {
            device.backend.failed(UNUSABLE, now);
        }
        device.stop_waiting(number, worker);
    }

    /// Kills the process of a backend. The worker requests this while the process runs.
    pub(super) fn kill(&mut self, number: u16, now: Instant) {
        let device = self.devices.get_mut(&number);
        if let Some(process) = device.and_then(|device| device.backend.process()) {
            process.expect_end(now);
            process.kill_if_overdue(now);
        }
    }

    /// Handles the end of a backend's process.
    pub(super) fn backend_ended(
        &mut self,
        number: u16,
        worker: Option<&Control>,
        watch: &Watch,
        now: Instant,
    ) -> io::Result<()> {
        let Some(device) = self.devices.get_mut(&number) else { return Ok(()) };
        let ManagedDevice { backend, stage, .. } = device;
        if let Some(process) = backend.process() {
            watch.remove(&process.as_fd());
        }
        match backend.reap()? {
            None => {}
            Some(_) if *stage != Stage::Served => {
                info!("{}: device removed, its backend has ended", backend.name());
            }
            Some(End::WithConnection) => {
                info!("{}: backend ended with its connection; starting it again", backend.name());
                backend.ended(now);
            }
            Some(End::Failed(reason)) => {
                backend.failed(&reason, now);
                device.stop_waiting(number, worker);
            }
        }
        Ok(())
    }

    /// Handles the end of the worker, and with it of all connections. A driver may have begun to use a device
    /// whose release was requested.
    pub(super) fn worker_ended(&mut self, claim: &Claim, now: Instant) {
        for device in self.devices.values_mut() {
            match device.stage {
                Stage::Releasing(_) if claim.is_used(&device.claimed.device) => device.stage = Stage::Served,
                Stage::Releasing(_) => device.released(now),
                Stage::Served | Stage::Released => {}
            }
            device.disconnected(now);
        }
    }

    /// Starts the backends of served devices that have none, and delivers them to the worker.
    fn start_backends(&mut self, worker: &Control, watch: &Watch, now: Instant) {
        for (number, device) in &mut self.devices {
            if device.stage != Stage::Served {
                continue;
            }
            let subject = Subject::Backend(self.guest, *number);
            match device.start_backend(self.memory, watch, subject, now) {
                Ok(Some(connection)) => device.deliver(*number, worker, Some(&connection)),
                Ok(None) => {}
                Err(error) => {
                    if device.backend.is_absent() {
                        device.backend.failed(&error.to_string(), now);
                    }
                    // A socket may appear later, and the worker waits for it. A program that cannot be
                    // started will not.
                    if device.backend.is_absent() && !device.backend.is_external() {
                        device.waited_until = Some(now);
                    }
                    device.stop_waiting(*number, Some(worker));
                }
            }
            if device.waited_until.is_some_and(|until| until <= now) {
                device.stop_waiting(*number, Some(worker));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_bindings::DomId;

    use crate::supervisor::claim::ClaimedDevice;
    use shim_config::{Backend, Program};

    /// The devices of a guest: one that its worker has been asked to release until `answer_by`.
    fn releasing(answer_by: Instant) -> Devices {
        let backend = Backend::Program(Program::new(vec!["backend".into()]));
        let device = Device::new("i2c".into(), 34, 0, 0x200_0000, 33, backend.clone());
        let sockets = "/run/i2c.sockets".into();
        let device = ManagedDevice {
            claimed: ClaimedDevice::without_queues(device),
            backend: ManagedBackend::new("guest-a/i2c".into(), backend, sockets, Enforcement::On),
            stage: Stage::Releasing(Some(answer_by)),
            waited_until: None,
        };
        Devices {
            guest: 0,
            name: "guest-a".into(),
            memory: MemoryAccess::Granted(DomId::new(2)),
            seccomp: Enforcement::On,
            devices: BTreeMap::from([(7, device)]),
            last: 7,
            wanted: Some(Vec::new()),
            is_changed: false,
        }
    }

    #[test]
    fn release_that_is_not_answered_in_time_is_overdue_once() {
        let answer_by = Instant::now() + RELEASE_LIMIT;
        let mut devices = releasing(answer_by);
        assert_eq!(devices.deadline(true), Some(answer_by));
        assert!(!devices.take_overdue_release(answer_by - Duration::from_millis(1)));
        assert!(devices.take_overdue_release(answer_by));
        assert!(!devices.take_overdue_release(answer_by));
        assert_eq!(devices.deadline(true), None);
        // The answer may still come before the worker ends.
        devices.kept(7);
        assert_eq!(devices.devices[&7].stage, Stage::Served);
    }

    #[test]
    fn release_that_is_answered_is_not_overdue() {
        let answer_by = Instant::now() + RELEASE_LIMIT;
        let answers: [fn(&mut Devices, Instant); 2] =
            [|devices, now| devices.released(7, now), |devices, _| devices.kept(7)];
        for answer in answers {
            let mut devices = releasing(answer_by);
            answer(&mut devices, answer_by);
            assert!(!devices.take_overdue_release(answer_by));
            assert_eq!(devices.deadline(false), None);
        }
    }
}
