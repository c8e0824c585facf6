// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What survives the shim's own processes: the state directory, in memory (tmpfs) and gone with the driver domain.
//!
//! ```text
//!   /run/xen-frontend-shim/        of one supervisor at a time (directory)
//!     lock                         held by the supervisor and by all that it starts
//!     GUEST/server                 which ioreq server is ours (record): written by the supervisor
//!     GUEST/DEVICE.transport       what the driver has said (record): written by the worker, before it answers
//!     GUEST/DEVICE.inflight        which requests the backend has taken: written by the backend
//! ```
//!
//! Event channels, kicks and interrupts by the kernel, mappings: all that ends with the processes that have it, and is made
//! anew. Only the ioreq server stays, in Xen.

pub mod directory;
pub mod record;

pub use directory::{GuestState, StateDirectory};
pub use record::{Found, Record};
