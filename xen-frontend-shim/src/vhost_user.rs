// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The frontend's side of vhost-user: how a backend daemon is reached, asked what it can do, started and stopped.
//!
//! ```text
//!   program | socket ──▶ negotiate (once) ──▶ session: start, stop, start, … over one connection
//!                            kind: what a device type needs      watchdog: no call waits for ever
//! ```
//!
//! The protocol's calls wait for their answers, and while one waits, so does a vCPU. A backend is trusted less than
//! that: whatever it does or does not do, each call returns in bounded time.

pub mod kind;
pub mod negotiate;
pub mod program;
pub mod session;
pub mod watchdog;

#[cfg(test)]
pub(crate) mod test_backend;

pub use kind::DeviceKind;
pub use negotiate::{NegotiateError, Offer};
pub use program::{Program, StartError};
pub use session::{Backing, Grants, Notifier, Session, SessionError};
pub use watchdog::{Limits, Watchdog};
