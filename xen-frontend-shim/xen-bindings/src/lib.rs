// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Owned, typed handles to what Xen offers a device model through Linux.
//!
//! ```text
//!  guest's access ─▶ Xen ─▶ ioreq page  (ioreq::Slot)         one slot for each vCPU
//!                       └─▶ event channel (evtchn::Channel)   "look at the slot" / "I have answered"
//!
//!  shim ─▶ privcmd::Privcmd ─┬▶ ioreq_server::IoreqServer     which windows trap to us
//!                            ├▶ eventfd::IoEventFd            QUEUE_NOTIFY → eventfd, by the kernel
//!                            ├▶ eventfd::IrqFd                eventfd → guest interrupt, by the kernel
//!                            ├▶ domain                      let a guest run, notice its end
//!                            └▶ forbidden                 what Xen shall refuse
//!  shim, daemons ─▶ gntdev::Gntdev ─┬▶ gntdev::GrantMapping   rings
//!                                   └▶ grant_copy             buffers
//! ```
//!
//! [`abi`] holds the structures as the headers of Linux and Xen define them, and a test compares them with those
//! headers. `sys` holds every `unsafe` block of the shim: the system calls and the shared memory. All other
//! modules are safe code on top of the two.
//!
//! # Lifetime
//!
//! A handle undoes on drop what made it: an ioreq server is destroyed, an event channel closed, a grant
//! unmapped. What must outlive its process is let go (`keep`, `release`) and taken up by another process with `adopt`, by
//! its plain number and where it belongs to a descriptor on one that was inherited (`from_fd`).
//!
//! # Trust
//!
//! A guest writes grant references, ring contents and the accesses that arrive in an ioreq slot. Xen writes the slots
//! and the statuses. Nothing that either of them wrote makes this crate panic, index or allocate.

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("the structures of this crate are those of little-endian 64-bit Linux");

pub mod abi;
pub mod domain;
pub mod error;
pub mod eventfd;
pub mod evtchn;
pub mod forbidden;
pub mod gntdev;
pub mod grant_copy;
pub mod ids;
pub mod ioreq;
pub mod ioreq_server;
pub mod privcmd;
mod sys;

pub use domain::{DomainState, ShutdownReason, Unpaused};
pub use error::{Call, Error, Result};
pub use eventfd::{Doorbell, IoEventFd, IrqFd, eventfd_from};
pub use evtchn::{Channel, Evtchn, Fired};
pub use forbidden::{Forbidden, Resource};
pub use gntdev::{Access, Gntdev, GrantMapping};
pub use grant_copy::{CopyBatch, GrantStatus};
pub use ids::{DomId, Gfn, GrantRef, IoreqServerId, Irq, Port, RemotePort};
pub use ioreq::{Direction, IoreqPage, Kind, Request, Slot, SlotState};
pub use ioreq_server::IoreqServer;
pub use privcmd::{ForeignPage, Privcmd};

/// Bytes of a page of Xen's interfaces: grants, the ioreq page and foreign pages come in these.
pub const PAGE_SIZE: usize = 4096;
