// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory of the guest that a backend may map: from addresses that the guest has written to a table.
//!
//! ```text
//!   register values ──▶ address (untrusted → checked grant references) ──▶ table (XEN_MMAP regions)
//! ```
//!
//! The guest's virtio drivers use grant references as addresses (Linux: grant-dma-ops): bit 63 is set, and
//! the page number is the reference. So a ring can refer only to pages that the guest has granted.

pub mod address;
pub mod table;

pub use address::{AddressError, GrantRange, GrantReference, GuestAddress};
pub use table::{Mapped, Region, Ring};
