// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From a trapped access of the guest to the window that it accesses: the first step of the control path.
//!
//! ```text
//!   event channel ──▶ slot (claimed, answered once) ──▶ request (parsed) ──▶ bus (which window) ──▶ window
//! ```
//!
//! A vCPU waits until its request is answered. The type [`Slot`] ensures that each is answered, not its
//! callers.

pub mod bus;
pub mod request;
pub mod slot;

pub use bus::Bus;
pub use request::{Access, Request};
pub use slot::Slot;
