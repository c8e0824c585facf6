// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio-mmio ioreq server for Xen on Arm that drives vhost-user device daemons.
//!
//! ```text
//!   register access ──▶ hypervisor ──▶ ioreq ──▶ window ──▶ device ──▶ vhost_user ──▶ backend
//!                                                 │          │            ▲
//!                                            virtio_mmio     └─ memory ───┘  (the grants that it may map)
//! ```
//!
//! This is the control path. Requests and their notifications take another: kicks go from Xen through the
//! kernel to the backend, interrupts back, and the backend maps or copies what the guest has granted.
//!
//! A `supervisor` owns the privileged descriptors. Each guest has a `worker`, in which all of the above runs,
//! and its backends, so a guest can affect its own processes only. Each process can be replaced: what has to
//! survive is in `state`. Crate `confinement` defines what each may do; README.md has the glossary.

pub mod assignment;
pub mod check;
pub mod control;
mod deadline;
pub mod device;
mod epoll;
pub mod handoff;
pub mod hypervisor;
pub mod ioreq;
pub mod launch;
pub mod memory;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod state;
pub mod supervisor;
pub mod vhost_user;
pub mod virtio_mmio;
pub mod window;
pub mod worker;
