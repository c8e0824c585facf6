// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest with one device, whose traps go all the way to a backend: to a real one, or to one that does as the test says.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::hypervisor::fake::{Fake, read, write};
use crate::ioreq::Bus;
use crate::ioreq::bus::{Occupant, Window};
use crate::vhost_user::scripted_backend::{self as scripted, Script};
use crate::vhost_user::test_backend::{self, SharedMemory};
use crate::vhost_user::{Limits, Watchdog};
use crate::virtio_mmio::{Identity, RestoreError, State};
use shim_config::DeviceKind;

const BASE: u64 = 0x200_0000;
const IRQ: u32 = 33;

const GPIO: u32 = 41;
const INPUT: u32 = 18;

fn open(device_id: u32, socket: UnixStream, memory: &Arc<SharedMemory>) -> (Session, Offer) {
    let watchdog = Watchdog::start(Limits::default()).unwrap();
    Session::open(socket, DeviceKind::of(device_id), 1, &watchdog, Box::new(Arc::clone(memory))).unwrap()
}

fn backed(xen: &Rc<Fake>) -> BackedDevice<Fake> {
    let [kick, call, err] = [EFD_NONBLOCK; 3].map(|flags| EventFd::new(flags).unwrap());
    let inflight = Inflight::new(tempfile::tempfile().unwrap(), 64);
    BackedDevice::new("g/d".into(), Rc::clone(xen), IRQ, vec![Notifier { kick, call, err }], inflight)
}

fn identity(device_id: u32) -> Identity {
    Identity {
        name: "g/d".into(),
        device_id,
        demanded_features: 0,
        starts_by_kick: false,
        queues: 1,
        queue_size_max: 64,
    }
}

fn bus(transport: Transport<BackedDevice<Fake>>) -> Bus<BackedDevice<Fake>> {
    let occupant = Occupant::Device(transport);
    let mut bus = Bus::default();
    bus.insert(0, Window { base: BASE, doorbells: Vec::new(), occupant, keeper: None });
    bus
}

/// A guest whose traps go all the way to a real backend.
struct Guest {
    xen: Rc<Fake>,
    memory: Arc<SharedMemory>,
    bus: Bus<BackedDevice<Fake>>,
}

impl Guest {
    /// With a real backend, of upstream's crate, which does not track requests in flight.
    fn new() -> Self {
        Self::with(test_backend::start().0)
    }

    /// With a backend that has a socket.
    fn with(socket: UnixStream) -> Self {
        Self::of(GPIO, socket)
    }

    /// With a device of a certain type.
    fn of(device_id: u32, socket: UnixStream) -> Self {
        let xen = Rc::new(Fake::new(1));
        let memory = SharedMemory::new();
        let (session, offer) = open(device_id, socket, &memory);
        let device = backed(&xen);
        let identity = identity(device_id);
        let mut transport = Transport::new(identity, session.offered(), offer.config, device);
        transport.device_mut().attach(session, None).unwrap();
        Self { xen, memory, bus: bus(transport) }
    }

    /// Another worker takes up what it finds of the GPIO device, and has no backend for it yet.
    fn replace_worker(&mut self, found: Option<State>) -> Result<(), RestoreError> {
        let (transport, restored) = Transport::restored(identity(GPIO), found, backed(&self.xen));
        self.bus = bus(transport);
        restored
    }

    /// Another backend, which has been heard of.
    fn replace(&mut self, socket: UnixStream, process: Option<Process>) {
        let (session, offer) = open(GPIO, socket, &self.memory);
        replace_backend(self.transport(), session, offer, process);
    }

    fn transport(&mut self) -> &mut Transport<BackedDevice<Fake>> {
        let Occupant::Device(transport) = &mut self.bus.window_mut(0).unwrap().occupant else { panic!() };
        transport
    }

    fn device(&mut self) -> &mut BackedDevice<Fake> {
        self.transport().device_mut()
    }

    /// What the worker does when there is something from the backend.
    fn hear(&mut self) {
        let connection = self.device().connection().unwrap().try_clone_to_owned().unwrap();
        poll(&mut [PollFd::new(&connection, PollFlags::IN)], None).unwrap();
        self.device().hear();
    }

    /// What the worker does when the next deadline has passed.
    fn pass_deadline(&mut self) {
        let deadline = self.device().deadline().unwrap();
        if self.device().attend(deadline).is_err() {
            self.transport().device_lost();
        }
    }

    /// Looks at rings that do not move, until the backend is asked: at the first look they begin to wait.
    fn stand_still(&mut self) {
        for _ in 0..3 {
            assert!(self.has_backend() && !self.device().awaits_kick());
            self.pass_deadline();
        }
    }

    /// What the worker does when the backend says that its configuration has changed, which it does.
    fn change_config(&mut self, seen: &test_backend::Seen) {
        seen.change_config(10);
        let transport = self.transport();
        let requests = transport.device().requests().unwrap();
        poll(&mut [PollFd::new(&requests, PollFlags::IN)], None).unwrap();
        transport.backend_speaks();
    }

    /// Whether the backend is let go of at one of the next deadlines.
    fn is_killed(&mut self) -> bool {
        for _ in 0..2 {
            if self.device().deadline().is_some() {
                self.pass_deadline();
            }
        }
        !self.has_backend()
    }

    fn has_backend(&mut self) -> bool {
        self.device().connection().is_some()
    }

    /// How far the ring is, as the shim sees it: of page 1 of the fake, which is not the memory of the backend.
    fn progress(&mut self, available: u16, used: u16) {
        self.xen.store_u16(1, 0x402, available);
        self.xen.store_u16(1, 0x802, used);
    }

    fn read(&mut self, offset: u64) -> u64 {
        self.xen.trap(0, read(BASE + offset, 4));
        self.bus.serve(&*self.xen, 0);
        self.xen.answers()[0].1
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.xen.trap(0, write(BASE + offset, 4, value));
        self.bus.serve(&*self.xen, 0);
        assert_eq!(self.xen.answers().len(), 1);
    }

    /// Brings up the device with a ring of 16 entries on page 1, all three parts of it.
    fn probe(&mut self) {
        self.probe_with(0x100);
    }

    /// With VERSION_1, ACCESS_PLATFORM and `more` features of the upper half.
    fn probe_with(&mut self, more: u64) {
        self.clear_rings();
        self.write(0x70, 3);
        self.write(0x24, 1);
        self.write(0x20, 3 | more);
        // The feature bit 0 of the type, if there is one.
        self.write(0x24, 0);
        self.write(0x14, 0);
        let low = self.read(0x10);
        self.write(0x20, low & 1);
        self.write(0x70, 0xb);
        self.enable_queue();
        self.write(0x70, 0xf);
    }

    fn enable_queue(&mut self) {
        self.write(0x38, 16);
        for (register, at) in [(0x80, 0x1000), (0x90, 0x1400), (0xa0, 0x1800)] {
            self.write(register, at);
            self.write(register + 4, 1 << 31);
        }
        self.write(0x44, 1);
    }

    fn clear_rings(&mut self) {
        for at in [0x400, 0x402, 0x800, 0x802] {
            self.memory.write_u16(4096 + at, 0);
        }
        self.progress(0, 0);
    }

    /// What a backend does that cannot use the queue any more.
    fn fail_queue(&mut self) {
        self.device().notifiers()[0].err.write(1).unwrap();
    }

    fn await_call(&mut self) {
        while self.device().notifiers()[0].call.read().is_err() {
            std::thread::yield_now();
        }
    }

    fn transfer(&mut self, next: u16) {
        self.memory.write_u16(4096 + 0x404 + 2 * u64::from(next), 0);
        self.memory.write_u16(4096 + 0x402, next + 1);
        self.write(0x50, 0);
        self.await_call();
        // The fake's grants are not the memory that the backend sees: carry the indices over.
        self.progress(next + 1, self.memory.read_u16(4096 + 0x802));
    }
}

/// A stop is no reset: a backend hears of one when the driver makes it, and when it comes and no driver uses the device.
#[test]
fn a_backend_hears_that_no_driver_uses_the_device() {
    let backend = || scripted::start(Script::default());
    let resets = |memory: &scripted::Memory| {
        memory.take().iter().filter(|heard| heard.request == scripted::RESET_DEVICE).count()
    };
    let (socket, memory) = backend();
    let mut guest = Guest::with(socket);
    guest.xen.grant(1);
    guest.probe();
    assert_eq!(resets(&memory), 0);
    guest.write(0x70, 0);
    assert_eq!(resets(&memory), 1);
    guest.probe();
    let (socket, memory) = backend();
    guest.replace(socket, None);
    assert_eq!(resets(&memory), 0, "the driver goes on");
    guest.device().supersede();
    guest.write(0x70, 0);
    let (socket, memory) = backend();
    guest.replace(socket, None);
    assert_eq!(resets(&memory), 1, "it was reset when there was no backend");
}

#[test]
fn a_guest_uses_the_device_and_no_grant_stays_mapped() {
    let mut guest = Guest::new();
    guest.xen.grant(1);
    for _ in 0..10 {
        guest.probe();
        assert_eq!((guest.read(0x70), guest.xen.mapped()), (0xf, 1));
        assert_eq!(guest.read(0x60), 0);
        for next in 0..3 {
            guest.transfer(next);
            assert_eq!(guest.read(0x60), 1);
            guest.write(0x64, 1);
            assert_eq!(guest.read(0x60), 0);
        }
        guest.write(0x70, 0);
        assert_eq!((guest.read(0x70), guest.xen.mapped()), (0, 0));
    }
}

#[test]
fn a_queue_is_reset_with_nothing_mapped_and_used_again() {
    let mut guest = Guest::new();
    guest.xen.grant(1);
    guest.probe();
    for _ in 0..10 {
        guest.transfer(0);
        guest.transfer(1);
        guest.write(0xc0, 1);
        assert_eq!((guest.read(0xc0), guest.read(0x44), guest.xen.mapped()), (0, 0, 0));
        // Its buffers were used before.
        assert_eq!(guest.read(0x60), 1);
        guest.write(0x64, 1);
        guest.clear_rings();
        guest.enable_queue();
        assert_eq!((guest.read(0x44), guest.read(0x60), guest.xen.mapped()), (1, 0, 1));
    }
    guest.transfer(0);
    guest.write(0x70, 0);
    assert_eq!((guest.read(0x70), guest.xen.mapped()), (0, 0));
}

#[test]
fn a_queue_that_comes_back_where_nothing_is_granted_costs_a_reset() {
    let mut guest = Guest::new();
    guest.xen.grant(1);
    guest.probe();
    guest.write(0xc0, 1);
    guest.write(0x38, 16);
    for register in [0x80, 0x90, 0xa0] {
        guest.write(register, 0x5000);
        guest.write(register + 4, 1 << 31);
    }
    guest.write(0x44, 1);
    assert_eq!((guest.read(0x70), guest.read(0x60), guest.xen.mapped()), (0x4f, 2, 0));
    guest.probe();
    assert_eq!(guest.read(0x70), 0x4f);
    guest.write(0x70, 0);
    guest.probe();
    guest.transfer(0);
}

#[test]
fn a_driver_hears_of_a_configuration_that_its_backend_changes() {
    let (socket, seen) = test_backend::start_with_requests();
    let mut guest = Guest::with(socket);
    guest.xen.grant(1);
    guest.probe();
    assert_eq!((guest.read(0x100), guest.read(0xfc), guest.read(0x60)), (0x0302_0100, 0, 0));
    guest.change_config(&seen);
    assert_eq!((guest.read(0x100), guest.read(0xfc), guest.read(0x60)), (0x0d0c_0b0a, 1, 2));
    assert_eq!(guest.xen.raised(), [IRQ]);
    guest.transfer(0);
}

#[test]
fn rings_that_are_not_granted_cost_a_reset_and_not_the_backend() {
    let mut guest = Guest::new();
    guest.probe();
    assert_eq!((guest.read(0x70), guest.xen.mapped()), (0x4f, 0));
    assert_eq!(guest.xen.raised(), [IRQ]);
    guest.write(0x70, 0);
    guest.xen.grant(1);
    guest.probe();
    assert_eq!(guest.read(0x70), 0xf);
    guest.transfer(0);
}

#[test]
fn a_queue_that_its_backend_cannot_use_costs_a_reset_and_not_the_backend() {
    let (mut guest, memory) = in_use(Script::default());
    guest.fail_queue();
    guest.transport().queue_failed(0);
    assert_eq!((guest.read(0x70), guest.read(0x60), guest.xen.mapped()), (0x4f, 3, 0));
    assert_eq!((guest.xen.raised(), guest.has_backend(), guest.device().deadline()), (vec![IRQ], true, None));
    let heard: Vec<_> = memory.take().iter().map(|heard| heard.request).collect();
    let stopped = [
        scripted::SET_VRING_ENABLE,
        scripted::GET_VRING_BASE,
        scripted::SET_MEM_TABLE,
        scripted::RESET_DEVICE,
    ];
    assert_eq!(heard, stopped);
    // One that dies now is replaced, and the next one has nothing to do.
    guest.device().miss("killed", false);
    let (socket, memory) = scripted::start(Script::default());
    guest.replace(socket, None);
    assert_eq!((guest.read(0x70), bases(&memory.take())), (0x4f, vec![]));
    guest.write(0x70, 0);
    guest.probe();
    assert_eq!((guest.read(0x70), bases(&memory.take())), (0xf, vec![0]));
}

#[test]
fn what_a_backend_said_of_a_queue_before_its_reset_is_of_the_past() {
    let (mut guest, _) = in_use(Script::default());
    guest.fail_queue();
    guest.write(0xc0, 1);
    guest.enable_queue();
    guest.transport().queue_failed(0);
    assert_eq!(guest.read(0x70), 0xf);
    guest.fail_queue();
    guest.write(0x70, 0);
    guest.probe();
    guest.transport().queue_failed(0);
    assert_eq!(guest.read(0x70), 0xf);
    // Nobody uses it, so nobody minds.
    guest.write(0x70, 0);
    guest.fail_queue();
    guest.transport().queue_failed(0);
    assert_eq!((guest.read(0x70), guest.xen.raised()), (0, vec![]));
}

/// The vring bases that a backend has been told.
fn bases(heard: &[scripted::Heard]) -> Vec<u32> {
    let bases = heard.iter().filter(|heard| heard.request == scripted::SET_VRING_BASE);
    bases.map(scripted::Heard::number).collect()
}

/// A guest that uses a scripted device, five requests of which have been used and two more are with the backend.
fn in_use(script: Script) -> (Guest, scripted::Memory) {
    let (socket, memory) = scripted::start(script);
    let mut guest = Guest::with(socket);
    guest.xen.grant(1);
    guest.probe();
    assert_eq!(bases(&memory.take()), [0]);
    guest.progress(7, 5);
    (guest, memory)
}

#[test]
fn the_next_backend_is_told_everything_in_order_and_both_sides_look_again() {
    let (mut guest, _) = in_use(Script::default());
    guest.device().miss("killed", false);
    assert_eq!((guest.read(0x70), guest.xen.mapped()), (0xf, 1));
    // A kick meanwhile waits in its eventfd.
    guest.write(0x50, 0);
    let (socket, memory) = scripted::start(Script::default());
    guest.replace(socket, None);
    let heard = memory.take();
    let start = heard.iter().position(|heard| heard.request == scripted::SET_FEATURES).unwrap();
    let order: Vec<_> = heard[start..].iter().map(|heard| heard.request).collect();
    assert_eq!(
        order,
        [
            scripted::SET_FEATURES,
            scripted::SET_INFLIGHT_FD,
            scripted::SET_MEM_TABLE,
            scripted::SET_VRING_NUM,
            scripted::SET_VRING_BASE,
            scripted::SET_VRING_ADDR,
            scripted::SET_VRING_ERR,
            scripted::SET_VRING_CALL,
            scripted::SET_VRING_KICK,
            scripted::SET_VRING_ENABLE,
        ]
    );
    assert_eq!(bases(&heard), [5]);
    let [notifier] = guest.device().notifiers() else { panic!() };
    assert_eq!((notifier.kick.read().unwrap(), notifier.call.read().unwrap()), (2, 1));
    assert_eq!((guest.read(0x70), guest.xen.mapped(), guest.device().away_until), (0xf, 1, None));
    assert!(guest.xen.raised().is_empty());
}

/// It may have done requests of the first queue before it died of the second.
#[test]
fn a_backend_that_dies_while_it_is_started_is_not_followed_from_the_beginning() {
    let (socket, _) =
        scripted::start(Script { dies_of: Some(scripted::SET_VRING_ENABLE), ..Script::default() });
    let mut guest = Guest::with(socket);
    guest.xen.grant(1);
    guest.probe();
    assert_eq!((guest.has_backend(), guest.read(0x70)), (false, 0xf));
    let record = guest.device().inflight.try_clone();
    std::os::unix::fs::FileExt::write_all_at(&record, b"mark", 100).unwrap();
    guest.progress(3, 2);
    let (socket, memory) = scripted::start(Script::default());
    guest.replace(socket, None);
    let heard = memory.take();
    let records: Vec<_> = heard.iter().filter_map(|heard| heard.record.clone()).collect();
    assert_eq!((bases(&heard), &records[0][100..104]), (vec![2], &b"mark"[..]));
    assert_eq!(guest.read(0x70), 0xf);
}

#[test]
fn the_record_of_requests_in_flight_outlives_a_backend_and_not_a_reset() {
    let (mut guest, _) = in_use(Script::default());
    let records = |memory: &scripted::Memory| {
        let heard = memory.take();
        heard.into_iter().filter_map(|heard| heard.record).collect::<Vec<_>>()
    };
    let record = guest.device().inflight.try_clone();
    std::os::unix::fs::FileExt::write_all_at(&record, b"mark", 100).unwrap();
    guest.device().miss("killed", false);
    let (socket, memory) = scripted::start(Script::default());
    guest.replace(socket, None);
    let [seen] = records(&memory).try_into().unwrap();
    assert_eq!(seen[100..104], *b"mark");
    guest.write(0x70, 0);
    // A worker that dies before the reset is kept leaves a device that is in use.
    let mut mark = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&record, &mut mark, 100).unwrap();
    assert_eq!(mark, *b"mark");
    guest.probe();
    assert_eq!(records(&memory), [vec![0; scripted::RECORD]]);
}

/// A state that could not be taken up leaves a device that was never started, and a record of what was.
#[test]
fn a_driver_that_begins_has_nothing_in_flight_whatever_was_before() {
    let (socket, memory) = scripted::start(Script::default());
    let mut guest = Guest::with(socket);
    guest.xen.grant(1);
    let record = guest.device().inflight.try_clone();
    record.set_len(scripted::RECORD as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&record, b"mark", 100).unwrap();
    guest.transport().device_lost();
    guest.write(0x70, 0);
    guest.probe();
    let records: Vec<_> = memory.take().into_iter().filter_map(|heard| heard.record).collect();
    assert_eq!(records, [vec![0; scripted::RECORD]]);
}

#[test]
fn a_queue_that_is_reset_has_nothing_in_flight_for_any_backend() {
    for is_away in [false, true] {
        let (mut guest, _) = in_use(Script::default());
        let record = guest.device().inflight.try_clone();
        std::os::unix::fs::FileExt::write_all_at(&record, b"mark", 100).unwrap();
        if is_away {
            guest.device().miss("killed", false);
        }
        guest.write(0xc0, 1);
        assert_eq!((guest.read(0xc0), guest.read(0x44), guest.xen.mapped()), (0, 0, 0));
        guest.progress(0, 0);
        guest.enable_queue();
        assert_eq!((guest.read(0x44), guest.read(0x70), guest.xen.mapped()), (1, 0xf, 1));
        guest.device().miss("killed", false);
        let (socket, memory) = scripted::start(Script::default());
        guest.replace(socket, None);
        let seen = memory.take();
        assert_eq!(bases(&seen), [0]);
        let records: Vec<_> = seen.into_iter().filter_map(|heard| heard.record).collect();
        assert_eq!(records, [vec![0; scripted::RECORD]]);
    }
}

#[test]
fn a_driver_waits_five_seconds_for_a_backend_and_no_longer() {
    let (mut guest, _) = in_use(Script::default());
    guest.device().miss("killed", false);
    let news = (guest.device().take_news(), guest.device().take_news());
    assert_eq!(news, (true, false));
    let limit = guest.device().away_until.unwrap();
    guest.pass_deadline();
    // Five requests were used, and nobody has acknowledged that.
    assert_eq!((guest.read(0x70), guest.read(0x60), guest.xen.mapped()), (0x4f, 3, 0));
    assert_eq!(guest.xen.raised(), [IRQ]);
    assert!(limit > Instant::now() && guest.device().deadline().is_none());
    // A backend that comes later serves the driver after its reset.
    let (socket, memory) = scripted::start(Script::default());
    guest.replace(socket, None);
    assert_eq!((guest.read(0x70), bases(&memory.take())), (0x4f, vec![]));
    guest.write(0x70, 0);
    guest.probe();
    assert_eq!((guest.read(0x70), bases(&memory.take())), (0xf, vec![0]));
}

#[test]
fn a_driver_can_reset_and_start_a_device_whose_backend_is_away() {
    let (mut guest, _) = in_use(Script::default());
    guest.device().miss("killed", false);
    guest.write(0x70, 0);
    assert_eq!((guest.read(0x70), guest.xen.mapped(), guest.device().deadline()), (0, 0, None));
    guest.probe();
    assert_eq!((guest.read(0x70), guest.xen.mapped()), (0xf, 1));
    assert!(guest.device().away_until.is_some());
    // A queue that goes has not to be told to a backend that has never seen it.
    guest.write(0xc0, 1);
    assert_eq!((guest.read(0x70), guest.xen.mapped()), (0xf, 0));
    guest.enable_queue();
    guest.progress(1, 0);
    let (socket, memory) = scripted::start(Script::default());
    guest.replace(socket, None);
    let heard = memory.take();
    assert_eq!((guest.read(0x70), bases(&heard)), (0xf, vec![0]));
    assert!(
        heard
            .iter()
            .all(|heard| heard.record.as_ref().is_none_or(|record| record.iter().all(|&byte| byte == 0)))
    );
}

#[test]
fn a_backend_that_lacks_a_feature_in_use_is_not_told_to_go_on() {
    let (mut guest, _) = in_use(Script::default());
    guest.device().miss("killed", false);
    let (socket, memory) =
        scripted::start(Script { features: 1 << 32 | 1 << 33 | 1 << 30, ..Script::default() });
    guest.replace(socket, None);
    assert_eq!((guest.read(0x70), guest.read(0x60), bases(&memory.take())), (0x4f, 3, vec![]));
    assert_eq!(guest.xen.mapped(), 0);
}

#[test]
fn a_backend_with_another_configuration_does_not_go_on_and_shows_it() {
    let (mut guest, _) = in_use(Script::default());
    guest.device().miss("killed", false);
    let (socket, memory) = scripted::start(Script { config: b"changed!".to_vec(), ..Script::default() });
    guest.replace(socket, None);
    assert_eq!((guest.read(0x70), guest.read(0x60), bases(&memory.take())), (0x4f, 3, vec![]));
    assert_eq!(guest.read(0x100), u64::from(u32::from_le_bytes(*b"chan")));
    guest.write(0x70, 0);
    guest.probe();
    assert_eq!((guest.read(0x70), bases(&memory.take())), (0xf, vec![0]));
}

/// Then all of its backends are, and a driver that is ready is told in each case what becomes of its device.
#[test]
fn a_driver_whose_worker_is_replaced_goes_on_or_hears_that_it_cannot() {
    type Next = (Script, u64, Vec<u32>);
    let good = Script::default;
    let nexts: [Next; 3] = [
        (good(), 0xf, vec![5]),
        (Script { features: 1 << 32 | 1 << 33 | 1 << 30, ..good() }, 0x4f, vec![]),
        (Script { config: b"less\0\0\0\0".to_vec(), ..good() }, 0x4f, vec![]),
    ];
    for (script, status, told) in nexts {
        let (mut guest, _) = in_use(good());
        let state = guest.transport().state();
        assert_eq!(guest.replace_worker(Some(state)), Ok(()));
        // It is there before its backend is.
        assert_eq!((guest.read(0x70), guest.has_backend()), (0xf, false));
        guest.write(0x64, 3);
        guest.xen.raised();
        let (socket, memory) = scripted::start(script);
        guest.replace(socket, None);
        assert_eq!((guest.read(0x70), bases(&memory.take())), (status, told));
        let is_lost = status == 0x4f;
        assert_eq!((guest.read(0x60) & 2 != 0, guest.xen.raised().len()), (is_lost, usize::from(is_lost)));
        guest.write(0x70, 0);
        guest.probe();
        assert_eq!((guest.read(0x70), bases(&memory.take())), (0xf, vec![0]));
    }
}

#[test]
fn a_driver_whose_worker_is_replaced_waits_five_seconds_for_a_backend_and_no_longer() {
    let (mut guest, _) = in_use(Script::default());
    let state = guest.transport().state();
    guest.replace_worker(Some(state)).unwrap();
    guest.pass_deadline();
    assert_eq!((guest.read(0x70), guest.read(0x60) & 2, guest.xen.mapped()), (0x4f, 2, 0));
}

#[test]
fn a_driver_of_which_nothing_is_known_any_more_hears_that_it_cannot_go_on() {
    let (mut guest, _) = in_use(Script::default());
    assert_eq!(guest.replace_worker(None), Err(RestoreError::Unreadable));
    assert_eq!((guest.read(0x70), guest.read(0x60), guest.xen.raised()), (0x4f, 3, vec![IRQ]));
    let (socket, memory) = scripted::start(Script::default());
    guest.replace(socket, None);
    assert_eq!((guest.read(0x70), bases(&memory.take())), (0x4f, vec![]));
    guest.write(0x70, 0);
    guest.probe();
    assert_eq!((guest.read(0x70), bases(&memory.take())), (0xf, vec![0]));
}

#[test]
fn a_backend_that_refuses_to_go_on_costs_a_reset() {
    let (mut guest, _) = in_use(Script::default());
    guest.device().miss("killed", false);
    let refuses = Some(scripted::SET_VRING_ADDR);
    let (socket, _) = scripted::start(Script { refuses, ..Script::default() });
    guest.replace(socket, None);
    assert_eq!((guest.read(0x70), guest.has_backend(), guest.xen.mapped()), (0x4f, false, 0));
    assert!(guest.device().take_news());
}

#[test]
fn without_a_record_in_flight_only_an_idle_device_goes_on() {
    let script = Script { tracks_inflight: false, ..Script::default() };
    for (outstanding, status) in [(0, 0xf), (1, 0x4f)] {
        let (mut guest, _) = in_use(script.clone());
        guest.progress(5 + outstanding, 5);
        guest.device().miss("killed", false);
        let (socket, memory) = scripted::start(script.clone());
        guest.replace(socket, None);
        let told = if outstanding == 0 { vec![5] } else { vec![] };
        assert_eq!((guest.read(0x70), bases(&memory.take())), (status, told));
    }
}

#[test]
fn a_real_backend_goes_on_where_another_left() {
    let mut guest = Guest::new();
    guest.xen.grant(1);
    guest.probe();
    for round in 0..5 {
        guest.transfer(2 * round);
        guest.transfer(2 * round + 1);
        assert_eq!(guest.read(0x60), 1);
        guest.write(0x64, 1);
        guest.device().miss("killed", false);
        guest.replace(test_backend::start().0, None);
        // The interrupt that may have been lost, if the backend has not been faster.
        guest.await_call();
        assert_eq!((guest.read(0x70), guest.read(0x60)), (0xf, 0));
    }
    guest.write(0x70, 0);
    assert_eq!((guest.read(0x70), guest.xen.mapped()), (0, 0));
}

#[test]
fn a_backend_that_hangs_is_asked_and_then_killed() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let (mut guest, _) = in_use(Script::default());
    guest.device().miss("killed", false);
    let hangs_after = Some(scripted::SET_VRING_ENABLE);
    let (socket, _) = scripted::start(Script { hangs_after, ..Script::default() });
    guest.replace(socket, Some(Process::new(pidfd)));
    guest.stand_still();
    guest.pass_deadline();
    assert!(!child.wait().unwrap().success());
    assert_eq!((guest.has_backend(), guest.read(0x70)), (false, 0xf));
    let (socket, memory) = scripted::start(Script::default());
    guest.replace(socket, None);
    assert_eq!((guest.read(0x70), bases(&memory.take())), (0xf, vec![5]));
}

#[test]
fn a_backend_that_answers_is_left_alone() {
    let (mut guest, memory) = in_use(Script::default());
    guest.stand_still();
    guest.hear();
    assert_eq!(memory.take().last().map(|heard| heard.request), Some(scripted::GET_FEATURES));
    guest.pass_deadline();
    assert!(guest.has_backend());
    // It is asked again only for what comes after.
    assert!(guest.device().awaits_kick());
    guest.progress(8, 5);
    guest.device().kicked();
    assert!(guest.device().deadline().is_some() && !guest.device().awaits_kick());
}

/// A call to the backend takes the answer that is due before its own.
#[test]
fn a_sign_of_life_that_another_call_takes_is_one() {
    type Call = (&'static str, fn(&mut Guest));
    let calls: [Call; 4] = [
        ("QueueReset", |guest| guest.write(0xc0, 1)),
        ("QueueReady", |guest| {
            guest.write(0x44, 0);
            guest.progress(8, 5);
        }),
        ("a reset", |guest| guest.write(0x70, 0)),
        ("a reset and a start", |guest| {
            guest.write(0x70, 0);
            guest.probe();
            guest.progress(7, 5);
        }),
    ];
    let mut killed = Vec::new();
    for (name, call) in calls {
        let (mut guest, _) = in_use(Script::default());
        guest.stand_still();
        call(&mut guest);
        killed.extend(guest.is_killed().then_some(name));
    }
    let script = Script { config: vec![0; 136], features: 1 << 32 | 1 << 33 | 1 << 30, ..Script::default() };
    let mut guest = Guest::of(INPUT, scripted::start(script).0);
    guest.xen.grant(1);
    guest.probe_with(0);
    guest.progress(7, 5);
    guest.stand_still();
    guest.xen.trap(0, write(BASE + 0x100, 1, 1));
    guest.bus.serve(&*guest.xen, 0);
    killed.extend(guest.is_killed().then_some("a write of the configuration"));
    let (socket, seen) = test_backend::start_with_requests();
    let mut guest = Guest::with(socket);
    guest.xen.grant(1);
    guest.probe();
    guest.progress(7, 5);
    guest.stand_still();
    guest.change_config(&seen);
    killed.extend(guest.is_killed().then_some("a change of the configuration"));
    assert_eq!(killed, [""; 0]);
}

/// The worker may be kept from reading it in time, by another device.
#[test]
fn an_answer_that_is_there_is_heard_before_the_backend_is_judged() {
    let (mut guest, _) = in_use(Script::default());
    guest.stand_still();
    let connection = guest.device().connection().unwrap().try_clone_to_owned().unwrap();
    poll(&mut [PollFd::new(&connection, PollFlags::IN)], None).unwrap();
    guest.pass_deadline();
    assert!(guest.has_backend());
}

#[test]
fn a_backend_that_hangs_up_is_let_go_of_and_every_trap_answered() {
    let (mut guest, _) = in_use(Script::default());
    let connection = guest.device().connection().unwrap().try_clone_to_owned().unwrap();
    rustix::net::shutdown(&connection, rustix::net::Shutdown::Both).unwrap();
    guest.hear();
    assert_eq!((guest.has_backend(), guest.read(0x70), guest.xen.mapped()), (false, 0xf, 1));
    guest.write(0x50, 0);
    guest.write(0x64, 3);
    guest.write(0x70, 0);
    assert_eq!((guest.read(0x70), guest.xen.mapped()), (0, 0));
}

#[test]
fn a_driver_whose_backend_dies_unnoticed_sees_no_error_of_its_call() {
    let (mut guest, _) = in_use(Script::default());
    let connection = guest.device().connection().unwrap().try_clone_to_owned().unwrap();
    rustix::net::shutdown(&connection, rustix::net::Shutdown::Both).unwrap();
    guest.write(0xc0, 1);
    assert_eq!((guest.read(0x70), guest.has_backend(), guest.xen.mapped()), (0xf, false, 0));
}
