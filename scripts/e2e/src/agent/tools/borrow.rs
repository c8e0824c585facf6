// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a process that was taken over could do with its descriptors of `/dev/xen`: each attempt on a line of
//! its own, `DOMID ATTEMPT: done` or `DOMID ATTEMPT: refused: REASON`.
//!
//! It is tried with the very descriptors, as the user of the process. There is no list of system calls: this
//! is about what such a list cannot see, and third-party programs have none.
//!
//! All that is tried can be had: as root, by a descriptor that is not restricted, it is found or made before.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use xen_bindings::{
    Access, Channel, CopyBatch, DomId, Evtchn, Gntdev, GrantRef, IoreqServer, Privcmd, RemotePort,
};

use super::arguments::Failure;
use super::confined::{become_user, say};

/// Where a guest's rings are: granted when it boots, and so among the first. One page of a grant table has so
/// many.
const GRANTS: u32 = 512;

/// No grant table reaches that far.
const NO_GRANT: u32 = u32::MAX;

/// What a domain can be reached by.
struct Target {
    domain: DomId,
    /// A page that it has granted.
    grant: GrantRef,
    /// A channel that waits to be bound.
    offer: RemotePort,
    /// A channel that is bound, by another descriptor.
    bound: Channel,
    _servers: [IoreqServer; 2],
}

/// Tries everything that a process has of `/dev/xen` on each domain.
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
        let grant = (0..GRANTS).map(GrantRef::new).find(granted).ok_or("the guest has granted nothing")?;
        let privcmd = Privcmd::open()?;
        let (first, offer) = offer(&privcmd, domain)?;
        let (second, other) = self::offer(&privcmd, domain)?;
        let bound = evtchn.bind(domain, other)?;
        Ok(Self { domain, grant, offer, bound, _servers: [first, second] })
    }

    fn say<T>(&self, attempt: &str, result: Result<T, xen_bindings::Error>) {
        say(&format!("{} {attempt}", self.domain.get()), &result.map_err(Into::into));
    }

    fn call(&self, privcmd: &Privcmd) {
        self.say("call", privcmd.nr_vcpus(self.domain));
    }

    fn use_grants(&self, gntdev: &Gntdev) {
        self.say("map", gntdev.map(self.domain, &[self.grant], Access::Read));
        let mut byte = [0];
        let mut batch = CopyBatch::new();
        // One byte does not cross a page.
        let _ = batch.from_guest(self.domain, self.grant, 0, &mut byte);
        self.say("copy-from", gntdev.copy(&mut batch));
        let mut batch = CopyBatch::new();
        // Into nothing: Xen would refuse that in the status of the copy, after the kernel has let it pass.
        let _ = batch.to_guest(self.domain, GrantRef::new(NO_GRANT), 0, &byte);
        self.say("copy-to", gntdev.copy(&mut batch));
        self.say("restrict", gntdev.restrict(self.domain));
    }

    fn bind(&self, evtchn: &Evtchn) {
        self.say("bind", evtchn.bind(self.domain, self.offer));
        self.say("bind-static", evtchn.bind_static(self.bound.port()));
        self.say("bind-virq", evtchn.bind_domain_events());
        self.say("notify", evtchn.notify(self.bound.port()));
    }
}

/// A channel of an ioreq server that is made for it.
fn offer(privcmd: &Privcmd, domain: DomId) -> Result<(IoreqServer, RemotePort), Failure> {
    let server = IoreqServer::create(privcmd, domain)?;
    let page = server.page()?;
    server.set_enabled(true)?;
    let offer = page.slots().first().ok_or("the guest has no vCPU")?.event_port();
    Ok((server, offer))
}

/// The user of a process.
fn user(process: u32) -> Result<u32, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
    Ok(user.ok_or("the process has no user")?.parse()?)
}

/// The open files of a node that a process has, themselves: not the node opened once more.
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
