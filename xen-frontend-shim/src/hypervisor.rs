// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interface between the shim and the hypervisor, for one guest.
//!
//! [`xen`] implements it in the driver domain, and a strict fake in tests. The values that it returns come
//! from the guest, or from Xen on behalf of the guest, and are not trusted.

use std::io;

use xen_bindings::RawRequest;

use crate::memory::GuestRange;

#[cfg(test)]
pub(crate) mod fake;
pub mod xen;

/// The hypervisor as seen by the worker of one guest.
pub trait Hypervisor {
    /// Mapped guest memory.
    type Mapping: Mapping;

    /// The number of vCPUs of the guest. Each has one slot in the ioreq page.
    fn vcpus(&self) -> u32;

    /// The request of `vcpu` that waits to be served (state READY), if there is one.
    fn pending(&self, vcpu: u32) -> Option<RawRequest>;

    /// Claims the request of `vcpu` that waits (READY to INPROCESS). It may be a later one than
    /// [`Self::pending`] has returned. `None` if none waits any more.
    fn claim(&self, vcpu: u32) -> Option<RawRequest>;

    /// The request of `vcpu` that a former worker has claimed and not answered.
    fn left_behind(&self, vcpu: u32) -> Option<RawRequest>;

    /// Answers the claimed request of `vcpu` (INPROCESS to RESPONSE READY) and resumes the vCPU.
    fn respond(&self, vcpu: u32, data: u64);

    /// Pulses the guest's edge-triggered interrupt `irq` (an INTID).
    fn raise(&self, irq: u32) -> io::Result<()>;

    /// Maps all pages of the guest that `range` touches, to read and write.
    fn map(&self, range: GuestRange) -> io::Result<Self::Mapping>;
}

/// Mapped guest memory; dropping it unmaps.
pub trait Mapping {
    /// The 16 bit little-endian number at `offset`; `None` outside of the mapping.
    fn load_u16(&self, offset: usize) -> Option<u16>;
}
