// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Landlock: no path, no network, and nobody outside.

use std::os::fd::OwnedFd;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use log::warn;

/// The newest that is known. Of it, each kernel does what it can.
const NEWEST: ABI = ABI::V10;

/// What a process reaches beyond the descriptors that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    Nothing,
    /// It sends signals to other processes of its user.
    Signals,
    /// What its user reaches.
    User,
}

/// Whether the kernel has Landlock.
#[must_use]
pub fn has_landlock() -> bool {
    let ruleset = Ruleset::default().handle_access(AccessFs::ReadFile).and_then(Ruleset::create);
    ruleset.is_ok_and(|ruleset| Option::<OwnedFd>::from(ruleset).is_some())
}

/// Takes everything else from the calling thread and the threads that it starts. It must have `no_new_privs`.
pub(crate) fn close(reach: Reach) -> Result<(), RulesetError> {
    let mut scopes = Scope::from_all(NEWEST);
    match reach {
        Reach::User => return Ok(()),
        Reach::Signals => scopes.remove(Scope::Signal),
        Reach::Nothing => {}
    }
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?;
    let ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?.scope(scopes)?;
    let status = ruleset.create()?.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        warn!(
            "this kernel has no Landlock: the other means of confinement have to do (for Landlock, set \
             CONFIG_SECURITY_LANDLOCK, and name landlock in CONFIG_LSM or on the command line, lsm=landlock,...)"
        );
    }
    Ok(())
}
