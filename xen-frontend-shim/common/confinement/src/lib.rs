// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rights of each process of the driver domain, and the means by which it gives up all others.
//!
//! ```text
//!   role (backend, worker, program, ─┬▶ Confinement::enter   limits, user, capabilities, Landlock
//!         supervisor)                └▶ Calls::enforce       seccomp: other system calls kill it
//! ```
//!
//! A process opens its files, enters its confinement, starts its threads and enforces its list of system
//! calls. Only then it reads anything that a guest wrote. From then on it can open nothing: what it can
//! access are the descriptors that it holds. The confinement adds no system call to the data path; each
//! system call is checked by a program that the kernel has compiled.
//!
//! [`role`] has one file for each kind of process, with the reason of each right. The other modules make the
//! kernel enforce it. `README.md` of this crate lists what each descriptor allows.
//!
//! # Privileged processes
//!
//! Only the supervisor of the shim stays privileged: see [`role::supervisor`].
//!
//! # Deriving a list of system calls
//!
//! The lists were derived from what the programs call in the tests, and completed by the error paths of the C
//! library and of Rust (`abort`, growing and shrinking memory, restarting an interrupted wait). To see what a
//! changed program calls, run its tests under `strace -ff -o DIRECTORY/trace` and collect the calls after it
//! has entered its confinement; or run it with `--seccomp log` on a kernel with auditing (CONFIG_AUDIT):
//! other calls are then made and logged as `type=1326` with their numbers. A program that makes a call that
//! is not on its list is killed by SIGSYS (31).

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
pub use paths::{Paths, Reach, has_landlock};
pub use user::{NotAUser, User, with_effective};
