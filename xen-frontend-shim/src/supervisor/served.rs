// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One guest that is served: its worker, which is replaced when it ends, and its devices ([`Devices`]).
//!
//! ```text
//!   worker ends ──▶ its backends notice and end, or are killed ──▶ pause ──▶ worker, and then backends
//!   backend ends ──▶ pause ──▶ another ──▶ its connection goes to the worker
//! ```

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
use super::obituary::end_of;
use super::process::{self, Process};
use super::watch::{Subject, Watch};
use crate::control::{Control, ControlError, Report};
use crate::state::GuestState;
use shim_config::{Device, Guest};

/// A guest, and who serves it.
pub(super) struct Served {
    /// Its place among all guests, for events.
    index: u16,
    guest: Guest,
    seccomp: Enforcement,
    // Before the claim: a worker must be gone before what it uses is taken away.
    worker: Option<Worker>,
    worker_back_off: BackOff,
    // As well: the kernel must let go of a device before the page goes.
    devices: Devices,
    claim: Claim,
    /// Whether a worker has answered the guest since the claim was made.
    is_answered: bool,
    /// Whether the guest has ended. Its devices are still there, but nobody uses them.
    is_gone: bool,
}

/// A running worker.
struct Worker {
    process: Process,
    control: Control,
}

impl Worker {
    /// Starts this program again as the worker of `guest`.
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
        let (parcel, handoff) = claim.hand_off(guest, is_first)?;
        parcel.attach(&mut command, theirs.into(), &handoff)?;
        Ok(Self { process: Process::start(command)?, control })
    }
}

impl Served {
    /// Claims `guest`, for which nobody works yet, or no more.
    pub(super) fn new(
        index: u16,
        guest: Guest,
        state: GuestState,
        privcmd: &Privcmd,
        seccomp: Enforcement,
    ) -> Result<Self, SupervisorError> {
        let claim = Claim::new(&guest, state)?;
        let devices = Devices::new(index, &guest, &claim)?;
        let end = end_of(privcmd, DomId::new(guest.domid)).unwrap_or_default();
        if let Some(end) = &end {
            warn!("{}: has {end}; nobody will use its devices", guest.name);
            devices.forget(&claim)?;
        }
        Ok(Self {
            index,
            devices,
            guest,
            seccomp,
            worker: None,
            worker_back_off: BackOff::default(),
            claim,
            is_answered: false,
            is_gone: end.is_some(),
        })
    }

    /// Starts and kills whatever is due.
    pub(super) fn attend(&mut self, watch: &Watch, now: Instant) {
        if let Some(worker) = &mut self.worker {
            worker.process.enforce(now);
        }
        if self.worker.is_none() && self.worker_back_off.is_due(now) {
            self.start_worker(watch, now);
        }
        let control = self.worker.as_ref().map(|worker| &worker.control);
        self.devices.attend(control, &self.claim, watch, now);
    }

    /// When [`Self::attend`] has something to do, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let worker = match &self.worker {
            Some(worker) => worker.process.deadline(),
            None => self.worker_back_off.due(),
        };
        self.devices.deadline(self.worker.is_some()).into_iter().chain(worker).min()
    }

    fn start_worker(&mut self, watch: &Watch, now: Instant) {
        self.worker_back_off.started(now);
        let started = Worker::start(&self.claim, &self.guest, !self.is_answered, self.seccomp);
        let started = started.and_then(|worker| {
            watch.add(&worker.control.as_fd(), Subject::Control(self.index))?;
            watch.add(&worker.process.as_fd(), Subject::Worker(self.index))?;
            Ok(worker)
        });
        match started {
            Ok(mut worker) => {
                if let Err(error) = self.devices.assign(&worker.control, &self.claim) {
                    error!("{}: its worker does not get its devices: {error}", self.guest.name);
                    worker.process.expect_end(now);
                }
                self.worker = Some(worker);
            }
            Err(error) => {
                let pause = self.worker_back_off.ended(now);
                error!("{}: cannot start its worker: {error}; trying again in {pause:?}", self.guest.name);
            }
        }
    }

    /// The worker says something, or hangs up.
    pub(super) fn spoken(&mut self, watch: &Watch, privcmd: &Privcmd, now: Instant) {
        let Some(worker) = &self.worker else { return };
        match worker.control.receive_report() {
            Ok(Some(Report::Ready)) => self.ready(privcmd),
            Ok(Some(Report::Lost(device))) => self.devices.connection_ended(device, now),
            Ok(Some(Report::Released(device))) => self.devices.released(device, now),
            Ok(Some(Report::Kept(device))) => self.devices.kept(device),
            Err(ControlError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It is about to end, or makes no sense any more.
            Ok(None) | Err(_) => watch.remove(&worker.control.as_fd()),
        }
    }

    /// The worker has ended, which it never should.
    pub(super) fn worker_ended(&mut self, watch: &Watch, now: Instant) -> io::Result<()> {
        let Some(Worker { process, control }) = self.worker.take() else { return Ok(()) };
        watch.remove(&process.as_fd());
        watch.remove(&control.as_fd());
        let status = process.reap()?;
        let pause = self.worker_back_off.ended(now);
        error!("{}: its worker has ended ({status}); another takes over in {pause:?}", self.guest.name);
        self.devices.worker_ended(&self.claim, now);
        Ok(())
    }

    /// The program of a device's backend has ended.
    pub(super) fn backend_ended(&mut self, device: u16, watch: &Watch, now: Instant) -> io::Result<()> {
        self.devices.backend_ended(device, watch, now)
    }

    /// Whether this is the guest that `other` means.
    pub(super) fn is(&self, other: &Guest) -> bool {
        self.guest.name == other.name && self.guest.domid == other.domid
    }

    /// Looks whether the guest has ended, which is news once.
    pub(super) fn check_life(&mut self, privcmd: &Privcmd) {
        if self.is_gone {
            return;
        }
        let name = &self.guest.name;
        match end_of(privcmd, DomId::new(self.guest.domid)) {
            Ok(None) => {}
            Ok(Some(end)) => {
                info!("{name}: has {end}; its devices are reset");
                self.is_gone = true;
                self.tell_of_end();
            }
            Err(error) => warn!("{name}: it is not known whether it runs: {error}"),
        }
    }

    /// A worker that cannot be told is about to end, and the next one will be.
    fn tell_of_end(&self) {
        if let Some(worker) = &self.worker
            && let Err(error) = worker.control.guest_gone()
        {
            warn!("{}: its worker does not listen: {error}", self.guest.name);
        }
    }

    /// Begins to give the guest these devices in place of those that it has. Those that stay are left alone.
    pub(super) fn reload(&mut self, wanted: Vec<Device>) {
        let control = self.worker.as_ref().map(|worker| &worker.control);
        self.devices.reload(wanted, control, &self.claim);
    }

    /// Its devices answer: gives the guest its windows and lets it run.
    fn ready(&mut self, privcmd: &Privcmd) {
        let is_first = !std::mem::replace(&mut self.is_answered, true);
        let mut windows = self.devices.windows().into_iter();
        if let Err(error) = windows.try_for_each(|base| self.claim.map_window(base)) {
            error!("{}: cannot reach its devices: {error}", self.guest.name);
        } else if is_first && !self.is_gone {
            self.unpause(privcmd);
        }
        self.devices.answered();
        if self.is_gone {
            self.tell_of_end();
        }
    }

    fn unpause(&self, privcmd: &Privcmd) {
        let name = &self.guest.name;
        match privcmd.unpause(DomId::new(self.guest.domid)) {
            Ok(Unpaused::Now) => info!("{name}: unpaused"),
            Ok(Unpaused::WasRunning) if self.claim.is_adopted() => info!("{name}: goes on"),
            Ok(Unpaused::WasRunning) => warn!(
                "{name}: it was running before its devices answered; give its domain node the property \
                 `start-paused` lest it crash when it looks for them"
            ),
            Err(error) => error!("{name}: stays paused: {error}"),
        }
    }
}
