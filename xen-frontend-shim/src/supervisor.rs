// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The privileged process: it opens the device nodes, holds what must outlive a worker, and lets guests run.
//!
//! ```text
//!   config ──▶ claim of each guest (ioreq server, channels, kernel's kicks and interrupts) ──▶ worker of each guest
//!                                                                     "ready" ──▶ unpause the guest
//! ```
//!
//! It neither sees what a guest writes nor talks to a backend. What happens to one guest's worker does not concern the
//! others.

mod claim;
mod signals;

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use log::{error, info, warn};
use thiserror::Error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use xen_bindings::{DomId, Privcmd, Unpaused};

use crate::config::{Config, Guest};
use crate::handoff::READY;
use crate::vhost_user::program::pidfd;

use claim::Claim;

/// How long to wait before a worker is replaced: this much more for each one that the guest has lost.
const BACK_OFF: Duration = Duration::from_millis(100);
/// At most so long.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// The token of the event that ends the supervisor. The guests' are below.
const TERMINATION: u64 = u64::MAX;

/// Why the supervisor cannot work at all.
#[derive(Debug, Error)]
pub enum SupervisorError {
    /// Xen cannot be reached.
    #[error("{0}")]
    Xen(#[from] xen_bindings::Error),
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is nothing left to do.
    #[error("no guest can be served: see above")]
    NoGuest,
}

/// One guest that is served.
struct Served {
    guest: Guest,
    // Before the claim: a worker must be gone before what it uses is taken away.
    worker: Option<Worker>,
    claim: Claim,
    /// How many workers it has lost.
    losses: u32,
    /// When it gets another.
    due: Option<Instant>,
    has_run: bool,
}

/// A running worker.
struct Worker {
    child: Child,
    pidfd: OwnedFd,
    control: UnixStream,
}

/// The process as a whole.
struct Supervisor {
    privcmd: Privcmd,
    epoll: Epoll,
    served: Vec<Served>,
}

/// Serves the guests of `config` until a signal says otherwise.
pub fn run(config: Config) -> Result<(), SupervisorError> {
    let mut supervisor = Supervisor { privcmd: Privcmd::open()?, epoll: Epoll::new()?, served: Vec::new() };
    supervisor.watch(signals::termination()?, TERMINATION)?;
    for guest in config.guest {
        let name = guest.name.clone();
        if let Err(error) = supervisor.serve(guest) {
            error!("{name}: not served, and not started: {error}");
        }
    }
    if supervisor.served.is_empty() {
        return Err(SupervisorError::NoGuest);
    }
    supervisor.supervise()
}

impl Worker {
    /// Starts this program again as the worker of `guest`.
    fn start(claim: &Claim, guest: &Guest, is_replacement: bool) -> Result<Self, SupervisorError> {
        let (control, theirs) = UnixStream::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("worker").stdin(Stdio::null());
        let (parcel, handoff) = claim.hand_off(guest, is_replacement)?;
        parcel.attach(&mut command, theirs.into(), &handoff)?;
        let child = command.spawn()?;
        let pidfd = pidfd(&child)?;
        Ok(Self { child, pidfd, control })
    }
}

impl Supervisor {
    fn serve(&mut self, guest: Guest) -> Result<(), SupervisorError> {
        let claim = Claim::new(&guest)?;
        let served = Served { guest, worker: None, claim, losses: 0, due: None, has_run: false };
        self.served.push(served);
        let index = self.served.len() - 1;
        self.start_worker(index).inspect_err(|_| drop(self.served.pop()))
    }

    fn start_worker(&mut self, index: usize) -> Result<(), SupervisorError> {
        let Some(served) = self.served.get_mut(index) else { return Ok(()) };
        served.due = None;
        let worker = Worker::start(&served.claim, &served.guest, served.losses > 0)?;
        let fds = [worker.control.as_raw_fd(), worker.pidfd.as_raw_fd()];
        served.worker = Some(worker);
        for (token, fd) in tokens(index).into_iter().zip(fds) {
            self.watch(&fd, token)?;
        }
        Ok(())
    }

    fn supervise(&mut self) -> Result<(), SupervisorError> {
        let mut events = [EpollEvent::default(); 8];
        loop {
            let count = match self.epoll.wait(self.timeout(), &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            for event in events.iter().take(count) {
                if event.data() == TERMINATION {
                    info!("terminated: the guests' accesses to their devices wait from now on");
                    return Ok(());
                }
                self.handle(event.data())?;
            }
            self.replace_due()?;
        }
    }

    fn handle(&mut self, token: u64) -> io::Result<()> {
        for index in 0..self.served.len() {
            let [control, exit] = tokens(index);
            if token == control {
                self.spoken(index)?;
            } else if token == exit {
                self.ended(index)?;
            }
        }
        Ok(())
    }

    fn watch(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, token))
    }

    fn forget(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Delete, fd.as_raw_fd(), EpollEvent::default())
    }

    /// Milliseconds until a worker is to be replaced, -1 for never.
    fn timeout(&self) -> i32 {
        let due = self.served.iter().filter_map(|served| served.due).min();
        due.map_or(-1, |due| {
            let left = due.saturating_duration_since(Instant::now());
            // Rounded up, lest it be early and asked for again at once.
            i32::try_from(left.as_millis().saturating_add(1)).unwrap_or(i32::MAX)
        })
    }

    fn replace_due(&mut self) -> Result<(), SupervisorError> {
        let now = Instant::now();
        for index in 0..self.served.len() {
            if self.served.get(index).is_some_and(|served| served.due.is_some_and(|due| due <= now)) {
                self.start_worker(index)?;
            }
        }
        Ok(())
    }

    /// A worker says that every device answers, or hangs up.
    fn spoken(&mut self, index: usize) -> io::Result<()> {
        let Some(served) = self.served.get_mut(index) else { return Ok(()) };
        let Some(worker) = &mut served.worker else { return Ok(()) };
        let mut message = [0];
        let is_ready = matches!(worker.control.read(&mut message), Ok(1..)) && message == [READY];
        if !is_ready {
            let control = worker.control.as_raw_fd();
            return self.forget(&control);
        }
        if !served.has_run {
            served.has_run = true;
            release(&self.privcmd, served);
        }
        Ok(())
    }

    /// A worker has ended, which it never should.
    fn ended(&mut self, index: usize) -> io::Result<()> {
        let Some(served) = self.served.get_mut(index) else { return Ok(()) };
        let Some(mut worker) = served.worker.take() else { return Ok(()) };
        let status = worker.child.wait()?;
        served.losses = served.losses.saturating_add(1);
        let back_off = BACK_OFF.saturating_mul(served.losses).min(BACK_OFF_MAX);
        served.due = Some(Instant::now() + back_off);
        let name = &served.guest.name;
        error!(
            "{name}: its worker has ended ({status}); another takes over, and the guest's devices need a reset"
        );
        // It has gone from the epoll set with its last descriptor, but the control socket may have been passed on.
        self.forget(&worker.pidfd)?;
        // It fails if the worker hung up before it ended.
        let _ = self.forget(&worker.control);
        Ok(())
    }
}

/// The tokens of the two descriptors of a guest's worker: its control socket and its end.
fn tokens(index: usize) -> [u64; 2] {
    let index = u64::try_from(index).unwrap_or(TERMINATION >> 2);
    [2 * index, 2 * index + 1]
}

/// Its devices answer: gives a guest its windows and lets it run.
fn release(privcmd: &Privcmd, served: &Served) {
    let name = &served.guest.name;
    if let Err(error) = served.claim.map_windows(&served.guest) {
        error!("{name}: stays paused: {error}");
        return;
    }
    match privcmd.unpause(DomId::new(served.guest.domid)) {
        Ok(Unpaused::Now) => info!("{name}: unpaused"),
        Ok(Unpaused::WasRunning) => warn!(
            "{name}: it was running before its devices answered; give its domain node the property \
             `start-paused` lest it crash when it looks for them"
        ),
        Err(error) => error!("{name}: stays paused: {error}"),
    }
}
