// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The frontend's side of vhost-user: how a backend is connected, started, stopped and killed.
//!
//! ```text
//!   socket ──▶ client: calls with a deadline ──▶ negotiate (once) ──▶ session: start, stop, start, …
//!                                                  │ backing: the guest's memory
//!                                                  │ inflight: requests that outlive a backend
//!                                                  └ backend_channel: changed configuration
//!   pidfd ───▶ process: its end
//! ```
//!
//! A vCPU waits while a call does. A backend is not trusted to reply: every call returns in bounded time.

pub mod backend_channel;
pub mod backing;
pub mod client;
pub mod inflight;
mod message;
pub mod negotiate;
pub mod process;
pub mod session;

#[cfg(test)]
pub(crate) mod scripted_backend;
#[cfg(test)]
pub(crate) mod test_backend;

pub use backing::{Backing, GuestBacking};
pub use client::{CONNECT_LIMIT, Client, ClientError};
pub use inflight::Inflight;
pub use negotiate::NegotiateError;
pub use process::Process;
pub use session::{Notifier, Session, SessionError, Start};
