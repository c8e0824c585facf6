// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory of the guest that a backend may map: from addresses that the guest has written to a table.
//!
//! ```text
//!   register values ──▶ address (untrusted → checked ranges) ──▶ table (XEN_MMAP regions)
//! ```
//!
//! The virtio drivers of most guests use grant references as addresses (Linux: grant-dma-ops): bit 63 is set,
//! and the page number is the reference. So a ring can refer only to pages that the guest has granted.
//! Drivers of a guest whose configuration gives all of its RAM use guest physical addresses.

pub mod address;
pub mod table;

pub use address::{AddressError, GrantReference, GuestAddress, GuestMemory, GuestRange, Page};
pub use table::{Mapped, Region, Ring};
