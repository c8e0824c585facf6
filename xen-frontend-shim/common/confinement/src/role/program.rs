// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A backend that is not of this project, and does not confine itself.
//!
//! The supervisor starts a process that enters this role and then executes the program, so the program is
//! confined from its first instruction. It keeps:
//!
//! - its own program and the paths that the configuration names; a directory for its socket;
//! - its control socket, over which the frontend passes memory, kicks and calls. On Xen the memory is a
//!   gntdev descriptor that is restricted to the guest, so the program needs no path of `/dev/xen`;
//! - its user, without other groups, capabilities and networks.
//!
//! Its system calls are not known. If the configuration lists them, any other call kills it. Calls that no
//! backend needs are always refused, as are the requests of gntdev and privcmd that reach more than the
//! memory of the guest. The program sees an error (`EPERM`) in that case: many programs try such a call and
//! do without.

use std::path::PathBuf;

use libc::c_long;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::supervisor::FORBIDDEN;
use crate::calls::{self, Calls, Enforcement};
use crate::confinement::{Confinement, Error};
use crate::ioctl;
use crate::limits::ResourceLimits;
use crate::paths::{Paths, Reach};
use crate::user::User;

/// Private memory, unless the configuration has another limit. A daemon of rust-vmm uses 2 to 10 MiB.
const DATA: u64 = 64 << 20;

/// Open descriptors, unless the configuration has another limit.
const DESCRIPTORS: u64 = 256;

/// Processes and threads of its user.
const PROCESSES: u64 = 64;

/// File size of a program without paths to write: memory files.
const FILE_SIZE: u64 = 1 << 20;

/// Calls that are refused besides those that are forbidden to all processes.
const REFUSED: &[c_long] = &[
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_fanotify_init,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_personality,
    libc::SYS_process_madvise,
    libc::SYS_quotactl,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// The calls that start the program or report why it cannot be started, with any list.
const START: &[&str] = &[
    "brk",
    "close",
    "execve",
    "exit_group",
    "mmap",
    "munmap",
    "rt_sigaction",
    "rt_sigprocmask",
    "sigaltstack",
    "write",
];

/// The role of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRole {
    /// The user that it becomes. `None`: the user stays.
    pub user: Option<User>,
    /// The program, and what else it reads.
    pub read: Vec<PathBuf>,
    /// What it reads and changes.
    pub write: Vec<PathBuf>,
    /// The directory in which it makes its socket.
    pub socket: Option<PathBuf>,
    /// Bytes of private memory.
    pub memory: Option<u64>,
    /// Open descriptors.
    pub open_files: Option<u64>,
    /// The names of the system calls that it may make.
    pub system_calls: Option<Vec<String>>,
    /// Whether the log goes to a file, which may exceed the limit of file size.
    pub logs_to_file: bool,
}

impl ProgramRole {
    /// Restricts the process and the program that it executes for good. To be called by its only thread.
    ///
    /// # Errors
    /// If the kernel refuses, a path is missing or a name is no system call. The process should end then.
    pub fn enter(self, enforcement: Enforcement) -> Result<(), Error> {
        let list = self.system_calls.as_deref().map(|names| list(names, enforcement)).transpose()?;
        self.confinement().enter()?;
        calls::refuse(calls::any(FORBIDDEN.iter().chain(REFUSED)), Errno::PERM, enforcement)?;
        calls::refuse(calls::dangerous_arguments()?, Errno::PERM, enforcement)?;
        calls::refuse(calls::requests_beyond(ioctl::MEMORY)?, Errno::PERM, enforcement)?;
        // Its flags cannot be checked. The C library uses `clone` then.
        calls::refuse(calls::any(&[libc::SYS_clone3]), Errno::NOSYS, enforcement)?;
        match list.flatten() {
            Some(program) => calls::install_program(&program),
            None => Ok(()),
        }
    }

    fn confinement(self) -> Confinement {
        let limits = ResourceLimits {
            descriptors: Some(self.open_files.unwrap_or(DESCRIPTORS)),
            processes: Some(PROCESSES),
            // Allocators reserve much that they do not use.
            address_space: None,
            data: Some(self.memory.unwrap_or(DATA)),
            file_size: (self.write.is_empty() && !self.logs_to_file).then_some(FILE_SIZE),
        };
        let sockets = self.socket.into_iter().collect();
        let reach = Reach::Paths(Paths { read: self.read, write: self.write, sockets });
        Confinement { user: self.user, limits, reach, capabilities: CapabilitySet::empty() }
    }
}

/// Checks that all names are system calls.
///
/// # Errors
/// If one is not.
pub fn check_names(names: &[String]) -> Result<(), Error> {
    list(names, Enforcement::On).map(drop)
}

fn list(names: &[String], enforcement: Enforcement) -> Result<Option<seccompiler::BpfProgram>, Error> {
    Calls::named(names.iter().map(String::as_str).chain(START.iter().copied()), enforcement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_is_no_system_call_is_an_error() {
        assert!(check_names(&["read".into(), "openat".into()]).is_ok());
        let error = check_names(&["read".into(), "raed".into()]).unwrap_err().to_string();
        assert!(error.contains("raed"), "{error}");
    }
}
