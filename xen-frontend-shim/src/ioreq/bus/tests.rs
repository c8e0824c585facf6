// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs::File;

use xen_bindings::{Direction, Kind};

use super::*;
use crate::hypervisor::fake::{Fake, read, write};
use crate::memory::{GuestMemory, GuestRange, Ring};
use crate::state::Record;
use crate::virtio_mmio::registers::QUEUE_NOTIFY;
use crate::virtio_mmio::{Identity, Lost, State};
use crate::window::StateStore;

const BASE: u64 = 0x200_0000;

/// A device that does nothing, except that it checks the record when it is started.
#[derive(Default)]
struct Nothing {
    kept: Option<File>,
    starts: usize,
}

impl Nothing {
    fn check(&mut self, is_known: impl FnOnce(State) -> bool) {
        let Some(kept) = &self.kept else { return };
        self.starts += 1;
        let state = Record::peek(kept).unwrap();
        assert!(state.value().is_some_and(is_known), "the start is not stored");
    }
}

impl Device for Nothing {
    fn start(&mut self, _: u64, _: &[Ring]) -> Result<(), Lost> {
        self.check(|state| state.is_started);
        Ok(())
    }
    fn resume(&mut self, _: u64, _: &[Ring]) -> Result<(), Lost> {
        Ok(())
    }
    fn stop(&mut self) {}
    fn clear_inflight(&mut self, queue: Option<u16>) -> Result<(), Lost> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let state: State = Record::peek(kept).unwrap().value().unwrap();
        let is_known = match queue {
            None => state.is_started,
            Some(queue) => state.queues[usize::from(queue)].is_ready(),
        };
        assert!(!is_known, "the start is stored before the in-flight record is cleared");
        Ok(())
    }
    fn abandon(&mut self) -> Vec<Option<u16>> {
        Vec::new()
    }
    fn start_queue(&mut self, ring: &Ring) -> Result<(), Lost> {
        self.check(|state| state.queues[usize::from(ring.index)].is_ready());
        Ok(())
    }
    fn stop_queue(&mut self, _: u16) -> Result<(), Lost> {
        Ok(())
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

/// A hypervisor that calls a function when a guest is answered.
struct Witness<'a> {
    xen: Fake,
    answered: &'a dyn Fn(),
}

impl Hypervisor for Witness<'_> {
    type Mapping = <Fake as Hypervisor>::Mapping;

    fn vcpus(&self) -> u32 {
        self.xen.vcpus()
    }
    fn pending(&self, vcpu: u32) -> Option<RawRequest> {
        self.xen.pending(vcpu)
    }
    fn claim(&self, vcpu: u32) -> Option<RawRequest> {
        self.xen.claim(vcpu)
    }
    fn left_behind(&self, vcpu: u32) -> Option<RawRequest> {
        self.xen.left_behind(vcpu)
    }
    fn respond(&self, vcpu: u32, data: u64) {
        (self.answered)();
        self.xen.respond(vcpu, data);
    }
    fn raise(&self, irq: u32) -> std::io::Result<()> {
        self.xen.raise(irq)
    }
    fn map(&self, range: GuestRange) -> std::io::Result<Self::Mapping> {
        self.xen.map(range)
    }
}

fn bus(doorbells: u16) -> Bus<Nothing> {
    bus_with(doorbells, Nothing::default(), None)
}

fn bus_with(doorbells: u16, device: Nothing, store: Option<StateStore>) -> Bus<Nothing> {
    let identity = Identity {
        name: "guest/device".into(),
        device_id: 34,
        demanded_features: 0,
        starts_by_kick: false,
        queues: 1,
        queue_size_max: 64,
        memory: GuestMemory::Granted,
    };
    let features = 1 << 32 | 1 << 33 | 1 << 40;
    let window = Window::new(identity, features, vec![0; 8], device, store);
    let mut bus = Bus::default();
    bus.insert(
        0,
        Region {
            base: BASE,
            doorbells: (0..doorbells).map(|queue| Doorbell { base: BASE, queue }).collect(),
            window: Some(window),
        },
    );
    bus.insert(1, Region { base: BASE + WINDOW_SIZE, doorbells: Vec::new(), window: None });
    bus
}

fn ask(bus: &mut Bus<Nothing>, request: RawRequest) -> u64 {
    let xen = Fake::new(1);
    xen.trap(0, request);
    bus.serve(&xen, 0);
    let answers = xen.answers();
    assert_eq!(answers.len(), 1, "{request:x?}");
    answers[0].1
}

#[test]
fn each_window_answers_its_own_addresses() {
    let mut bus = bus(0);
    assert_eq!(ask(&mut bus, read(BASE + 8, 4)), 34);
    assert_eq!(ask(&mut bus, read(BASE + WINDOW_SIZE, 4)), u64::from(MAGIC));
    assert_eq!(ask(&mut bus, read(BASE + WINDOW_SIZE + 4, 4)), u64::from(VERSION));
}

#[test]
fn absent_device_answers_magic_and_version_only() {
    let mut bus = bus(0);
    ask(&mut bus, write(BASE + WINDOW_SIZE + 0x70, 4, 1));
    assert_eq!(ask(&mut bus, read(BASE + WINDOW_SIZE, 4)), 0x7472_6976, "MagicValue");
    assert_eq!(ask(&mut bus, read(BASE + WINDOW_SIZE + 4, 4)), 2, "Version");
    for offset in 8..WINDOW_SIZE {
        assert_eq!(ask(&mut bus, read(BASE + WINDOW_SIZE + offset, 4)), 0, "{offset:#x}");
    }
    assert_eq!(ask(&mut bus, read(BASE + WINDOW_SIZE, 1)), 0);
}

#[test]
fn removed_region_reads_zero_and_can_be_replaced() {
    let mut bus = bus(1);
    let window = bus.remove(0).unwrap();
    let xen = Fake::new(1);
    xen.trap(0, write(BASE + QUEUE_NOTIFY, 4, 0));
    bus.serve(&xen, 0);
    assert_eq!(xen.answers().len(), 1, "the kernel does not serve it any more");
    assert_eq!(
        (ask(&mut bus, read(BASE, 4)), ask(&mut bus, read(BASE + WINDOW_SIZE, 4))),
        (0, u64::from(MAGIC))
    );
    bus.insert(7, window);
    assert_eq!(ask(&mut bus, read(BASE + 8, 4)), 34);
}

#[test]
fn guest_access_across_two_windows_or_outside_reads_zero() {
    let mut bus = bus(0);
    for address in [0, BASE - 4, BASE - 2, BASE + WINDOW_SIZE - 2, BASE + 2 * WINDOW_SIZE, u64::MAX] {
        assert_eq!(ask(&mut bus, read(address, 4)), 0, "{address:#x}");
        ask(&mut bus, write(address, 4, u64::MAX));
    }
}

#[test]
fn request_claimed_by_a_former_worker_is_served_and_answered_once() {
    let mut bus = bus(1);
    let xen = Fake::new(2);
    xen.trap(0, write(BASE + 0x70, 4, 1));
    xen.trap(1, read(BASE + 0x70, 4));
    // A worker claims both, and ends.
    assert!(xen.claim(0).is_some() && xen.claim(1).is_some());
    for vcpu in 0..2 {
        bus.serve(&xen, vcpu);
        assert_eq!(xen.answers(), [], "only the next worker serves it");
        bus.serve_left_behind(&xen, vcpu);
        bus.serve_left_behind(&xen, vcpu);
        // The first is a write; the second reads what it wrote.
        assert_eq!(xen.answers(), [(vcpu, u64::from(vcpu))]);
    }
}

#[test]
fn kick_is_served_for_the_kernel_while_it_cannot() {
    let mut bus = bus(1);
    let xen = Fake::new(1);
    xen.trap(0, write(BASE + QUEUE_NOTIFY, 4, 0));
    bus.serve(&xen, 0);
    assert!(xen.is_waiting(0));
    bus.serve_for_kernel(&xen, 0);
    assert_eq!(xen.answers(), [(0, 0)]);
}

#[test]
fn state_is_stored_before_the_guest_is_answered() {
    let file = tempfile::tempfile().unwrap();
    let kept = || Record::open::<State>(file.try_clone().unwrap()).unwrap();
    let mut bus = bus_with(0, Nothing::default(), Some(StateStore::new(kept().0)));
    let status = || kept().1.value().map(|state: State| state.status.bits());
    ask(&mut bus, read(BASE + 0x70, 4));
    ask(&mut bus, write(BASE + QUEUE_NOTIFY, 4, 0));
    assert_eq!(status(), None, "nothing has been written");
    let at_answer = std::cell::Cell::new(None);
    let witness = Witness { xen: Fake::new(1), answered: &|| at_answer.set(status()) };
    witness.xen.trap(0, write(BASE + 0x70, 4, 1));
    bus.serve(&witness, 0);
    assert_eq!(at_answer.get(), Some(1));
    bus.window_mut(0).unwrap().device_lost();
    assert_eq!(status(), Some(0x41));
}

/// Otherwise the next worker would start it from the beginning, and requests would be carried out twice.
#[test]
fn start_is_stored_before_the_device_starts() {
    let file = tempfile::tempfile().unwrap();
    let (record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
    let mut bus = bus_with(0, Nothing { kept: Some(file), starts: 0 }, Some(StateStore::new(record)));
    let mut set = |(offset, value)| {
        ask(&mut bus, write(BASE + offset, 4, value));
    };
    [(0x70, 3), (0x24, 1), (0x20, 0x103), (0x70, 0xb)].into_iter().for_each(&mut set);
    let enable = [(0x38, 16), (0x80, 0x1000), (0x84, 1 << 31), (0x90, 0x1400), (0x94, 1 << 31)];
    let enable = enable.into_iter().chain([(0xa0, 0x1800), (0xa4, 1 << 31), (0x44, 1)]);
    enable.clone().for_each(&mut set);
    [(0x70, 0xf), (0xc0, 1)].into_iter().for_each(&mut set);
    enable.for_each(&mut set);
    assert_eq!(bus.window_mut(0).unwrap().device().starts, 2);
}

#[test]
fn request_that_is_no_access_is_acknowledged() {
    let mut bus = bus(1);
    let invalidate = RawRequest { kind: Kind::Invalidate, data: u64::MAX, ..write(0, 4, 0) };
    ask(&mut bus, invalidate);
    for odd in [
        RawRequest { size: 3, ..read(BASE, 4) },
        RawRequest { count: 9, ..read(BASE, 4) },
        RawRequest { data_is_ptr: true, ..read(BASE, 4) },
    ] {
        assert_eq!(ask(&mut bus, odd), 0, "{odd:x?}");
    }
}

#[test]
fn kick_that_the_kernel_serves_is_not_claimed() {
    let mut bus = bus(2);
    let xen = Fake::new(1);
    xen.trap(0, write(BASE + QUEUE_NOTIFY, 4, 0xabcd_0001));
    bus.serve(&xen, 0);
    assert!(xen.is_waiting(0));
    // Another queue, another width, a read, another register: ours.
    ask(&mut bus, write(BASE + QUEUE_NOTIFY, 4, 2));
    ask(&mut bus, write(BASE + QUEUE_NOTIFY, 2, 0));
    ask(&mut bus, read(BASE + QUEUE_NOTIFY, 4));
    ask(&mut bus, write(BASE + QUEUE_NOTIFY + 4, 4, 0));
}

/// An interrupt costs a guest two accesses (virtio 1.3, 4.2.2), so these are the ones that count.
#[test]
fn interrupt_handler_of_a_guest_allocates_nothing() {
    let mut bus = bus(1);
    let xen = Fake::new(1);
    let mut handle = |rounds| {
        for _ in 0..rounds {
            xen.trap(0, read(BASE + 0x60, 4));
            bus.serve(&xen, 0);
            xen.trap(0, write(BASE + 0x64, 4, 1));
            bus.serve(&xen, 0);
        }
    };
    // The fake keeps the answers: after so many it has room for those that follow.
    handle(50);
    assert_eq!(allocation_counter::measure(|| handle(10)).count_total, 0);
}

#[test]
fn each_of_many_arbitrary_requests_is_answered_once() {
    let mut bus = bus(0);
    // xorshift64: arbitrary and the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..100_000 {
        let request = RawRequest {
            addr: BASE + next() % (3 * WINDOW_SIZE) - 4,
            data: next() >> (next() % 64),
            count: if next() % 16 == 0 { 7 } else { 1 },
            size: [1, 2, 4, 4, 4, 4, 8, 3][usize::try_from(next() % 8).expect("small")],
            direction: if next() % 3 == 0 { Direction::Read } else { Direction::Write },
            data_is_ptr: next() % 32 == 0,
            kind: if next() % 16 == 0 { Kind::Invalidate } else { Kind::Copy },
        };
        ask(&mut bus, request);
    }
}
