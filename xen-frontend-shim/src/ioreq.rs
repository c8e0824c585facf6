// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From a trap of the guest to the window that it meant: the first step of the control path.
//!
//! ```text
//!   event channel ──▶ slot (claimed, answered exactly once) ──▶ request (parsed) ──▶ bus (which window) ──▶ virtio_mmio
//! ```
//!
//! A vCPU whose request is not answered hangs for ever, so answering is the job of the type [`Slot`], not of its
//! callers.

pub mod bus;
pub mod request;
pub mod slot;

pub use bus::Bus;
pub use request::{Access, Request};
pub use slot::Slot;
