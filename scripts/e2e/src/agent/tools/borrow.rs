// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attempts to reach domains with the `/dev/xen` descriptors of a process, as an attacker in that process
//! could. Prints a line for each attempt: `DOMID ATTEMPT: done` or `DOMID ATTEMPT: refused: REASON`.
//!
//! The attempts use the open files of the process itself, as its user, and without its seccomp filter: a
//! filter does not see which domain an ioctl is about, and programs of other projects have none.
//!
//! The target of each attempt exists: it is found or created before, as root, with an unrestricted
//! descriptor.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use xen_bindings::{
    Access, Channel, CopyBatch, DomId, Evtchn, Gfn, Gntdev, GrantRef, IoreqServer, Privcmd, RemotePort,
};

use super::arguments::Failure;
use super::confined::{become_user, report};

/// The grant references that are searched: those of the first page of a grant table. A guest grants its rings
/// while it boots, so these are among them.
const GRANTS: u32 = 512;

/// A grant reference beyond the end of every grant table.
const NO_GRANT: u32 = u32::MAX;

/// The first page of a guest's RAM (Xen's public/arch-arm.h, GUEST_RAM0_BASE).
const FIRST_PAGE: Gfn = Gfn::new(0x40000);

/// A domain, with a grant and event channels to reach it by.
struct Target {
    domain: DomId,
    /// A page that the domain has granted.
    grant: GrantRef,
    /// An event channel that is not bound yet.
    offer: RemotePort,
    /// An event channel that another descriptor has bound.
    bound: Channel,
    _servers: [IoreqServer; 2],
}

/// Tries all `/dev/xen` descriptors of a process on each domain.
pub(super) fn borrow(process: u32, domains: &[u16]) -> Result<(), Failure> {
    let open_files = |path| descriptors(process, Path::new(path));
    let privcmds: Vec<_> = open_files("/dev/xen/privcmd")?.into_iter().map(Privcmd::from_fd).collect();
    let gntdevs: Vec<_> = open_files("/dev/xen/gntdev")?.into_iter().map(Gntdev::from_fd).collect();
    let evtchns: Vec<_> = open_files("/dev/xen/evtchn")?.into_iter().map(Evtchn::from_fd).collect();
    let evtchn = Evtchn::open()?;
    let targets = domains.iter().map(|domain| Target::find(DomId::new(*domain), &evtchn));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    become_user(user(process)?)?;
    for target in &targets {
        privcmds.iter().for_each(|privcmd| target.call(privcmd));
        gntdevs.iter().for_each(|gntdev| target.use_grants(gntdev));
        evtchns.iter().for_each(|evtchn| target.bind(evtchn));
    }
    Ok(())
}

impl Target {
    fn find(domain: DomId, evtchn: &Evtchn) -> Result<Self, Failure> {
        let gntdev = Gntdev::open()?;
        let granted = |grant: &GrantRef| gntdev.map(domain, &[*grant], Access::Read).is_ok();
        // A guest without grants has none: each attempt fails then.
        let grant = (0..GRANTS).map(GrantRef::new).find(granted).unwrap_or(GrantRef::new(NO_GRANT));
        let privcmd = Privcmd::open()?;
        let (first, offer) = offer(&privcmd, domain)?;
        let (second, other) = self::offer(&privcmd, domain)?;
        let bound = evtchn.bind(domain, other)?;
        Ok(Self { domain, grant, offer, bound, _servers: [first, second] })
    }

    fn report<T>(&self, attempt: &str, result: Result<T, xen_bindings::Error>) {
        report(&format!("{} {attempt}", self.domain.get()), &result.map_err(Into::into));
    }

    fn call(&self, privcmd: &Privcmd) {
        self.report("call", privcmd.nr_vcpus(self.domain));
        self.report("map-foreign", privcmd.map_foreign(self.domain, FIRST_PAGE, 1));
    }

    fn use_grants(&self, gntdev: &Gntdev) {
        self.report("map", gntdev.map(self.domain, &[self.grant], Access::Read));
        let mut byte = [0];
        let mut batch = CopyBatch::new();
        // One byte does not cross a page.
        let _ = batch.from_guest(self.domain, self.grant, 0, &mut byte);
        self.report("copy-from", gntdev.copy(&mut batch));
        let mut batch = CopyBatch::new();
        // The destination does not exist, so a copy that the kernel permits is refused by Xen in the status
        // of the operation.
        let _ = batch.to_guest(self.domain, GrantRef::new(NO_GRANT), 0, &byte);
        self.report("copy-to", gntdev.copy(&mut batch));
        self.report("restrict", gntdev.restrict(self.domain));
    }

    fn bind(&self, evtchn: &Evtchn) {
        self.report("bind", evtchn.bind(self.domain, self.offer));
        self.report("bind-static", evtchn.bind_static(self.bound.port()));
        self.report("bind-virq", evtchn.bind_domain_events());
        self.report("notify", evtchn.notify(self.bound.port()));
    }
}

/// Creates an ioreq server, and returns it with one of its event channels.
fn offer(privcmd: &Privcmd, domain: DomId) -> Result<(IoreqServer, RemotePort), Failure> {
    let server = IoreqServer::create(privcmd, domain)?;
    let page = server.page()?;
    server.set_enabled(true)?;
    let offer = page.slots().first().ok_or("the guest has no vCPU")?.event_port();
    Ok((server, offer))
}

/// Returns the user of a process.
fn user(process: u32) -> Result<u32, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
    Ok(user.ok_or("the process has no user")?.parse()?)
}

/// Returns duplicates of the descriptors that a process has of a device node. They share the process's open
/// files.
fn descriptors(process: u32, wanted: &Path) -> Result<Vec<OwnedFd>, Failure> {
    let pid = Pid::from_raw(i32::try_from(process)?).ok_or("no process has the number 0")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        if fs::read_link(entry.path()).is_ok_and(|path| path == wanted) {
            let number = entry.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
            found.push(pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())?);
        }
    }
    Ok(found)
}
