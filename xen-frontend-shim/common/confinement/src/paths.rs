// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Landlock: access to named paths only, none to networks and other processes.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};
use log::warn;
use rustix::fs::{FileType, fstat};

use crate::confinement::Error;

/// The newest version that this program supports. A kernel enforces what it has of it.
const NEWEST: ABI = ABI::V10;

/// Access to what a process reads: files, directories, the loader and the libraries of its program, and
/// device nodes with their ioctl requests.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir | IoctlDev});

/// Further access to what it writes: it makes and removes files, directories, links, pipes and sockets, but
/// no device nodes, and connects to sockets.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    WriteFile | Truncate | Refer | RemoveFile | RemoveDir | MakeReg | MakeDir | MakeSym | MakeFifo | MakeSock
        | ResolveUnix
});

/// Access to a directory of sockets.
const SOCKETS: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeSock | RemoveFile});

/// What a process can access besides its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    Nothing,
    /// Some paths, as far as its user may access them.
    Paths(Paths),
    /// All that its user can access.
    User,
}

/// Paths that a process can access, with all below them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// What it reads and executes.
    pub read: Vec<PathBuf>,
    /// What it reads and changes.
    pub write: Vec<PathBuf>,
    /// Directories in which it makes sockets, and removes them.
    pub sockets: Vec<PathBuf>,
}

/// Whether the kernel has Landlock.
#[must_use]
pub fn has_landlock() -> bool {
    let ruleset = Ruleset::default().handle_access(AccessFs::ReadFile).and_then(Ruleset::create);
    ruleset.is_ok_and(|ruleset| Option::<OwnedFd>::from(ruleset).is_some())
}

/// A Landlock domain. `None` for a process that stays as it is.
pub(crate) fn prepare(reach: &Reach) -> Result<Option<RulesetCreated>, Error> {
    let none = Paths::default();
    let paths = match reach {
        Reach::User => return Ok(None),
        Reach::Nothing => &none,
        Reach::Paths(paths) => paths,
    };
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?;
    let ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?.scope(Scope::from_all(NEWEST))?;
    let mut created = ruleset.create()?;
    for (paths, access) in [(&paths.read, READ), (&paths.write, READ | WRITE), (&paths.sockets, SOCKETS)] {
        for path in paths {
            created = created.add_rule(rule(path, access)?)?;
        }
    }
    Ok(Some(created))
}

fn rule(path: &Path, access: BitFlags<AccessFs>) -> Result<PathBeneath<PathFd>, Error> {
    let opened = PathFd::new(path)?;
    let status = fstat(&opened).map_err(|error| Error::Step("inspect a path", error.into()))?;
    let access = if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    Ok(PathBeneath::new(opened, access))
}

/// Removes all other access from the calling thread and the threads that it starts. Requires `no_new_privs`.
pub(crate) fn enter(domain: Option<RulesetCreated>) -> Result<(), RulesetError> {
    let Some(domain) = domain else { return Ok(()) };
    if domain.restrict_self()?.ruleset == RulesetStatus::NotEnforced {
        warn!(
            "this kernel has no Landlock, so only the other means confine this process (build the kernel \
             with CONFIG_SECURITY_LANDLOCK and landlock in CONFIG_LSM, or in lsm= on the command line)"
        );
    }
    Ok(())
}
