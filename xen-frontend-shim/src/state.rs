// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state directory: the records from which the next supervisor, worker or backend continues.
//!
//! ```text
//!   /run/xen-frontend-shim/        locked by one supervisor at a time
//!     lock                         the lock: held by the supervisor and all processes that it starts
//!     GUEST/server                 the ioreq server of the shim (record), written by the supervisor
//!     GUEST/DEVICE.transport       the state record, written by the worker before it answers the driver
//!     GUEST/DEVICE.inflight        the in-flight record, written by the backend
//! ```
//!
//! The directory is in memory (tmpfs): it ends with the driver domain, and with it all that the records
//! describe. Event channels, ioeventfds, irqfds and mappings end with their processes and are made again; the
//! ioreq server stays in Xen.

pub mod directory;
pub mod record;

pub use directory::{GuestState, StateDirectory};
pub use record::{Found, Record, WriteError};
