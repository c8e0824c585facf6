// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The steps into confinement, in the order in which each is still allowed.

use std::io;

use landlock::RulesetError;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, set_no_new_privs};
use thiserror::Error;

use crate::limits::ResourceLimits;
use crate::paths::{self, Reach};
use crate::user::{self, User};

/// What a process keeps of what it may do by its user and by its place in the system.
#[derive(Clone, Copy, Debug)]
pub struct Confinement {
    /// Whom it becomes. `None`: it stays who it is, without capabilities.
    pub user: Option<User>,
    /// How much it may take.
    pub limits: ResourceLimits,
    /// What it reaches beyond its descriptors.
    pub reach: Reach,
    /// The capabilities that it keeps.
    pub capabilities: CapabilitySet,
}

/// Why a process cannot be confined.
#[derive(Debug, Error)]
pub enum Error {
    /// Only root changes users.
    #[error("cannot become user {0}: {1} (start it as root, or as that user, or without naming one)")]
    User(User, #[source] io::Error),
    /// Some step failed.
    #[error("cannot {0}: {1}")]
    Step(&'static str, #[source] io::Error),
    /// Landlock exists and refuses.
    #[error("cannot close the paths: {0}")]
    Landlock(#[from] RulesetError),
    /// Users and Landlock are properties of a thread.
    #[error("there are {0} threads already, of which only one would be confined")]
    Threads(usize),
    /// The list of system calls is none.
    #[error("the list of system calls is wrong: {0}")]
    List(#[from] seccompiler::BackendError),
    /// The kernel does not take the list of system calls.
    #[error(
        "cannot restrict system calls: {0} (the kernel needs CONFIG_SECCOMP_FILTER; where there is none, \
         `--seccomp off` goes without)"
    )]
    Seccomp(#[from] seccompiler::Error),
}

impl Confinement {
    /// Enters it. To be called while the process has one thread; those that it starts later are confined likewise.
    ///
    /// # Errors
    /// When the kernel refuses a step. The process should end then: it is confined in part.
    pub fn enter(self) -> Result<(), Error> {
        match threads() {
            0 | 1 => {}
            several => return Err(Error::Threads(several)),
        }
        step("limit its resources", self.limits.apply())?;
        step("bound its capabilities", user::bound_capabilities(self.capabilities))?;
        if let Some(user) = self.user {
            user.assume().map_err(|error| Error::User(user, error.into()))?;
        }
        step("give up its capabilities", user::keep_capabilities(self.capabilities))?;
        step("renounce new privileges", set_no_new_privs(true))?;
        // After the user: the kernel sets it anew with that.
        step("hide its memory", set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
        Ok(paths::close(self.reach)?)
    }
}

fn step(what: &'static str, result: rustix::io::Result<()>) -> Result<(), Error> {
    result.map_err(|error| Error::Step(what, error.into()))
}

/// How many threads the process has, or 0 where it is not known.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
