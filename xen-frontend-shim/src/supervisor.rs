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
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use log::{error, info, warn};
use thiserror::Error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use xen_bindings::{DomId, Privcmd, Unpaused};

use crate::config::{Config, Guest};
use crate::handoff::READY;
use crate::vhost_user::program::pidfd;

use claim::Claim;

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
    worker: Worker,
    _claim: Claim,
}

/// A running worker.
struct Worker {
    child: Child,
    pidfd: OwnedFd,
    control: UnixStream,
}

/// What an event is about.
enum Source {
    Signal,
    Control(usize),
    Exit(usize),
}

/// Serves the guests of `config` until a signal says otherwise.
pub fn run(config: Config) -> Result<(), SupervisorError> {
    let privcmd = Privcmd::open()?;
    let mut served = Vec::new();
    for guest in config.guest {
        match serve(&guest) {
            Ok((claim, worker)) => served.push(Served { guest, worker, _claim: claim }),
            Err(error) => error!("{}: not served, and not started: {error}", guest.name),
        }
    }
    if served.is_empty() {
        return Err(SupervisorError::NoGuest);
    }
    supervise(&privcmd, &mut served)
}

fn serve(guest: &Guest) -> Result<(Claim, Worker), SupervisorError> {
    let claim = Claim::new(guest)?;
    let worker = Worker::start(&claim, guest)?;
    Ok((claim, worker))
}

impl Worker {
    /// Starts this program again as the worker of `guest`.
    fn start(claim: &Claim, guest: &Guest) -> Result<Self, SupervisorError> {
        let (control, theirs) = UnixStream::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("worker").stdin(Stdio::null());
        let (parcel, handoff) = claim.hand_off(guest)?;
        parcel.attach(&mut command, theirs.into(), &handoff)?;
        let child = command.spawn()?;
        // The command holds the worker's end of the control socket, whose hang-up we want to see.
        drop(command);
        let pidfd = pidfd(&child)?;
        Ok(Self { child, pidfd, control })
    }
}

fn supervise(privcmd: &Privcmd, served: &mut [Served]) -> Result<(), SupervisorError> {
    let signal = signals::termination()?;
    let epoll = Epoll::new()?;
    let mut sources = vec![Source::Signal];
    watch(&epoll, signal, 0)?;
    for (index, guest) in served.iter().enumerate() {
        for (source, fd) in [
            (Source::Control(index), guest.worker.control.as_fd().as_raw_fd()),
            (Source::Exit(index), guest.worker.pidfd.as_raw_fd()),
        ] {
            watch(&epoll, &fd, sources.len())?;
            sources.push(source);
        }
    }
    let mut events = [EpollEvent::default(); 8];
    loop {
        let count = match epoll.wait(-1, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        for event in events.iter().take(count) {
            match usize::try_from(event.data()).ok().and_then(|token| sources.get(token)) {
                Some(Source::Signal) => {
                    info!("terminated: the guests' accesses to their devices wait from now on");
                    return Ok(());
                }
                Some(&Source::Control(index)) => {
                    if let Some(guest) = served.get_mut(index) {
                        spoken(privcmd, &epoll, guest)?;
                    }
                }
                Some(&Source::Exit(index)) => {
                    if let Some(guest) = served.get_mut(index) {
                        ended(&epoll, guest)?;
                    }
                }
                None => {}
            }
        }
    }
}

fn watch(epoll: &Epoll, fd: &impl AsRawFd, token: usize) -> io::Result<()> {
    let token = u64::try_from(token).unwrap_or(u64::MAX);
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, token))
}

fn forget(epoll: &Epoll, fd: &impl AsRawFd) -> io::Result<()> {
    epoll.ctl(ControlOperation::Delete, fd.as_raw_fd(), EpollEvent::default())
}

/// The worker of `guest` says that every device answers, or hangs up.
fn spoken(privcmd: &Privcmd, epoll: &Epoll, guest: &mut Served) -> io::Result<()> {
    let mut message = [0];
    match guest.worker.control.read(&mut message) {
        Ok(1..) if message == [READY] => {
            unpause(privcmd, &guest.guest);
            Ok(())
        }
        _ => forget(epoll, &guest.worker.control),
    }
}

fn unpause(privcmd: &Privcmd, guest: &Guest) {
    let name = &guest.name;
    match privcmd.unpause(DomId::new(guest.domid)) {
        Ok(Unpaused::Now) => info!("{name}: unpaused"),
        Ok(Unpaused::WasRunning) => warn!(
            "{name}: it was running before its devices answered; give its domain node the property \
             `start-paused` lest it crash when it looks for them"
        ),
        Err(error) => error!("{name}: stays paused: {error}"),
    }
}

/// The worker of `guest` has ended, which it never should.
fn ended(epoll: &Epoll, guest: &mut Served) -> io::Result<()> {
    forget(epoll, &guest.worker.pidfd)?;
    let name = &guest.guest.name;
    let status = guest.worker.child.wait()?;
    error!(
        "{name}: its worker has ended ({status}): whatever touches a device of it waits. Restart the shim and the guest"
    );
    Ok(())
}
