// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One guest: its worker, its devices and its claim.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use confinement::Enforcement;
use log::{error, info, warn};
use xen_bindings::{DomId, Privcmd, Unpaused};

use super::SupervisorError;
use super::back_off::BackOff;
use super::claim::Claim;
use super::devices::Devices;
use super::domain_exit::end_of;
use super::process::{self, ChildProcess};
use super::watch::{Subject, Watch};
use crate::control::{Control, ControlError, Report};
use crate::state::GuestState;
use shim_config::{Device, Guest};

/// A guest and the processes that serve it.
pub(super) struct ManagedGuest {
    /// The index among all guests, for events.
    index: u16,
    guest: Guest,
    seccomp: Enforcement,
    // Dropped before the claim: the worker must end before its descriptors are closed.
    worker: Option<WorkerProcess>,
    worker_back_off: BackOff,
    // Dropped before the claim: the ioeventfds must be deassigned before the page is unmapped.
    devices: Devices,
    claim: Claim,
    /// Whether a worker has served the guest since the claim was made.
    was_served: bool,
    /// Whether the guest has ended. Its devices exist, but no driver uses them.
    has_ended: bool,
}

/// A running worker.
struct WorkerProcess {
    process: ChildProcess,
    control: Control,
}

impl WorkerProcess {
    /// Starts this program as the worker of `guest`.
    fn start(
        claim: &Claim,
        guest: &Guest,
        is_first: bool,
        seccomp: Enforcement,
    ) -> Result<Self, SupervisorError> {
        let (control, theirs) = Control::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(format!("xen-frontend-shim: {}", guest.name));
        command.args(["worker", "--seccomp", &seccomp.to_string()]);
        process::run_as(&mut command, guest.user);
        let (passed, handoff) = claim.hand_off(guest, is_first)?;
        passed.attach(&mut command, theirs.into(), &handoff)?;
        Ok(Self { process: ChildProcess::start(command)?, control })
    }
}

impl ManagedGuest {
    /// Claims `guest`. No process serves it yet.
    pub(super) fn new(
        index: u16,
        guest: Guest,
        state: GuestState,
        privcmd: &Privcmd,
        seccomp: Enforcement,
    ) -> Result<Self, SupervisorError> {
        let claim = Claim::new(&guest, state)?;
        let devices = Devices::new(index, &guest, &claim, seccomp)?;
        let end = end_of(privcmd, DomId::new(guest.domid)).unwrap_or_default();
        if let Some(end) = &end {
            warn!("{}: has {end}; its devices have no driver", guest.name);
            devices.remove_records(&claim)?;
        }
        Ok(Self {
            index,
            devices,
            guest,
            seccomp,
            worker: None,
            worker_back_off: BackOff::default(),
            claim,
            was_served: false,
            has_ended: end.is_some(),
        })
    }

    /// Kills overdue processes and starts missing ones, as far as each can be done now.
    pub(super) fn advance(&mut self, watch: &Watch, now: Instant) {
        if let Some(worker) = &mut self.worker {
            if self.devices.take_overdue_release(now) {
                error!("{}: worker does not release a device; replacing the worker", self.guest.name);
                worker.process.expect_end(now);
            }
            worker.process.kill_if_overdue(now);
        }
        if self.worker.is_none() && self.worker_back_off.is_due(now) {
            self.start_worker(watch, now);
        }
        let control = self.worker.as_ref().map(|worker| &worker.control);
        self.devices.advance(control, &self.claim, watch, now);
    }

    /// The time at which [`Self::advance`] is to be called if no event comes before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let worker = match &self.worker {
            Some(worker) => worker.process.deadline(),
            None => self.worker_back_off.due(),
        };
        self.devices.deadline(self.worker.is_some()).into_iter().chain(worker).min()
    }

    fn start_worker(&mut self, watch: &Watch, now: Instant) {
        self.worker_back_off.started(now);
        let started = WorkerProcess::start(&self.claim, &self.guest, !self.was_served, self.seccomp);
        let started = started.and_then(|worker| {
            watch.add(&worker.control.as_fd(), Subject::Control(self.index))?;
            watch.add(&worker.process.as_fd(), Subject::Worker(self.index))?;
            Ok(worker)
        });
        match started {
            Ok(mut worker) => {
                if let Err(error) = self.devices.assign(&worker.control, &self.claim, now) {
                    error!("{}: devices not assigned to the worker: {error}", self.guest.name);
                    worker.process.expect_end(now);
                }
                self.worker = Some(worker);
            }
            Err(error) => {
                let retry = self.worker_back_off.failed(now);
                error!("{}: cannot start the worker: {error}; {retry}", self.guest.name);
            }
        }
    }

    /// Receives a report of the worker.
    pub(super) fn receive_report(&mut self, watch: &Watch, privcmd: &Privcmd, now: Instant) {
        let Some(worker) = &self.worker else { return };
        match worker.control.receive_report() {
            Ok(Some(Report::Ready)) => self.ready(privcmd),
            Ok(Some(Report::Lost(device))) => self.devices.connection_closed(device, now),
            Ok(Some(Report::Refused(device))) => self.devices.refused(device, Some(&worker.control), now),
            Ok(Some(Report::Kill(device))) => self.devices.kill(device, now),
            Ok(Some(Report::Released(device))) => self.devices.released(device, now),
            Ok(Some(Report::Kept(device))) => self.devices.kept(device),
            Err(ControlError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The worker is about to end, or sends malformed messages.
            Ok(None) | Err(_) => watch.remove(&worker.control.as_fd()),
        }
    }

    /// Handles the end of the worker, which ends by itself only after an error.
    pub(super) fn worker_ended(&mut self, watch: &Watch, now: Instant) -> io::Result<()> {
        let Some(WorkerProcess { process, control }) = self.worker.take() else { return Ok(()) };
        watch.remove(&process.as_fd());
        watch.remove(&control.as_fd());
        let status = process.reap()?;
        let retry = self.worker_back_off.failed(now);
        error!("{}: worker ended ({status}); {retry}", self.guest.name);
        self.devices.worker_ended(&self.claim, now);
        Ok(())
    }

    /// Handles the end of a backend's process.
    pub(super) fn backend_ended(&mut self, device: u16, watch: &Watch, now: Instant) -> io::Result<()> {
        let control = self.worker.as_ref().map(|worker| &worker.control);
        self.devices.backend_ended(device, control, watch, now)
    }

    /// Whether `other` is the configuration of this guest.
    pub(super) fn is(&self, other: &Guest) -> bool {
        self.guest.name == other.name && self.guest.domid == other.domid
    }

    /// Queries whether the guest has ended. If so, the worker resets its devices.
    pub(super) fn check_domain(&mut self, privcmd: &Privcmd) {
        if self.has_ended {
            return;
        }
        let name = &self.guest.name;
        match end_of(privcmd, DomId::new(self.guest.domid)) {
            Ok(None) => {}
            Ok(Some(end)) => {
                info!("{name}: has {end}; its devices are reset");
                self.has_ended = true;
                self.report_end();
            }
            Err(error) => warn!("{name}: cannot query whether it runs: {error}"),
        }
    }

    /// Reports the end of the guest to the worker. If this fails the worker is about to end, and the report
    /// goes to the next one when it is ready.
    fn report_end(&self) {
        if let Some(worker) = &self.worker
            && let Err(error) = worker.control.guest_gone()
        {
            warn!("{}: the end of the guest is not reported to the worker: {error}", self.guest.name);
        }
    }

    /// Starts to replace the devices by those that are wanted. Devices that do not change are not touched.
    pub(super) fn reload(&mut self, wanted: Vec<Device>, now: Instant) {
        let control = self.worker.as_ref().map(|worker| &worker.control);
        self.devices.reload(wanted, control, &self.claim, now);
    }

    /// Handles the report that all devices answer: maps their windows and unpauses the guest.
    fn ready(&mut self, privcmd: &Privcmd) {
        let is_first = !std::mem::replace(&mut self.was_served, true);
        let mut windows = self.devices.windows().into_iter();
        if let Err(error) = windows.try_for_each(|base| self.claim.map_window(base)) {
            error!("{}: its devices cannot be mapped: {error}", self.guest.name);
        } else if is_first && !self.has_ended {
            self.unpause(privcmd);
        }
        self.devices.log_change();
        if self.has_ended {
            self.report_end();
        }
    }

    fn unpause(&self, privcmd: &Privcmd) {
        let name = &self.guest.name;
        match privcmd.unpause(DomId::new(self.guest.domid)) {
            Ok(Unpaused::Now) => info!("{name}: unpaused"),
            Ok(Unpaused::WasRunning) if self.claim.is_adopted() => info!("{name}: continues"),
            Ok(Unpaused::WasRunning) => warn!(
                "{name}: was running before its devices answered, and may crash when it probes them: set the \
                 property `start-paused` in its domain node"
            ),
            Err(error) => error!("{name}: stays paused: {error}"),
        }
    }
}
