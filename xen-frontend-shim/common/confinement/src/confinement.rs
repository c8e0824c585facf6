// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The steps of confinement, in an order in which each is still permitted.

use std::io;

use landlock::{PathFdError, RulesetError};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, set_no_new_privs};
use thiserror::Error;

use crate::limits::ResourceLimits;
use crate::paths::{self, Reach};
use crate::user::{self, User};

/// The rights that a process keeps.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// The user that it becomes. `None`: the user stays.
    pub user: Option<User>,
    /// The resources that it may use.
    pub limits: ResourceLimits,
    /// What it can access besides its descriptors.
    pub reach: Reach,
    /// The capabilities that it keeps.
    pub capabilities: CapabilitySet,
}

/// Reasons why a process cannot be confined.
#[derive(Debug, Error)]
pub enum Error {
    /// The user cannot be changed.
    #[error("cannot become user {0}: {1} (start this as root, as that user, or without a user)")]
    User(User, #[source] io::Error),
    /// A step failed.
    #[error("cannot {0}: {1}")]
    Step(&'static str, #[source] io::Error),
    /// The kernel has Landlock, and refuses.
    #[error("cannot restrict file access by Landlock: {0}")]
    Landlock(#[from] RulesetError),
    /// A path that the process is to access cannot be opened.
    #[error("cannot allow access to a path: {0}")]
    Path(#[from] PathFdError),
    /// User and Landlock domain belong to a thread.
    #[error("the process has {0} threads, of which only one would be confined")]
    Threads(usize),
    /// The list of system calls is invalid.
    #[error("invalid list of system calls: {0}")]
    List(#[from] seccompiler::BackendError),
    /// The list has names that are no system calls.
    #[error("unknown system call in the list: {0}")]
    Name(#[source] Box<seccompiler::Error>),
    /// The kernel refuses the list of system calls.
    #[error(
        "cannot restrict system calls: {0} (the kernel needs CONFIG_SECCOMP_FILTER; without it, use \
         `--seccomp off`)"
    )]
    Seccomp(#[from] seccompiler::Error),
}

impl Confinement {
    /// Confines the process. To be called while it has one thread; threads that it starts later inherit the
    /// confinement.
    ///
    /// # Errors
    /// If the kernel refuses a step. The process is then confined in part, and should end.
    pub fn enter(self) -> Result<(), Error> {
        match threads() {
            0 | 1 => {}
            several => return Err(Error::Threads(several)),
        }
        // The paths are opened as the user that the process starts as.
        let domain = paths::prepare(&self.reach)?;
        step("limit resources", self.limits.apply())?;
        step("bound capabilities", user::bound_capabilities(self.capabilities))?;
        if let Some(user) = self.user {
            user.assume().map_err(|error| Error::User(user, error.into()))?;
        }
        step("drop capabilities", user::keep_capabilities(self.capabilities))?;
        step("set no_new_privs", set_no_new_privs(true))?;
        // After the change of the user, which resets this.
        step("make memory undumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
        Ok(paths::enter(domain)?)
    }
}

fn step(what: &'static str, result: rustix::io::Result<()>) -> Result<(), Error> {
    result.map_err(|error| Error::Step(what, error.into()))
}

/// The number of threads of the process, or 0 if it is not known.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
