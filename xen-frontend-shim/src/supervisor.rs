// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The privileged process: it claims the guests, starts workers and backends, replaces them, and unpauses the
//! guests.
//!
//! ```text
//!   configuration ──▶ claim of each guest (ioreq server, event channels, kicks and interrupts by the kernel)
//!                        └──▶ worker of each guest ◀── connections ── backends of its devices
//!                                └── "Ready" ──▶ the guest is unpaused
//! ```
//!
//! All state of guests and drivers is in Xen or in the state directory ([`crate::state`]), so the supervisor
//! may end at any time: the next one continues. It resets the devices of a guest that has ended
//! (`domain_exit`) and reads its configuration again on SIGHUP (`reload`).
//!
//! Workers need no right to start processes, since the supervisor starts backends and workers. It does not
//! use the connections to the backends. Of what a guest writes it reads whether a device has a driver, in the
//! state record. The processes of one guest do not affect those of another.
//!
//! Crate `confinement`, `role::supervisor`, lists the rights that it keeps, with the reason of each.

mod back_off;
mod backend;
mod claim;
mod device;
mod devices;
mod domain_exit;
mod error;
mod guest;
mod memory;
mod process;
mod program;
mod reload;
mod server;
mod signals;
mod socket;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use confinement::Enforcement;
use confinement::role::supervisor as role;
use log::{error, info, warn};
use xen_bindings::{DomId, Privcmd};

use crate::check::{self, Paths};
use crate::state::StateDirectory;
use shim_config::{Config, Guest};

pub use error::SupervisorError;
pub(crate) use program::has_place;

use domain_exit::DomainExit;
use guest::ManagedGuest;
use watch::{Subject, Watch};

/// The state of the process.
struct Supervisor {
    privcmd: Privcmd,
    watch: Watch,
    guests: Vec<ManagedGuest>,
    domain_exit: Option<DomainExit>,
    state: StateDirectory,
    config: PathBuf,
    seccomp: Enforcement,
}

/// Serves the guests of the configuration at
/// `config` until SIGTERM or SIGINT. It continues from the records in the directory `state`.
pub fn run(config: &Path, state: &Path, seccomp: Enforcement) -> Result<(), SupervisorError> {
    let guests = Config::read(config)?;
    let paths = Paths { root: "/".into(), state: state.to_owned() };
    for finding in check::quick(&guests, &paths).iter().filter(|finding| !finding.is_ok()) {
        warn!("{finding}");
    }
    role::confine(seccomp)?;
    let mut supervisor = Supervisor::new(config, state, seccomp)?;
    supervisor.watch_domain_exit(DomId::new(guests.domid))?;
    for guest in guests.guest {
        supervisor.claim(guest)?;
    }
    if supervisor.guests.is_empty() {
        return Err(SupervisorError::NoGuest);
    }
    supervisor.serve()
}

impl Supervisor {
    /// Locks the state directory and opens what all guests need. There are no guests yet.
    fn new(config: &Path, state: &Path, seccomp: Enforcement) -> Result<Self, SupervisorError> {
        let mut state = StateDirectory::open(state)?;
        state.persist_lock()?;
        let watch = Watch::new()?;
        watch.add(signals::termination()?, Subject::Termination)?;
        watch.add(signals::reload()?, Subject::Reload)?;
        let (privcmd, config) = (Privcmd::open()?, config.to_owned());
        Ok(Self { privcmd, watch, guests: Vec::new(), domain_exit: None, state, config, seccomp })
    }

    /// Registers for the end of domains. If Xen refuses, guests are served all the same, but what a guest
    /// that has ended granted stays mapped.
    fn watch_domain_exit(&mut self, own: DomId) -> io::Result<()> {
        match DomainExit::subscribe(&self.privcmd, own) {
            Ok(domain_exit) => {
                self.watch.add(&domain_exit, Subject::DomainExit)?;
                self.domain_exit = Some(domain_exit);
            }
            Err(error) => warn!("the end of a guest will not be noticed: {error}"),
        }
        Ok(())
    }

    /// Claims a guest. A guest that cannot be claimed is not served and not unpaused.
    fn claim(&mut self, guest: Guest) -> Result<(), SupervisorError> {
        let index = u16::try_from(self.guests.len()).map_err(|_| SupervisorError::TooManyGuests)?;
        let (name, state) = (guest.name.clone(), self.state.guest(&guest.name)?);
        match ManagedGuest::new(index, guest, state, &self.privcmd, self.seccomp) {
            Ok(guest) => self.guests.push(guest),
            Err(error) => error!("{name}: not served and not unpaused: {error}"),
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<(), SupervisorError> {
        loop {
            let now = Instant::now();
            for guest in &mut self.guests {
                guest.advance(&self.watch, now);
            }
            let deadline = self.guests.iter().filter_map(ManagedGuest::deadline).min();
            for subject in self.watch.wait(deadline)? {
                match subject {
                    Subject::Termination => {
                        info!("terminated: register accesses of the guests wait for the next supervisor");
                        return Ok(());
                    }
                    Subject::Reload => self.reload()?,
                    Subject::DomainExit => self.check_domains()?,
                    Subject::Control(index) | Subject::Worker(index) | Subject::Backend(index, _) => {
                        self.handle_guest_event(index, subject)?;
                    }
                }
            }
        }
    }

    fn handle_guest_event(&mut self, index: u16, subject: Subject) -> io::Result<()> {
        let now = Instant::now();
        let Some(guest) = self.guests.get_mut(usize::from(index)) else { return Ok(()) };
        match subject {
            Subject::Control(_) => {
                guest.receive_report(&self.watch, &self.privcmd, now);
                Ok(())
            }
            Subject::Worker(_) => guest.worker_ended(&self.watch, now),
            Subject::Backend(_, device) => guest.backend_ended(device, &self.watch, now),
            Subject::Termination | Subject::Reload | Subject::DomainExit => Ok(()),
        }
    }

    /// Reads the configuration again and changes the devices of the guests. What cannot be changed is logged.
    fn reload(&mut self) -> io::Result<()> {
        // The count of signals has no meaning: reading it makes the descriptor wait for the next signal.
        signals::reload()?.read()?;
        let config = match Config::read(&self.config) {
            Ok(config) => config,
            Err(error) => {
                error!("configuration not changed: {error}");
                return Ok(());
            }
        };
        info!("configuration read again");
        let now = Instant::now();
        for guest in &mut self.guests {
            let wanted = config.guest.iter().find(|other| guest.is(other));
            guest.reload(wanted.map(|guest| guest.device.clone()).unwrap_or_default(), now);
        }
        for added in config.guest.iter().filter(|added| !self.guests.iter().any(|guest| guest.is(added))) {
            warn!("{}: not added: a new guest needs a restart of the driver domain", added.name);
        }
        Ok(())
    }

    /// Handles the event that some domain has ended: it does not tell which.
    fn check_domains(&mut self) -> Result<(), SupervisorError> {
        if let Some(domain_exit) = &self.domain_exit {
            domain_exit.acknowledge()?;
        }
        self.guests.iter_mut().for_each(|guest| guest.check_domain(&self.privcmd));
        Ok(())
    }
}
