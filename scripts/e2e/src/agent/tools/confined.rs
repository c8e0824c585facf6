// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the driver domain's processes could do with what they have: each attempt on a line of its own.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Gid, Pid, PidfdFlags, PidfdGetfdFlags, Uid, pidfd_getfd, pidfd_open};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use xen_bindings::{DomId, Privcmd};

use super::Failure;

/// Tries to open each path for reading and writing, as the user that a daemon runs as.
pub(super) fn open_as(user: u32, paths: &[&str]) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    for path in paths {
        say(path, &OpenOptions::new().read(true).write(true).open(path).map_err(Into::into));
    }
    Ok(())
}

/// Tries a call of a device model for each domain, with the very descriptor that a process has of privcmd.
pub(super) fn borrow_privcmd(process: u32, domains: &[u16]) -> Result<(), Failure> {
    let privcmd = Privcmd::from_fd(descriptor(process, Path::new("/dev/xen/privcmd"))?);
    for domain in domains {
        say(&format!("domain {domain}"), &privcmd.nr_vcpus(DomId::new(*domain)).map_err(Into::into));
    }
    Ok(())
}

fn say<T>(what: &str, outcome: &Result<T, Failure>) {
    match outcome {
        Ok(_) => println!("{what}: done"),
        Err(error) => println!("{what}: refused: {error}"),
    }
}

/// The open file itself, not the node opened once more.
fn descriptor(process: u32, wanted: &Path) -> Result<OwnedFd, Failure> {
    let mut found = fs::read_dir(format!("/proc/{process}/fd"))?
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|path| path == wanted));
    let entry = found.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let number = entry.file_name().to_string_lossy().parse()?;
    let pid = Pid::from_raw(i32::try_from(process)?).ok_or("no process has the number 0")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())?)
}
