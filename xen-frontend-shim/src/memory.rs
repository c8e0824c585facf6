// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which of the guest's memory a backend may map: from addresses that the guest wrote to a table of regions.
//!
//! ```text
//!   register values ──▶ address (untrusted → grant references, checked) ──▶ table (XEN_MMAP regions) ──▶ vhost_user
//! ```
//!
//! The guest's virtio drivers hand out grant references in place of addresses (Linux's grant-dma-ops): bit 63 set,
//! the reference in the page number. So whatever a ring says, only pages that the guest granted can be reached.

pub mod address;
pub mod table;

pub use address::{AddressError, GrantRange, GrantReference, GuestAddress};
pub use table::{Mapping, Region, Ring};
