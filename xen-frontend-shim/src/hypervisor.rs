// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the shim needs of Xen for one guest, and nothing more.
//!
//! This trait is the door between the shim's logic and the hypervisor. Behind it stands [`xen`] in the driver
//! domain and an adversarial fake in the tests. What comes through it was written by the guest and by Xen on
//! the guest's behalf: it is plain numbers, and nobody here believes them.

use std::io;

use xen_bindings::Request as RawRequest;

use crate::memory::address::GrantReference;

#[cfg(test)]
pub(crate) mod fake;
pub mod xen;

/// The hypervisor as seen by the worker of one guest.
pub trait Hypervisor {
    /// Guest memory mapped by grant.
    type Mapping: Mapping;

    /// How many vCPUs the guest has, each of which has one slot in the ioreq page.
    fn vcpus(&self) -> u32;

    /// The request of `vcpu` that waits to be served (state READY), if there is one.
    fn pending(&self, vcpu: u32) -> Option<RawRequest>;

    /// Takes the request of `vcpu` that waits now (READY to INPROCESS), which may be a later one than
    /// [`Self::pending`] showed. Nothing when none waits any more.
    fn claim(&self, vcpu: u32) -> Option<RawRequest>;

    /// The request of `vcpu` that has been claimed and not answered: by somebody before us, who died.
    fn left_behind(&self, vcpu: u32) -> Option<RawRequest>;

    /// Answers the claimed request of `vcpu` (INPROCESS to RESPONSE READY) and lets the vCPU go on.
    fn respond(&self, vcpu: u32, data: u64);

    /// Pulses the guest's edge-triggered interrupt `irq` (an INTID).
    fn raise(&self, irq: u32) -> io::Result<()>;

    /// Maps `pages` pages of the guest, granted under successive references from `first`, to read and write.
    fn map_grants(&self, first: GrantReference, pages: u32) -> io::Result<Self::Mapping>;
}

/// Guest memory mapped by grant; dropping it unmaps.
pub trait Mapping {
    /// The 16 bit little-endian number at `offset`; `None` outside of the mapping.
    fn load_u16(&self, offset: usize) -> Option<u16>;
}
