// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Landlock: no access to paths, networks and other processes.

use std::os::fd::OwnedFd;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use log::warn;

/// The newest version that this program supports. A kernel enforces what it has of it.
const NEWEST: ABI = ABI::V10;

/// What a process can access besides its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    Nothing,
    /// Other processes of its user, by signals.
    Signals,
    /// All that its user can access.
    User,
}

/// Whether the kernel has Landlock.
#[must_use]
pub fn has_landlock() -> bool {
    let ruleset = Ruleset::default().handle_access(AccessFs::ReadFile).and_then(Ruleset::create);
    ruleset.is_ok_and(|ruleset| Option::<OwnedFd>::from(ruleset).is_some())
}

/// Removes all other access from the calling thread and the threads that it starts. Requires `no_new_privs`.
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
            "this kernel has no Landlock, so only the other means confine this process (build the kernel \
             with CONFIG_SECURITY_LANDLOCK and landlock in CONFIG_LSM, or in lsm= on the command line)"
        );
    }
    Ok(())
}
