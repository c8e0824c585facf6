// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The windows of one guest: from a parsed request to the device whose registers it means.

use std::collections::BTreeMap;

use log::{error, trace};
use xen_bindings::{Doorbell, Request as RawRequest};

use crate::hypervisor::Hypervisor;
use crate::ioreq::request::{Access, Request, Width};
use crate::ioreq::slot::Slot;
use crate::state::Record;
use crate::virtio_mmio::registers::{MAGIC, VERSION};
use crate::virtio_mmio::{Device, Transport};
use shim_config::WINDOW_SIZE;

/// What answers in a window.
#[derive(Debug)]
pub enum Occupant<D> {
    /// A device.
    Device(Transport<D>),
    /// A device that could not be had: the window says so by DeviceID 0, which tells drivers to pass by
    /// (virtio 1.3, 4.2.3.1.1).
    Absent,
}

/// One device's window.
#[derive(Debug)]
pub struct Window<D> {
    /// Where it begins.
    pub base: u64,
    /// The queues whose QueueNotify the kernel serves.
    pub doorbells: Vec<Doorbell>,
    /// What answers in it.
    pub occupant: Occupant<D>,
    /// Where the device's state is kept.
    pub keeper: Option<Keeper>,
}

/// Keeps the state of a window's device where it survives this process.
#[derive(Debug)]
pub struct Keeper {
    record: Record,
    /// The transport's revision that is in the record.
    revision: u64,
}

impl Keeper {
    /// Keeps the state of a new transport in `record`.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self { record, revision: 0 }
    }
}

impl<D: Device> Window<D> {
    /// Has the device's transport do what may start the device. What the driver has said is kept before the device does anything for
    /// that, and again if the device is lost by it.
    pub fn act(&mut self, begin: impl FnOnce(&mut Transport<D>)) {
        if let Occupant::Device(transport) = &mut self.occupant {
            begin(transport);
        }
        self.keep();
        if let Occupant::Device(transport) = &mut self.occupant {
            transport.carry_out();
        }
        self.keep();
    }

    /// Writes down what the driver has said, if that is not done yet.
    fn keep(&mut self) {
        let (Occupant::Device(transport), Some(keeper)) = (&self.occupant, &mut self.keeper) else { return };
        if keeper.revision == transport.revision() {
            return;
        }
        keeper.revision = transport.revision();
        // It goes on: the device works, and only another worker would miss it.
        if let Err(error) = keeper.record.write(&transport.state()) {
            error!("the state of the device at {:#x} cannot be kept: {error}", self.base);
        }
    }
}

/// All windows of a guest, by the numbers of their devices.
#[derive(Debug)]
pub struct Bus<D> {
    windows: BTreeMap<u16, Window<D>>,
}

impl<D> Default for Bus<D> {
    /// Without windows.
    fn default() -> Self {
        Self { windows: BTreeMap::new() }
    }
}

impl<D: Device> Bus<D> {
    /// Adds the window of the device `number`.
    pub fn insert(&mut self, number: u16, window: Window<D>) {
        self.windows.insert(number, window);
    }

    /// Takes the window of the device `number` away. A guest finds nothing there from now on.
    pub fn remove(&mut self, number: u16) -> Option<Window<D>> {
        self.windows.remove(&number)
    }

    /// The window of the device `number`.
    pub fn window_mut(&mut self, number: u16) -> Option<&mut Window<D>> {
        self.windows.get_mut(&number)
    }

    /// All of them, with their numbers.
    pub fn windows_mut(&mut self) -> impl Iterator<Item = (u16, &mut Window<D>)> {
        self.windows.iter_mut().map(|(number, window)| (*number, window))
    }

    /// Serves the request of `vcpu`, if it has one.
    pub fn serve<H: Hypervisor>(&mut self, hypervisor: &H, vcpu: u32) {
        if let Some(slot) = Slot::claim(hypervisor, vcpu, |request| self.is_kernels(request)) {
            self.answer(vcpu, slot);
        }
    }

    /// Serves the request of `vcpu`, also one that is the kernel's to answer: for the time when its handler cannot run.
    pub fn serve_for_kernel<H: Hypervisor>(&mut self, hypervisor: &H, vcpu: u32) {
        if let Some(slot) = Slot::claim(hypervisor, vcpu, |_| false) {
            self.answer(vcpu, slot);
        }
    }

    /// Serves what somebody claimed who died before the answer, if `vcpu` has such a request.
    ///
    /// It may have taken effect or not, so it has to be one that can be served twice. All are:
    ///
    /// - A read has no effect on a device.
    /// - A write of a register sets what it sets, once or twice; the state machine ignores a status or a queue that is
    ///   as it should be already, and knows that before the device does anything for it ([`Window::act`]). A reset of what is reset, and a QueueReset of a queue that is not in use, do nothing.
    /// - QueueNotify: a device looks at a queue in vain at times (virtio 1.3, 2.9).
    /// - InterruptACK: the driver looks at its rings and at the configuration after it, so it does not miss what was
    ///   added to the status between the first time and the second.
    pub fn serve_left_behind<H: Hypervisor>(&mut self, hypervisor: &H, vcpu: u32) {
        if let Some(slot) = Slot::inherit(hypervisor, vcpu) {
            self.answer(vcpu, slot);
        }
    }

    /// Writes down what has changed of the devices' states without a guest's access.
    pub fn keep(&mut self) {
        self.windows.values_mut().for_each(Window::keep);
    }

    fn answer<H: Hypervisor>(&mut self, vcpu: u32, slot: Slot<'_, H>) {
        match slot.request() {
            Request::Read(access) => {
                let value = self.read(access);
                trace!("vCPU {vcpu}: {access:x?} is {value:#x}");
                slot.answer(value);
            }
            Request::Write(access, value) => {
                trace!("vCPU {vcpu}: {access:x?} := {value:#x}");
                self.write(access, value);
            }
            Request::Acknowledge => trace!("vCPU {vcpu}: acknowledged"),
        }
    }

    /// Whether the kernel's ioeventfd answers `request`. Its handler runs on the same event as ours, so exactly one of
    /// the two must claim the slot.
    fn is_kernels(&self, request: &RawRequest) -> bool {
        self.windows.values().flat_map(|window| &window.doorbells).any(|doorbell| doorbell.matches(request))
    }

    fn read(&mut self, access: Access) -> u64 {
        let found = self.find(access);
        match found.map(|(window, offset)| (&mut window.occupant, offset)) {
            Some((Occupant::Device(transport), offset)) => transport.read(offset, access.width),
            Some((Occupant::Absent, 0x0)) if access.width == Width::Four => u64::from(MAGIC),
            Some((Occupant::Absent, 0x4)) if access.width == Width::Four => u64::from(VERSION),
            _ => 0,
        }
    }

    fn write(&mut self, access: Access, value: u64) {
        // It is all kept before the answer: what the guest knows to be done must not be lost.
        let Some((window, offset)) = self.find(access) else { return };
        window.act(|transport| transport.begin_write(offset, access.width, value));
    }

    /// The window that holds all of an access, and the offset in it.
    fn find(&mut self, access: Access) -> Option<(&mut Window<D>, u64)> {
        let width = u64::try_from(access.width.bytes()).ok()?;
        let offset = |base: u64| {
            let offset = access.address.checked_sub(base)?;
            (offset.checked_add(width)? <= WINDOW_SIZE).then_some(offset)
        };
        let mut windows = self.windows.values_mut();
        windows.find_map(|window| offset(window.base).map(|offset| (window, offset)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use xen_bindings::{Direction, Kind};

    use super::*;
    use crate::hypervisor::fake::{Fake, read, write};
    use crate::memory::Ring;
    use crate::memory::address::GrantReference;
    use crate::virtio_mmio::registers::QUEUE_NOTIFY;
    use crate::virtio_mmio::{Identity, Lost, State};

    const BASE: u64 = 0x200_0000;

    /// A device that does nothing and is happy with everything; but it looks whether it is known by then that it was started.
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
            assert!(state.value().is_some_and(is_known), "a worker that died now would have begun in secret");
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
            assert!(
                !is_known,
                "a worker that died now would leave a start with what was in flight before it"
            );
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

    /// Does something when a guest is answered.
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
        fn map_grants(&self, first: GrantReference, pages: u32) -> std::io::Result<Self::Mapping> {
            self.xen.map_grants(first, pages)
        }
    }

    fn bus(doorbells: u16) -> Bus<Nothing> {
        bus_with(doorbells, Nothing::default())
    }

    fn bus_with(doorbells: u16, device: Nothing) -> Bus<Nothing> {
        let identity = Identity {
            name: "guest/device".into(),
            device_id: 34,
            demanded_features: 0,
            starts_by_kick: false,
            queues: 1,
            queue_size_max: 64,
        };
        let transport = Transport::new(identity, 1 << 32 | 1 << 33 | 1 << 40, vec![0; 8], device);
        let mut bus = Bus::default();
        bus.insert(
            0,
            Window {
                base: BASE,
                doorbells: (0..doorbells).map(|queue| Doorbell { base: BASE, queue }).collect(),
                occupant: Occupant::Device(transport),
                keeper: None,
            },
        );
        bus.insert(
            1,
            Window {
                base: BASE + WINDOW_SIZE,
                doorbells: Vec::new(),
                occupant: Occupant::Absent,
                keeper: None,
            },
        );
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
    fn each_window_answers_for_itself() {
        let mut bus = bus(0);
        assert_eq!(ask(&mut bus, read(BASE + 8, 4)), 34);
        assert_eq!(ask(&mut bus, read(BASE + WINDOW_SIZE, 4)), u64::from(MAGIC));
        assert_eq!(ask(&mut bus, read(BASE + WINDOW_SIZE + 4, 4)), u64::from(VERSION));
    }

    #[test]
    fn an_absent_device_answers_magic_version_and_nothing_else() {
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
    fn a_window_that_was_taken_away_reads_zero_and_another_may_take_its_place() {
        let mut bus = bus(1);
        let window = bus.remove(0).unwrap();
        let xen = Fake::new(1);
        xen.trap(0, write(BASE + QUEUE_NOTIFY, 4, 0));
        bus.serve(&xen, 0);
        assert_eq!(xen.answers().len(), 1, "there is no kernel's part in it any more");
        assert_eq!(
            (ask(&mut bus, read(BASE, 4)), ask(&mut bus, read(BASE + WINDOW_SIZE, 4))),
            (0, u64::from(MAGIC))
        );
        bus.insert(7, window);
        assert_eq!(ask(&mut bus, read(BASE + 8, 4)), 34);
    }

    #[test]
    fn an_access_across_windows_or_outside_of_them_reads_zero() {
        let mut bus = bus(0);
        for address in [0, BASE - 4, BASE - 2, BASE + WINDOW_SIZE - 2, BASE + 2 * WINDOW_SIZE, u64::MAX] {
            assert_eq!(ask(&mut bus, read(address, 4)), 0, "{address:#x}");
            ask(&mut bus, write(address, 4, u64::MAX));
        }
    }

    #[test]
    fn what_is_left_behind_is_served_once_more_and_answered() {
        let mut bus = bus(1);
        let xen = Fake::new(2);
        xen.trap(0, write(BASE + 0x70, 4, 1));
        xen.trap(1, read(BASE + 0x70, 4));
        // A worker takes both, and dies.
        assert!(xen.claim(0).is_some() && xen.claim(1).is_some());
        for vcpu in 0..2 {
            bus.serve(&xen, vcpu);
            assert_eq!(xen.answers(), [], "that is not for whoever serves traps");
            bus.serve_left_behind(&xen, vcpu);
            bus.serve_left_behind(&xen, vcpu);
            // The first is a write; the second reads what it wrote.
            assert_eq!(xen.answers(), [(vcpu, u64::from(vcpu))]);
        }
    }

    #[test]
    fn kicks_are_served_for_the_kernel_when_it_cannot() {
        let mut bus = bus(1);
        let xen = Fake::new(1);
        xen.trap(0, write(BASE + QUEUE_NOTIFY, 4, 0));
        bus.serve(&xen, 0);
        assert!(xen.is_waiting(0));
        bus.serve_for_kernel(&xen, 0);
        assert_eq!(xen.answers(), [(0, 0)]);
    }

    #[test]
    fn the_state_is_kept_before_the_guest_is_answered() {
        let file = tempfile::tempfile().unwrap();
        let kept = || Record::open::<State>(file.try_clone().unwrap()).unwrap();
        let mut bus = bus(0);
        bus.window_mut(0).unwrap().keeper = Some(Keeper::new(kept().0));
        let status = || kept().1.value().map(|state: State| state.status.bits());
        ask(&mut bus, read(BASE + 0x70, 4));
        ask(&mut bus, write(BASE + QUEUE_NOTIFY, 4, 0));
        assert_eq!(status(), None, "nothing has been said");
        let at_answer = std::cell::Cell::new(None);
        let witness = Witness { xen: Fake::new(1), answered: &|| at_answer.set(status()) };
        witness.xen.trap(0, write(BASE + 0x70, 4, 1));
        bus.serve(&witness, 0);
        assert_eq!(at_answer.get(), Some(1));
        let Occupant::Device(transport) = &mut bus.window_mut(0).unwrap().occupant else { panic!() };
        transport.device_lost();
        bus.keep();
        assert_eq!(status(), Some(0x41));
    }

    /// Else the next worker would start it anew, and what it had done already would be done twice.
    #[test]
    fn a_start_is_known_before_the_device_does_anything() {
        let file = tempfile::tempfile().unwrap();
        let (record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        let mut bus = bus_with(0, Nothing { kept: Some(file), starts: 0 });
        bus.window_mut(0).unwrap().keeper = Some(Keeper::new(record));
        let mut set = |(offset, value)| {
            ask(&mut bus, write(BASE + offset, 4, value));
        };
        [(0x70, 3), (0x24, 1), (0x20, 0x103), (0x70, 0xb)].into_iter().for_each(&mut set);
        let enable = [(0x38, 16), (0x80, 0x1000), (0x84, 1 << 31), (0x90, 0x1400), (0x94, 1 << 31)];
        let enable = enable.into_iter().chain([(0xa0, 0x1800), (0xa4, 1 << 31), (0x44, 1)]);
        enable.clone().for_each(&mut set);
        [(0x70, 0xf), (0xc0, 1)].into_iter().for_each(&mut set);
        enable.for_each(&mut set);
        let Occupant::Device(transport) = &bus.window_mut(0).unwrap().occupant else { panic!() };
        assert_eq!(transport.device().starts, 2);
    }

    #[test]
    fn what_is_no_access_is_acknowledged() {
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
    fn kicks_that_the_kernel_serves_are_left_to_it() {
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
    fn what_a_guest_does_in_its_interrupt_handler_allocates_nothing() {
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
    fn every_one_of_many_arbitrary_requests_is_answered_once() {
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
}
