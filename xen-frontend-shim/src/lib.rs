// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio-mmio ioreq server for Xen on Arm that drives vhost-user device daemons.
//!
//! ```text
//!   guest traps ──▶ hypervisor ──▶ ioreq ──▶ virtio_mmio ──▶ device ──▶ vhost_user ──▶ backend daemon
//!                                                              │            ▲
//!                                                              └─ memory ───┘  (which grants it may map)
//! ```
//!
//! That is the control path. Buffers and their notifications do not come this way: kicks go from Xen through the
//! kernel to the daemon, interrupts back, and the daemon maps or copies what the guest granted.
//!
//! The processes: a `supervisor` that owns the privileged handles, for each guest a `worker` in which all of the
//! above lives, and its backends, so that what one guest can break is its own. Each of them can be replaced: what has to
//! survive is in `state`. The supervisor is what stays privileged; crate `confinement` says what each of them may do.

pub mod assignment;
pub mod check;
pub mod control;
mod deadline;
pub mod device;
mod epoll;
pub mod handoff;
pub mod hypervisor;
pub mod ioreq;
pub mod memory;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod state;
pub mod supervisor;
pub mod vhost_user;
pub mod virtio_mmio;
pub mod window;
pub mod worker;
