// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Gives up the privileges that the daemon does not need, after it has opened its hardware and before it
//! answers a frontend. Those that it keeps are listed in crate `confinement`, `role::backend`; this file has
//! the options.

use anyhow::Context;
use clap::Args;
use confinement::role::backend::{BackendRole, Hardware, Memory};
use confinement::{Enforcement, User};

/// The access of a build for Xen to the guest's memory.
#[cfg(feature = "xen")]
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum MemoryAccess {
    /// The pages that the guest grants.
    #[default]
    Granted,
    /// All of the guest's RAM, for guests without grants.
    All,
}

/// Options of the confinement, the same for all devices.
#[derive(Clone, Copy, Debug, Args)]
pub struct Options {
    /// Become this user once the hardware is open. Needs root at the start
    #[arg(long, value_name = "UID:GID")]
    user: Option<User>,
    /// What happens on a system call that the daemon does not need: `on` kills it, `log` writes to the audit
    /// log, `off` is for kernels without seccomp
    #[arg(long, value_name = "MODE", default_value_t)]
    seccomp: Enforcement,
    /// How much of the guest's memory the frontend gives
    #[cfg(feature = "xen")]
    #[arg(long, value_name = "WHAT", default_value = "granted")]
    memory_access: MemoryAccess,
}

impl Options {
    /// The kind of guest memory. A build for Xen has grants or foreign pages, any other shares memory.
    fn memory(self) -> Memory {
        #[cfg(feature = "xen")]
        let memory = match self.memory_access {
            MemoryAccess::Granted => Memory::Granted,
            MemoryAccess::All => Memory::Foreign,
        };
        #[cfg(not(feature = "xen"))]
        let memory = Memory::Shared;
        memory
    }

    /// Returns the role of a process that drives `hardware`.
    #[must_use]
    pub fn role(self, hardware: Hardware) -> Role {
        let logs_to_file = logging::is_to_file();
        Role {
            backend: BackendRole { user: self.user, hardware, memory: self.memory(), logs_to_file },
            seccomp: self.seccomp,
        }
    }
}

/// The privileges that the process keeps.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    backend: BackendRole,
    seccomp: Enforcement,
}

impl Role {
    /// Confines the process, which must have one thread.
    ///
    /// # Errors
    /// When the kernel refuses a step; the error has a remedy.
    pub fn enter(self) -> anyhow::Result<()> {
        if self.backend.user.is_none() && rustix::process::geteuid().is_root() {
            log::warn!("the daemon stays root, though without capabilities: name a user with --user UID:GID");
        }
        self.backend.enter().context("the daemon cannot be confined")
    }

    /// Restricts the system calls of all threads, after they have started.
    ///
    /// # Errors
    /// When the kernel refuses a step; the error has a remedy.
    pub fn enforce(self) -> anyhow::Result<()> {
        self.backend.enforce(self.seccomp).context("the daemon cannot be confined")
    }
}
