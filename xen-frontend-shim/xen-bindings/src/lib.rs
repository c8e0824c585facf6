// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Owned, typed handles to Xen's interfaces for device models in Linux.
//!
//! ```text
//!   guest's access ─▶ Xen ─▶ ioreq page  (ioreq::Slot)         one slot for each vCPU
//!                        └─▶ event channel (evtchn::Channel)   "request in the slot", "answered"
//!
//!   shim ─▶ privcmd::Privcmd ─┬▶ ioreq_server::IoreqServer     the windows whose accesses trap
//!                             ├▶ eventfd::IoEventFd            kick → eventfd, by the kernel
//!                             ├▶ eventfd::IrqFd                eventfd → interrupt, by the kernel
//!                             ├▶ domain                        unpausing a guest, noticing its end
//!                             └▶ forbidden                     what Xen must refuse
//!   shim, backends ─▶ gntdev::Gntdev ─┬▶ gntdev::GrantMapping  rings
//!                                     └▶ grant_copy            buffers
//! ```
//!
//! [`abi`] has the structures of the headers of Linux and Xen; a test compares them with those headers. `sys`
//! has all `unsafe` blocks: system calls and shared memory. The other modules are safe code on top of the
//! two.
//!
//! # Lifetime
//!
//! A handle undoes on drop what created it: an ioreq server is destroyed, an event channel closed, a grant
//! unmapped. What must outlive its process is released (`keep`, `release`), and another process adopts it by
//! its number (`adopt`), on an inherited descriptor (`from_fd`) if it belongs to one.
//!
//! # Trust
//!
//! A guest writes grant references, rings and the accesses in ioreq slots. Xen writes slots and statuses.
//! None of these makes this crate panic, index out of range or allocate.

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
pub use ioreq::{Direction, IoreqPage, Kind, RawRequest, Slot, SlotState};
pub use ioreq_server::IoreqServer;
pub use privcmd::{ForeignMapping, Privcmd};

/// The size in bytes of a page of Xen: a grant, the ioreq page, a foreign page.
pub const PAGE_SIZE: usize = 4096;
