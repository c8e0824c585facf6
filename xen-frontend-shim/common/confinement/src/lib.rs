// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What each process of the driver domain may do, and that it can do nothing else.
//!
//! ```text
//!   role (backend, worker, supervisor) ─┬▶ Confinement::enter    groups, limits, user, capabilities, no_new_privs, Landlock
//!                                       └▶ Calls::enforce        seccomp: from here on, a foreign system call is the end
//! ```
//!
//! A process opens what it needs, enters its confinement, starts its threads, enforces its list of system calls, and only
//! then looks at anything that a guest wrote. After that it opens nothing: there is no path that it can reach, so what
//! matters are the descriptors that it holds. The hot path gets no system call by this, and each system call a look into a
//! list that the kernel has compiled.
//!
//! [`role`] is where to read who may do what: one file for each kind of process, with the reason of each right. The other
//! modules know how the kernel is told.
//!
//! # What stays privileged
//!
//! The supervisor of the shim, and nothing else: see [`role::supervisor`].
//!
//! # How to derive a list of system calls again
//!
//! The lists were derived from what the tests make the programs do, and completed by what the error paths of the C library
//! and of Rust call (`abort`, growing and shrinking memory, restarting an interrupted wait). To see what a changed program
//! calls, run its tests under `strace -ff -o DIRECTORY/trace` and collect the calls after it has entered its confinement, or
//! run it with `--seccomp log` where the kernel has auditing (CONFIG_AUDIT): it then does what is not on its list as well,
//! and the kernel's log says `type=1326` with the number of the call. A program that was killed ended by SIGSYS (31).

mod calls;
mod confinement;
mod ioctl;
mod limits;
mod paths;
pub mod role;
mod user;

pub use calls::{Calls, Enforcement, NoEnforcement};
pub use confinement::{Confinement, Error};
pub use limits::ResourceLimits;
pub use paths::{Reach, has_landlock};
pub use user::{NotAUser, User};
