// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The frontend's side of vhost-user: how a backend daemon is asked what it can do, started and stopped.
//!
//! ```text
//!   socket ──▶ knock ──▶ negotiate (once) ──▶ session: start, stop, start, … over one connection
//!                                                              watchdog: no call waits for ever
//!                                                              inflight: what the next backend has to know
//!   pidfd ───▶ process: its end
//! ```
//!
//! The protocol's calls wait for their answers, and while one waits, so does a vCPU. A backend is trusted less than
//! that: whatever it does or does not do, each call returns in bounded time.

pub mod inflight;
pub mod knock;
pub mod negotiate;
pub mod process;
pub mod requests;
pub mod session;
pub mod watchdog;

#[cfg(test)]
pub(crate) mod scripted_backend;
#[cfg(test)]
pub(crate) mod test_backend;

pub use inflight::Inflight;
pub use knock::Heard;
pub use negotiate::{NegotiateError, Offer};
pub use process::Process;
pub use requests::Requests;
pub use session::{Backing, Grants, Notifier, Session, SessionError, Start};
pub use watchdog::{Limits, Watchdog};
