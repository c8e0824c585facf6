// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A model of the bus: a hypervisor that panics unless each request is answered once.

use std::cell::{Cell, RefCell};
use std::io;

use xen_bindings::{Direction, Doorbell, Kind, RawRequest};

use crate::hypervisor::{Hypervisor, Mapping};
use crate::ioreq::bus::{Bus, Region};
use crate::memory::{GuestMemory, GuestRange, Ring};
use crate::virtio_mmio::registers::QUEUE_NOTIFY;
use crate::virtio_mmio::{Device, Identity, Lost};
use crate::window::Window;
use shim_config::WINDOW_SIZE;

/// The address of the first of two windows. The second is that of an absent device.
pub const BASE: u64 = 0x200_0000;

/// The number of queues of the device. The kernel serves the kicks of all.
const QUEUES: u16 = 2;

/// A vCPU's slot.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slot {
    Ready(RawRequest),
    InProcess,
    Answered(u64),
}

/// A hypervisor with one vCPU.
struct Xen {
    slot: Cell<Slot>,
    next: RefCell<Option<RawRequest>>,
}

impl Hypervisor for Xen {
    type Mapping = Unmapped;

    fn vcpus(&self) -> u32 {
        1
    }

    fn pending(&self, vcpu: u32) -> Option<RawRequest> {
        let Slot::Ready(request) = self.slot.get() else { return None };
        if let Some(next) = self.next.borrow_mut().take() {
            self.slot.set(Slot::Ready(next));
        }
        (vcpu == 0).then_some(request)
    }

    fn claim(&self, _vcpu: u32) -> Option<RawRequest> {
        let Slot::Ready(request) = self.slot.get() else { return None };
        self.slot.set(Slot::InProcess);
        Some(request)
    }

    fn left_behind(&self, _vcpu: u32) -> Option<RawRequest> {
        None
    }

    fn respond(&self, _vcpu: u32, data: u64) {
        assert_eq!(self.slot.replace(Slot::Answered(data)), Slot::InProcess, "answered without a claim");
    }

    fn raise(&self, _irq: u32) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, _range: GuestRange) -> io::Result<Unmapped> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// No mapping.
struct Unmapped;

impl Mapping for Unmapped {
    fn load_u16(&self, _offset: usize) -> Option<u16> {
        None
    }
}

/// A device that does nothing.
struct Nothing;

impl Device for Nothing {
    fn clear_inflight(&mut self, _: Option<u16>) -> Result<(), Lost> {
        Ok(())
    }

    fn abandon(&mut self) -> Vec<Option<u16>> {
        Vec::new()
    }

    fn start(&mut self, _: u64, _: &[Ring]) -> Result<(), Lost> {
        Ok(())
    }

    fn resume(&mut self, _: u64, _: &[Ring]) -> Result<(), Lost> {
        Ok(())
    }

    fn stop(&mut self) {}

    fn start_queue(&mut self, _: &Ring) -> Result<(), Lost> {
        Ok(())
    }

    fn stop_queue(&mut self, _: u16) -> Result<(), Lost> {
        Err(Lost)
    }

    fn kick(&mut self, _: u16) {}

    fn write_config(&mut self, _: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        Ok(Some(bytes.to_vec()))
    }

    fn used_index(&self, _: u16) -> Option<u16> {
        None
    }

    fn interrupt(&mut self) {}
}

fn bus() -> Bus<Nothing> {
    let identity = Identity {
        name: "guest/device".into(),
        device_id: 34,
        demanded_features: 0,
        starts_by_kick: false,
        queues: QUEUES,
        queue_size_max: 64,
        memory: GuestMemory::Granted,
    };
    let window = Window::new(identity, 1 << 32 | 1 << 33 | 1 << 40, vec![0; 8], Nothing, None);
    let doorbells = (0..QUEUES).map(|queue| Doorbell { base: BASE, queue }).collect();
    let mut bus = Bus::default();
    bus.insert(0, Region { base: BASE, doorbells, window: Some(window) });
    bus.insert(1, Region { base: BASE + WINDOW_SIZE, doorbells: Vec::new(), window: None });
    bus
}

/// Whether the kernel's ioeventfd serves `request`: a write of 32 bits to QueueNotify of the first window,
/// for one of its queues. The kernel ignores fields that Xen on Arm never sets.
fn is_served_by_kernel(request: &RawRequest) -> bool {
    request.kind == Kind::Copy
        && request.direction == Direction::Write
        && request.addr == BASE + QUEUE_NOTIFY
        && request.size == 4
        && request.data & 0xffff < u64::from(QUEUES)
}

/// Serves `requests`, one after the other. Some are replaced by another one before they are claimed, as when
/// the kernel answers them.
pub fn serve(requests: impl IntoIterator<Item = (RawRequest, Option<RawRequest>)>) {
    let mut bus = bus();
    for (first, next) in requests {
        let claimed = next.unwrap_or(first);
        let xen = Xen { slot: Cell::new(Slot::Ready(first)), next: RefCell::new(next) };
        bus.serve(&xen, 0);
        bus.serve(&xen, 1);
        let slot = xen.slot.get();
        assert_ne!(slot, Slot::InProcess, "claimed and not answered: {first:x?}");
        match slot {
            Slot::Answered(0) | Slot::InProcess => {}
            Slot::Answered(_) => assert_eq!(claimed.direction, Direction::Read, "{claimed:x?}"),
            Slot::Ready(_) => assert!(is_served_by_kernel(&first), "not answered: {first:x?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::fake::{read, write};

    #[test]
    fn model_knows_which_requests_the_kernel_serves() {
        let kick = |queue| write(BASE + QUEUE_NOTIFY, 4, queue);
        serve([(read(BASE, 4), None), (kick(1), None), (kick(2), None), (read(BASE, 4), Some(kick(2)))]);
        assert!(is_served_by_kernel(&kick(1)) && !is_served_by_kernel(&kick(2)));
    }
}
