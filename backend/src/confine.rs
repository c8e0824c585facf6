// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Gives up what the daemon does not need, once its hardware is open and before it answers a frontend.
//!
//! What it keeps is said in crate `confinement`, `role::backend`. Here are the options that belong to it.

use anyhow::Context;
use clap::Args;
use confinement::role::backend::{BackendRole, Hardware, Memory};
use confinement::{Enforcement, User};

/// How guests' memory is reached was chosen at compile time.
const MEMORY: Memory = if cfg!(feature = "xen") { Memory::Granted } else { Memory::Shared };

/// The options of every daemon.
#[derive(Clone, Copy, Debug, Args)]
pub struct Options {
    /// Become this user once the hardware is open. Needs root at the start
    #[arg(long, value_name = "UID:GID")]
    user: Option<User>,
    /// What becomes of system calls that the daemon has no reason to make: `on` kills it, `log` writes them to the
    /// audit log, `off` is for kernels without seccomp
    #[arg(long, value_name = "MODE", default_value_t)]
    seccomp: Enforcement,
}

impl Options {
    /// What the process is for the kernel, which drives `hardware`.
    #[must_use]
    pub fn role(self, hardware: Hardware) -> Role {
        let logs_to_file = logging::is_to_file();
        Role {
            backend: BackendRole { user: self.user, hardware, memory: MEMORY, logs_to_file },
            seccomp: self.seccomp,
        }
    }
}

/// What the process keeps.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    backend: BackendRole,
    seccomp: Enforcement,
}

impl Role {
    /// Confines the process, while it has one thread.
    ///
    /// # Errors
    /// Says what the kernel refuses, and what to do about it.
    pub fn enter(self) -> anyhow::Result<()> {
        if self.backend.user.is_none() && rustix::process::geteuid().is_root() {
            log::warn!("the daemon stays root, though without capabilities: name a user with --user UID:GID");
        }
        self.backend.enter().context("the daemon cannot be confined")
    }

    /// Takes the system calls from it that it does not need, when all of its threads are there.
    ///
    /// # Errors
    /// Says what the kernel refuses, and what to do about it.
    pub fn enforce(self) -> anyhow::Result<()> {
        self.backend.enforce(self.seccomp).context("the daemon cannot be confined")
    }
}
