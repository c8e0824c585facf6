// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The privileged process: it opens the device nodes, holds what must outlive a worker, and lets guests run.
//!
//! ```text
//!   config ──▶ claim of each guest (ioreq server, channels, kernel's kicks and interrupts) ──▶ worker of each guest
//!                                                    backends ──▶ connections ──────────▶ │
//!                                                                     "ready" ──▶ unpause the guest
//! ```
//!
//! It may be killed itself: all that a guest and its drivers know is in Xen or in the state directory, and the next one
//! goes on from there ([`crate::state`]). A guest that has ended is noticed, and its devices are reset (`obituary`). SIGHUP
//! has it read the configuration again (`reload`).
//!
//! It starts workers and backends, and others in their place when they end: a worker needs no right to. It does not talk to a
//! backend, and of what a guest writes it sees whether a device has a driver, in what the worker keeps of it ([`crate::state`]).
//! What happens to one guest's processes does not concern the others.
//!
//! Which of root's rights it keeps, and why, is in crate `confinement`, `role::supervisor`.

mod back_off;
mod backend;
mod claim;
mod devices;
mod obituary;
mod process;
mod reload;
mod served;
mod signals;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use confinement::Enforcement;
use confinement::role::supervisor as role;
use log::{error, info, warn};
use thiserror::Error;
use xen_bindings::{DomId, Privcmd};

use crate::check::{self, Paths};
use crate::control::ControlError;
use crate::handoff::HandoffError;
use crate::state::StateDirectory;
use shim_config::{Config, ConfigError};

use obituary::Obituary;
use served::Served;
use watch::{Subject, Watch};

/// Why the supervisor cannot work at all.
#[derive(Debug, Error)]
pub enum SupervisorError {
    /// Xen cannot be reached.
    #[error("{0}")]
    Xen(#[from] xen_bindings::Error),
    /// The configuration is of no use.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It cannot give up what it does not need.
    #[error("{0}")]
    Confinement(#[from] confinement::Error),
    /// A worker cannot be reached.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// A worker cannot be given its descriptors.
    #[error("{0}")]
    Handoff(#[from] HandoffError),
    /// There is nothing left to do.
    #[error("no guest can be served: see above")]
    NoGuest,
}

/// The process as a whole.
struct Supervisor {
    privcmd: Privcmd,
    watch: Watch,
    served: Vec<Served>,
    obituary: Option<Obituary>,
    state: StateDirectory,
    source: PathBuf,
}

/// Serves the guests of the configuration at `source` until a signal says otherwise, going on from what a former supervisor
/// has left in the directory `state`.
pub fn run(source: &Path, state: &Path, seccomp: Enforcement) -> Result<(), SupervisorError> {
    let config = Config::read(source)?;
    let place = Paths { root: "/".into(), state: state.to_owned() };
    for finding in check::quick(&config, &place).iter().filter(|finding| !finding.is_ok()) {
        warn!("{finding}");
    }
    role::confine(seccomp)?;
    let mut state = StateDirectory::open(state)?;
    state.bequeath()?;
    let mut supervisor = Supervisor {
        privcmd: Privcmd::open()?,
        watch: Watch::new()?,
        served: Vec::new(),
        obituary: None,
        state,
        source: source.to_owned(),
    };
    supervisor.watch.add(signals::termination()?, Subject::Termination)?;
    supervisor.watch.add(signals::reload()?, Subject::Reload)?;
    supervisor.subscribe(DomId::new(config.domid))?;
    for guest in config.guest {
        let name = guest.name.clone();
        let index = u16::try_from(supervisor.served.len()).map_err(io::Error::other)?;
        let state = supervisor.state.guest(&name)?;
        match Served::new(index, guest, state, &supervisor.privcmd, seccomp) {
            Ok(served) => supervisor.served.push(served),
            Err(error) => error!("{name}: not served, and not started: {error}"),
        }
    }
    if supervisor.served.is_empty() {
        return Err(SupervisorError::NoGuest);
    }
    supervisor.supervise()
}

impl Supervisor {
    /// Has Xen tell of guests that end. Without it they are served as well, but what they leave mapped stays so.
    fn subscribe(&mut self, own: DomId) -> io::Result<()> {
        match Obituary::subscribe(&self.privcmd, own) {
            Ok(obituary) => {
                self.watch.add(&obituary, Subject::DomainExit)?;
                self.obituary = Some(obituary);
            }
            Err(error) => warn!("guests that end will not be noticed: {error}"),
        }
        Ok(())
    }

    /// The configuration may have changed. What of it cannot be had is said, and everything else goes on.
    fn reload(&mut self) -> io::Result<()> {
        // It tells how often, which is of no interest.
        signals::reload()?.read()?;
        let config = match Config::read(&self.source) {
            Ok(config) => config,
            Err(error) => {
                error!("all stays as it is: {error}");
                return Ok(());
            }
        };
        info!("configuration read again");
        for served in &mut self.served {
            let wanted = config.guest.iter().find(|guest| served.is(guest));
            served.reload(wanted.map(|guest| guest.device.clone()).unwrap_or_default());
        }
        for guest in config.guest.iter().filter(|guest| !self.served.iter().any(|served| served.is(guest))) {
            warn!("{}: a guest is added when the driver domain starts, not while it runs", guest.name);
        }
        Ok(())
    }

    /// Some domain has ended.
    fn mourn(&mut self) -> Result<(), SupervisorError> {
        if let Some(obituary) = &self.obituary {
            obituary.acknowledge()?;
        }
        self.served.iter_mut().for_each(|served| served.check_life(&self.privcmd));
        Ok(())
    }

    fn supervise(&mut self) -> Result<(), SupervisorError> {
        loop {
            let now = Instant::now();
            for served in &mut self.served {
                served.attend(&self.watch, now);
            }
            let deadline = self.served.iter().filter_map(Served::deadline).min();
            for subject in self.watch.wait(deadline)? {
                if subject == Subject::Termination {
                    info!("terminated: the guests' accesses to their devices wait from now on");
                    return Ok(());
                }
                match subject {
                    Subject::DomainExit => self.mourn()?,
                    Subject::Reload => self.reload()?,
                    _ => {}
                }
                self.handle(subject)?;
            }
        }
    }

    fn handle(&mut self, subject: Subject) -> io::Result<()> {
        let Self { privcmd, watch, served, .. } = self;
        let Some(served) = subject.guest().and_then(|guest| served.get_mut(usize::from(guest))) else {
            return Ok(());
        };
        let now = Instant::now();
        match subject {
            Subject::Termination | Subject::Reload | Subject::DomainExit => Ok(()),
            Subject::Control(_) => {
                served.spoken(watch, privcmd, now);
                Ok(())
            }
            Subject::Worker(_) => served.worker_ended(watch, now),
            Subject::Backend(_, device) => served.backend_ended(device, watch, now),
        }
    }
}
