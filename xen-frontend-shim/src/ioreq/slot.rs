// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A claimed request, which is answered exactly once: by [`Slot::answer`], or with 0 when the slot is
//! dropped.

use xen_bindings::RawRequest;

use crate::hypervisor::Hypervisor;
use crate::ioreq::request::Request;

/// The claimed request of one vCPU. The vCPU waits until the slot is dropped.
#[derive(Debug)]
pub struct Slot<'h, H: Hypervisor> {
    hypervisor: &'h H,
    vcpu: u32,
    request: Request,
    data: u64,
}

impl<'h, H: Hypervisor> Slot<'h, H> {
    /// Claims the request of `vcpu`, if one waits that the kernel does not serve.
    ///
    /// An event may come without a request: there is none for the first event of a channel, and the kernel
    /// has answered a kick that it serves (privcmd's ioeventfd).
    pub fn claim(
        hypervisor: &'h H,
        vcpu: u32,
        is_served_by_kernel: impl FnOnce(&RawRequest) -> bool,
    ) -> Option<Self> {
        if is_served_by_kernel(&hypervisor.pending(vcpu)?) {
            return None;
        }
        // The kernel may have answered the pending request since, so the claimed request may be another one.
        let request = Request::from(hypervisor.claim(vcpu)?);
        Some(Self { hypervisor, vcpu, request, data: 0 })
    }

    /// Claims the request of `vcpu` that a former worker has claimed and not answered.
    ///
    /// The former worker may have carried it out: see [`Bus::serve_left_behind`].
    ///
    /// [`Bus::serve_left_behind`]: crate::ioreq::Bus::serve_left_behind
    pub fn inherit(hypervisor: &'h H, vcpu: u32) -> Option<Self> {
        let request = Request::from(hypervisor.left_behind(vcpu)?);
        Some(Self { hypervisor, vcpu, request, data: 0 })
    }

    /// The request.
    #[must_use]
    pub fn request(&self) -> Request {
        self.request
    }

    /// Answers with `data`, which a read returns to the guest.
    pub fn answer(mut self, data: u64) {
        self.data = data;
    }
}

impl<H: Hypervisor> Drop for Slot<'_, H> {
    fn drop(&mut self) {
        self.hypervisor.respond(self.vcpu, self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::fake::{Fake, read, write};

    #[test]
    fn slot_is_answered_exactly_once() {
        let xen = Fake::new(2);
        xen.trap(1, read(0x200_0000, 4));
        Slot::claim(&xen, 1, |_| false).expect("a request waits").answer(7);
        assert_eq!(xen.answers(), [(1, 7)]);
    }

    #[test]
    fn dropped_slot_is_answered_with_zero() {
        let xen = Fake::new(1);
        xen.trap(0, read(0x200_0000, 4));
        drop(Slot::claim(&xen, 0, |_| false));
        assert_eq!(xen.answers(), [(0, 0)]);
    }

    #[test]
    fn event_without_a_request_claims_nothing() {
        let xen = Fake::new(1);
        assert!(Slot::claim(&xen, 0, |_| false).is_none());
        assert_eq!(xen.answers(), []);
    }

    #[test]
    fn vcpu_beyond_the_page_claims_nothing() {
        let xen = Fake::new(1);
        for vcpu in [1, 128, u32::MAX] {
            assert!(Slot::claim(&xen, vcpu, |_| false).is_none());
        }
    }

    #[test]
    fn request_that_replaced_the_pending_one_is_claimed() {
        let xen = Fake::new(1);
        xen.trap(0, write(0x200_0050, 4, 0));
        // The kernel answers the first one after the worker has seen it, and the vCPU traps again.
        let overtake = |_: &RawRequest| {
            xen.claim(0).unwrap();
            xen.respond(0, 0);
            xen.trap(0, read(0x200_0060, 4));
            false
        };
        let slot = Slot::claim(&xen, 0, overtake).expect("a request waits");
        assert_eq!(slot.request(), Request::from(read(0x200_0060, 4)));
        slot.answer(1);
        assert_eq!(xen.answers(), [(0, 0), (0, 1)]);
    }

    #[test]
    fn request_that_the_kernel_serves_is_not_claimed() {
        let xen = Fake::new(1);
        xen.trap(0, write(0x200_0050, 4, 0));
        assert!(Slot::claim(&xen, 0, |_| true).is_none());
        assert_eq!(xen.answers(), []);
        assert!(xen.is_waiting(0));
    }
}
