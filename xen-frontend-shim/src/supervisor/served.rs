// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One guest that is served: its worker and the backends of its devices, each of which is replaced when it ends.
//!
//! ```text
//!   worker ends ──▶ its backends notice and end, or are killed ──▶ pause ──▶ worker, and then backends
//!   backend ends ──▶ pause ──▶ another ──▶ its connection goes to the worker
//! ```
//!
//! A backend is started when there is a worker to give it to and nothing is left of the one before. So a new one finds the
//! hardware free, and what the former had mapped of the guest is unmapped.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use confinement::Enforcement;
use log::{error, info, warn};
use xen_bindings::{DomId, Gntdev, Privcmd, Unpaused};

use super::SupervisorError;
use super::back_off::BackOff;
use super::backend::Backend;
use super::claim::Claim;
use super::obituary::end_of;
use super::process::{self, Process};
use super::reload::merge;
use super::watch::{Subject, Watch};
use crate::config::{Device, Guest};
use crate::control::{Connection, Control, Report};
use crate::state::GuestState;

/// How long a backend may take to end by itself when its worker has.
const EXIT_LIMIT: Duration = Duration::from_secs(1);

/// A guest, and who serves it.
pub(super) struct Served {
    /// Its place among all guests, for events.
    index: u16,
    guest: Guest,
    seccomp: Enforcement,
    // Before the claim: a worker must be gone before what it uses is taken away.
    worker: Option<Worker>,
    worker_back_off: BackOff,
    backends: Vec<Backend>,
    claim: Claim,
    /// Whether a worker has answered the guest since the claim was made.
    is_answered: bool,
    /// Whether the guest has ended. Its devices are still there, but nobody uses them.
    is_gone: bool,
    /// The devices that it is to have as soon as nothing of worker and backends is left.
    wanted: Option<Vec<Device>>,
}

/// A running worker.
struct Worker {
    process: Process,
    control: Control,
}

fn backends(guest: &str, devices: &[Device]) -> Vec<Backend> {
    let backend = |device: &Device| {
        Backend::new(format!("{guest}/{}", device.name), device.backend.clone(), device.user)
    };
    devices.iter().map(backend).collect()
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
        let end = end_of(privcmd, DomId::new(guest.domid)).unwrap_or_default();
        if let Some(end) = &end {
            warn!("{}: has {end}; nobody will use its devices", guest.name);
            claim.forget()?;
        }
        Ok(Self {
            index,
            backends: backends(&guest.name, &guest.device),
            guest,
            seccomp,
            worker: None,
            worker_back_off: BackOff::default(),
            claim,
            is_answered: false,
            is_gone: end.is_some(),
            wanted: None,
        })
    }

    /// Starts and kills whatever is due.
    pub(super) fn attend(&mut self, watch: &Watch, now: Instant) {
        if let Some(worker) = &mut self.worker {
            worker.process.enforce(now);
        }
        if self.worker.is_none() && self.is_empty() {
            self.reconfigure();
        }
        if self.worker.is_none() && self.wanted.is_none() && self.worker_back_off.is_due(now) {
            self.start_worker(watch, now);
        }
        for device in 0..self.backends.len() {
            self.attend_backend(device, watch, now);
        }
    }

    /// When [`Self::attend`] has something to do, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let starts = self.worker.is_some();
        let backends = self.backends.iter().filter_map(|backend| backend.deadline(starts));
        let worker = match &self.worker {
            Some(worker) => worker.process.deadline(),
            None if self.wanted.is_some() => None,
            None => self.worker_back_off.due(),
        };
        backends.chain(worker).min()
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
            Ok(worker) => self.worker = Some(worker),
            Err(error) => {
                let pause = self.worker_back_off.ended(now);
                error!("{}: cannot start its worker: {error}; trying again in {pause:?}", self.guest.name);
            }
        }
    }

    fn attend_backend(&mut self, device: usize, watch: &Watch, now: Instant) {
        let Some(backend) = self.backends.get_mut(device) else { return };
        if let Some(process) = backend.process() {
            process.enforce(now);
        }
        let Some(worker) = &self.worker else { return };
        let Ok(number) = u16::try_from(device) else { return };
        if !backend.is_absent() || !backend.back_off.is_due(now) {
            return;
        }
        backend.back_off.started(now);
        let (domain, subject) = (DomId::new(self.guest.domid), Subject::Backend(self.index, number));
        let delivered = match Self::start_backend(backend, domain, watch, subject) {
            Ok(connection) => worker.control.deliver(number, Some(&connection)),
            Err(error) => {
                let pause = backend.back_off.ended(now);
                if pause == BackOff::FIRST {
                    error!("{}: {error}; trying again from time to time", backend.name);
                }
                // A socket may be there in a moment, and the worker waits for it. A program will not.
                if backend.is_elsewhere() { Ok(()) } else { worker.control.deliver(number, None) }
            }
        };
        if let Err(error) = delivered {
            warn!("{}: its worker does not take its backend: {error}", backend.name);
        }
    }

    fn start_backend(
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

    /// The worker says something, or hangs up.
    pub(super) fn spoken(&mut self, watch: &Watch, privcmd: &Privcmd, now: Instant) {
        let Some(worker) = &self.worker else { return };
        match worker.control.hear() {
            Ok(Some(Report::Ready)) => self.ready(privcmd),
            Ok(Some(Report::Lost(device))) => self.let_go(usize::from(device), now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It is about to end, or makes no sense any more.
            Ok(None) | Err(_) => watch.remove(&worker.control.as_fd()),
        }
    }

    fn let_go(&mut self, device: usize, now: Instant) {
        let Some(backend) = self.backends.get_mut(device) else { return };
        if backend.let_go() {
            let pause = backend.back_off.ended(now);
            warn!("{}: its backend has hung up; connecting again in {pause:?}", backend.name);
        }
    }

    /// The worker has ended, which it never should.
    pub(super) fn worker_ended(&mut self, watch: &Watch, now: Instant) -> io::Result<()> {
        let Some(Worker { process, control }) = self.worker.take() else { return Ok(()) };
        watch.remove(&process.as_fd());
        watch.remove(&control.as_fd());
        let status = process.reap()?;
        let pause = self.worker_back_off.ended(now);
        if self.wanted.is_some() {
            info!("{}: its worker makes room for another configuration", self.guest.name);
        } else {
            error!("{}: its worker has ended ({status}); another takes over in {pause:?}", self.guest.name);
        }
        for backend in &mut self.backends {
            backend.let_go();
            if let Some(process) = backend.process() {
                process.expect_end(now + EXIT_LIMIT);
            }
        }
        Ok(())
    }

    /// The program of a device's backend has ended.
    pub(super) fn backend_ended(&mut self, device: u16, watch: &Watch, now: Instant) -> io::Result<()> {
        let Some(backend) = self.backends.get_mut(usize::from(device)) else { return Ok(()) };
        if let Some(process) = backend.process() {
            watch.remove(&process.as_fd());
        }
        if let Some(status) = backend.ended()? {
            let pause = backend.back_off.ended(now);
            warn!("{}: its backend has ended ({status}); another is started in {pause:?}", backend.name);
        }
        Ok(())
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

    /// Begins to give the guest other devices, if that is wanted: the worker makes room, and the next one has them.
    pub(super) fn reload(&mut self, wanted: Vec<Device>) {
        let merged = merge(&self.guest.device, &wanted, |device| self.claim.is_used(device));
        for refusal in &merged.refusals {
            warn!("{}: {refusal}", self.guest.name);
        }
        if merged.devices == self.guest.device {
            return;
        }
        self.wanted = Some(wanted);
        if let Some(worker) = &mut self.worker {
            worker.process.expect_end(Instant::now());
        }
    }

    /// Whether nothing of the backends is left.
    fn is_empty(&self) -> bool {
        self.backends.iter().all(Backend::is_absent)
    }

    /// Gives the guest the devices that are wanted, while nobody serves any.
    fn reconfigure(&mut self) {
        let Some(wanted) = self.wanted.take() else { return };
        // A driver may have come since they were wanted.
        let merged = merge(&self.guest.device, &wanted, |device| self.claim.is_used(device));
        let name = &self.guest.name;
        match self.claim.reconfigure(&merged.devices) {
            Ok(()) => info!("{name}: has {} devices from now on", merged.devices.len()),
            Err(error) => return error!("{name}: its devices cannot be changed: {error}"),
        }
        self.backends = backends(&self.guest.name, &merged.devices);
        self.guest.device = merged.devices;
    }

    /// Its devices answer: gives the guest its windows and lets it run.
    fn ready(&mut self, privcmd: &Privcmd) {
        let is_first = !std::mem::replace(&mut self.is_answered, true);
        if let Err(error) = self.claim.map_windows() {
            error!("{}: cannot reach its devices: {error}", self.guest.name);
        } else if is_first && !self.is_gone {
            self.unpause(privcmd);
        }
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
