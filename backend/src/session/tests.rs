// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a steady flow of requests costs: no memory, once a guest has sent the first; and no kicks, if the rings are polled.
//! What a hostile flow costs: no more than some memory.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use rustix::event::{EventfdFlags, eventfd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::device::{QueueLimits, Refused};
use crate::gpio::device::Gpio;
use crate::gpio::safe::Safe;
use crate::gpio::sim::{Board, SimLines};
use crate::i2c::bus::{Bus, Data, Failure, Message};
use crate::i2c::device::I2c;
use crate::i2c::policy::AllowList;
use crate::i2c::time::Clock;
use crate::inflight::Tail;
use crate::sim::board::GpioChip;
use crate::sim::journal::Journal;

const SIZE: u16 = 64;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFERS: u64 = 0x4000;
/// Bytes between buffers.
const APART: u64 = 0x100;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A backend with its first queue in use.
struct Served {
    backend: Backend,
    available: u16,
}

impl Served {
    fn new(device: impl Device + 'static) -> Self {
        let mut backend = Backend::new(Box::new(device), Watcher::new().unwrap()).unwrap();
        let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let session = &mut backend.session;
        (session.accepted, session.memory) = (Some(0), Memory::new(map).unwrap());
        let ring = session.rings.first_mut().unwrap();
        ring.set_size(SIZE.into()).unwrap();
        let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        (ring.enabled, ring.call) = (true, Some(File::from(call)));
        let mut served = Self { backend, available: 0 };
        served.start();
        served
    }

    /// Starts the queue, on rings that are empty.
    fn start(&mut self) {
        self.available = 0;
        [AVAILABLE, USED].iter().for_each(|ring| self.write(*ring, &[0; 4]));
        let session = &mut self.backend.session;
        let ring = session.rings.first_mut().unwrap();
        let parts = [DESCRIPTORS, AVAILABLE, USED].map(GuestAddress);
        ring.set_addresses(&session.memory, parts).unwrap();
        ring.set_next_available(0);
        ring.start(&session.memory).unwrap();
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.backend.session.memory.map().write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// Makes requests available all at once, each with room for an answer, kicks, and has the backend work.
    fn send(&mut self, requests: &[(&[u8], u32)]) {
        self.offer(requests);
        self.backend.session.rings.first_mut().unwrap().pending = true;
        self.backend.work();
        assert_eq!(self.used(), self.available, "all have come back");
    }

    /// Makes requests available, and tells nobody.
    fn offer(&mut self, requests: &[(&[u8], u32)]) {
        for (request, room) in requests {
            let head = 2 * self.available % SIZE;
            let buffer = |index: u16| BUFFERS + APART * u64::from(index);
            self.write(buffer(head), request);
            self.describe(head, buffer(head), u32::try_from(request.len()).unwrap(), NEXT);
            self.describe(head + 1, buffer(head + 1), *room, WRITE);
            self.write(AVAILABLE + 4 + 2 * u64::from(self.available % SIZE), &head.to_le_bytes());
            self.available += 1;
        }
        self.write(AVAILABLE + 2, &self.available.to_le_bytes());
    }

    fn load(&self, at: u64) -> u16 {
        u16::from_le(self.backend.session.memory.map().load(GuestAddress(at), Ordering::SeqCst).unwrap())
    }

    /// The used index.
    fn used(&self) -> u16 {
        self.load(USED + 2)
    }

    /// Whether the driver is to kick (`VIRTQ_USED_F_NO_NOTIFY`, virtio 1.3, 2.7.10).
    fn wants_kicks(&self) -> bool {
        self.load(USED) & 1 == 0
    }

    fn describe(&self, index: u16, at: u64, length: u32, flags: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&(index + 1).to_le_bytes());
        self.write(DESCRIPTORS + 16 * u64::from(index), &bytes);
    }

    /// The first byte of the answer to the latest request.
    fn answer(&self) -> u8 {
        let index = 2 * (self.available - 1) % SIZE + 1;
        let at = GuestAddress(BUFFERS + APART * u64::from(index));
        self.backend.session.memory.map().read_obj(at).unwrap()
    }

    /// What is allocated for ten rounds of `requests`, when some have gone before.
    fn steady(&mut self, requests: &[(&[u8], u32)]) -> AllocationInfo {
        (0..3).for_each(|_| self.send(requests));
        measure(|| (0..10).for_each(|_| self.send(requests)))
    }
}

/// A bus on which everybody reads sevens.
struct Sevens;

impl Bus for Sevens {
    fn longest_transaction(&self) -> usize {
        42
    }
    fn clock(&self) -> Clock {
        Clock::STANDARD
    }
    fn transfer(&mut self, messages: &mut [Message<'_>]) -> std::result::Result<(), Failure> {
        for message in messages {
            if let Data::Read(bytes) = &mut message.data {
                bytes.fill(7);
            }
        }
        Ok(())
    }
    fn watch(&mut self, _: &Watcher, _: u32) -> io::Result<()> {
        Ok(())
    }
    fn event(&mut self, _: u32) {}
}

#[test]
fn a_steady_flow_of_i2c_requests_allocates_nothing() {
    let device = I2c::new(Box::new(Sevens), "0x50".parse::<AllowList>().unwrap(), None).unwrap();
    let mut served = Served::new(device);
    // A register read: the register's number, FAIL_NEXT; then two bytes with a repeated start.
    let requests: [(&[u8], u32); 2] =
        [(&[0xa0, 0, 0, 0, 1, 0, 0, 0, 0x10], 1), (&[0xa0, 0, 0, 0, 2, 0, 0, 0], 3)];
    let allocated = served.steady(&requests);
    assert_eq!((served.answer(), allocated.count_total), (7, 0));
    // Eight of them in flight.
    let allocated = served.steady(&requests.repeat(8));
    assert_eq!((served.answer(), allocated.count_total), (7, 0));
}

#[test]
fn a_steady_flow_of_gpio_requests_allocates_nothing() {
    let chip = GpioChip { lines: vec![String::new()], ..GpioChip::default() };
    let lines = SimLines::new(Board::new(&chip, Journal::default()).unwrap(), None);
    let device = Gpio::new(lines, &[None], &[Safe::default()]).unwrap();
    let mut served = Served::new(device);
    // SET_DIRECTION to input, then GET_VALUE again and again.
    served.send(&[(&[3, 0, 0, 0, 2, 0, 0, 0], 2)]);
    let allocated = served.steady(&[(&[4, 0, 0, 0, 0, 0, 0, 0], 2)]);
    assert_eq!((served.answer(), allocated.count_total), (0, 0));
}

#[test]
fn while_its_rings_are_polled_a_driver_need_not_kick() {
    let request: [(&[u8], u32); 1] = [(&[0xa0, 0, 0, 0, 2, 0, 0, 0], 3)];
    let device = I2c::new(Box::new(Sevens), "0x50".parse::<AllowList>().unwrap(), None).unwrap();
    let mut served = Served::new(device);
    served.send(&request);
    assert!(served.wants_kicks());
    served.backend.set_polled(true);
    served.send(&request);
    assert!(!served.wants_kicks());
    served.backend.look();
    assert!(!served.backend.is_pending());
    served.offer(&request);
    served.backend.look();
    assert!(served.backend.is_pending());
    served.backend.work();
    assert_eq!((served.used(), served.wants_kicks()), (3, false));
    // What comes between the last look and the end of polling is not kicked, and not lost.
    served.offer(&request);
    served.backend.set_polled(false);
    assert!(served.backend.is_pending() && served.wants_kicks());
    served.backend.work();
    assert_eq!(served.used(), 4);
    served.backend.set_polled(false);
    assert!(!served.backend.is_pending());
}

/// Available indices that run ahead, and entries that name no descriptor: there is no chain to answer.
#[test]
fn the_frontend_hears_of_a_ring_that_is_not_usable() {
    type Wrong = fn(&Served);
    let far_ahead: Wrong = |served| served.write(AVAILABLE + 2, &(served.available + SIZE + 1).to_le_bytes());
    let no_descriptor: Wrong = |served| {
        served.write(AVAILABLE + 4 + 2 * u64::from(served.available), &SIZE.to_le_bytes());
        served.write(AVAILABLE + 2, &(served.available + 1).to_le_bytes());
    };
    let request: [(&[u8], u32); 1] = [(&[0xa0, 0, 0, 0, 2, 0, 0, 0], 3)];
    for wrong in [far_ahead, no_descriptor] {
        let device = I2c::new(Box::new(Sevens), "0x50".parse::<AllowList>().unwrap(), None).unwrap();
        let mut served = Served::new(device);
        let mut err = File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let given = err.try_clone().unwrap();
        let mut has_failed = || err.read(&mut [0; 8]).is_ok();
        served.backend.session.rings.first_mut().unwrap().err = Some(given);
        served.send(&request);
        assert!(!has_failed());
        wrong(&served);
        served.backend.kicked(0);
        served.backend.work();
        assert_eq!((has_failed(), served.used()), (true, 1));
        // Once, and what comes now is not looked at.
        served.offer(&request);
        served.backend.kicked(0);
        served.backend.work();
        assert_eq!((has_failed(), served.used(), served.backend.is_pending()), (false, 1, false));
    }
}

/// All that was taken before is given back by then, so that the driver can still have it.
#[test]
fn what_was_taken_of_a_ring_that_fails_comes_back_first() {
    let device = I2c::new(Box::new(Sevens), "0x50".parse::<AllowList>().unwrap(), None).unwrap();
    let mut served = Served::new(device);
    served.offer(&[(&[0xa0, 0, 0, 0, 2, 0, 0, 0], 3)]);
    served.write(AVAILABLE + 4 + 2 * u64::from(served.available), &SIZE.to_le_bytes());
    served.write(AVAILABLE + 2, &(served.available + 1).to_le_bytes());
    served.backend.kicked(0);
    served.backend.work();
    assert_eq!((served.used(), served.answer()), (1, 7));
}

/// The number of messages of each transaction, the first of which takes longer than a turn may if it says so.
#[derive(Clone, Default)]
struct Counted {
    transactions: Arc<Mutex<Vec<usize>>>,
    is_slow: bool,
}

impl Bus for Counted {
    fn longest_transaction(&self) -> usize {
        42
    }
    fn clock(&self) -> Clock {
        Clock::STANDARD
    }
    fn transfer(&mut self, messages: &mut [Message<'_>]) -> std::result::Result<(), Failure> {
        self.transactions.lock().unwrap().push(messages.len());
        if std::mem::take(&mut self.is_slow) {
            std::thread::sleep(Duration::from_millis(600));
        }
        Ok(())
    }
    fn watch(&mut self, _: &Watcher, _: u32) -> io::Result<()> {
        Ok(())
    }
    fn event(&mut self, _: u32) {}
}

fn counted(is_slow: bool) -> (Served, Arc<Mutex<Vec<usize>>>) {
    let bus = Counted { is_slow, ..Counted::default() };
    let transactions = Arc::clone(&bus.transactions);
    let device = I2c::new(Box::new(bus), "0x50".parse::<AllowList>().unwrap(), None).unwrap();
    (Served::new(device), transactions)
}

/// A write of one byte, the last of its group or not.
const FIRST: &[u8] = &[0xa0, 0, 0, 0, 1, 0, 0, 0, 0x10];
const LAST: &[u8] = &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10];

/// The daemon may have been kept from its processor until the time is over.
#[test]
fn a_group_is_not_cut_up_when_its_rest_is_in_the_ring() {
    let (mut served, transactions) = counted(false);
    served.offer(&[(FIRST, 1)]);
    served.backend.kicked(0);
    served.backend.work();
    std::thread::sleep(Duration::from_millis(30));
    served.offer(&[(LAST, 1)]);
    served.backend.device_event(0);
    assert_eq!((&*transactions.lock().unwrap(), served.used()), (&vec![2], 2));
}

#[test]
fn what_waits_for_the_bus_when_a_queue_stops_fails() {
    let (mut served, transactions) = counted(true);
    served.offer(&[(LAST, 1); 3]);
    served.backend.kicked(0);
    let slow = served.backend.begin().unwrap();
    slow.run();
    let next = served.backend.go_on().unwrap();
    assert_eq!(served.used(), 1, "the first, which was slow, comes back before the others");
    served.backend.stop_ring(0).unwrap();
    assert_eq!((served.used(), served.answer()), (3, 1));
    // The daemon's other thread may be about to begin with it.
    next.run();
    assert!(served.backend.go_on().is_none());
    assert_eq!(*transactions.lock().unwrap(), [1]);
}

/// A group that waits for the bus, and the requests behind it, are back when the driver has its queue
/// stopped, and never reach the bus. The transaction on the bus is waited for.
#[test]
fn what_is_on_the_bus_when_a_queue_stops_has_its_answer() {
    let (mut served, transactions) = counted(true);
    served.offer(&[(LAST, 1); 2]);
    served.backend.kicked(0);
    let slow = served.backend.begin().unwrap();
    let on_bus = std::thread::spawn(move || slow.run());
    while transactions.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    served.backend.stop_ring(0).unwrap();
    let status = |index: u64| {
        let at = GuestAddress(BUFFERS + APART * (2 * index + 1));
        served.backend.session.memory.map().read_obj::<u8>(at).unwrap()
    };
    assert_eq!((served.used(), status(0), status(1)), (2, 0, 1));
    on_bus.join().unwrap();
}

/// What it still has of the ring comes back first, be it in another turn.
#[test]
fn the_frontend_hears_of_a_ring_when_the_rest_of_a_slow_batch_is_back() {
    let (mut served, _) = counted(true);
    let mut err = File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
    served.backend.session.rings.first_mut().unwrap().err = Some(err.try_clone().unwrap());
    served.offer(&[(LAST, 1); 3]);
    served.write(AVAILABLE + 4 + 2 * u64::from(served.available), &SIZE.to_le_bytes());
    served.write(AVAILABLE + 2, &(served.available + 1).to_le_bytes());
    served.backend.kicked(0);
    let mut work = served.backend.begin();
    let mut seen = Vec::new();
    while let Some(next) = work {
        next.run();
        work = served.backend.go_on();
        seen.push((served.used(), err.read(&mut [0; 8]).is_ok()));
    }
    assert_eq!(seen, [(1, false), (1, false), (3, true)]);
}

/// The first driver has no use for event indices, and the second one wants to hear of another chain than its first.
#[test]
fn a_driver_is_notified_as_if_there_had_been_none_before() {
    let request: [(&[u8], u32); 1] = [(&[0xa0, 0, 0, 0, 2, 0, 0, 0], 3)];
    let device = I2c::new(Box::new(Sevens), "0x50".parse::<AllowList>().unwrap(), None).unwrap();
    let mut served = Served::new(device);
    served.steady(&request);
    let Session { rings, memory, .. } = &mut served.backend.session;
    let ring = rings.first_mut().unwrap();
    ring.stop();
    memory.map().write_slice(&[0; 0x1000], GuestAddress(AVAILABLE)).unwrap();
    memory.map().write_slice(&[0; 0x1000], GuestAddress(USED)).unwrap();
    ring.set_event_idx(true);
    ring.set_addresses(memory, [DESCRIPTORS, AVAILABLE, USED].map(GuestAddress)).unwrap();
    ring.set_next_available(0);
    ring.start(memory).unwrap();
    let mut is_notified = || ring.call.as_mut().unwrap().read(&mut [0; 8]).is_ok();
    assert!(is_notified(), "the first driver was");
    let used_event = AVAILABLE + 4 + 2 * u64::from(SIZE);
    memory.map().write_slice(&0xfffe_u16.to_le_bytes(), GuestAddress(used_event)).unwrap();
    served.available = 0;
    served.send(&request);
    let call = served.backend.session.rings.first_mut().unwrap().call.as_mut().unwrap();
    assert!(call.read(&mut [0; 8]).is_err(), "of no chain that the second one wants to hear of");
}

/// What the device writes to the used ring's flags is the available index of such a driver.
#[test]
fn rings_that_overlap_cost_the_queue_and_not_the_daemon() {
    let device = I2c::new(Box::new(Sevens), "0x50".parse::<AllowList>().unwrap(), None).unwrap();
    let mut served = Served::new(device);
    let session = &mut served.backend.session;
    let ring = session.rings.first_mut().unwrap();
    ring.stop();
    let parts = [DESCRIPTORS, USED - 2 + 4, USED + 4].map(GuestAddress);
    ring.set_addresses(&session.memory, parts).unwrap();
    ring.set_next_available(1);
    ring.start(&session.memory).unwrap();
    served.backend.work();
    assert!(!served.backend.is_pending());
}

/// 2.7.8.2: what the driver finds there is the index, so the index was written last.
#[test]
fn the_used_index_is_written_after_an_answer_that_lies_there() {
    let device = I2c::new(Box::new(Sevens), "0x50".parse::<AllowList>().unwrap(), None).unwrap();
    let mut served = Served::new(device);
    served.write(BUFFERS, &[0xa0, 0, 0, 0, 2, 0, 0, 0]);
    served.describe(0, BUFFERS, 8, NEXT);
    // Sevens over the index and the first entry, and a status.
    served.describe(1, USED + 2, 11, WRITE);
    served.write(AVAILABLE + 2, &1_u16.to_le_bytes());
    served.backend.kicked(0);
    served.backend.work();
    let entry = [0, 2, 4, 6].map(|at| served.load(USED + 4 + at));
    assert_eq!((served.used(), entry), (1, [0, 0, 11, 0]));
}

/// Numbers by chance, with a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn small(&mut self, limit: u16) -> u16 {
        u16::try_from(self.below(limit.into())).unwrap()
    }
}

/// Where the hostile guest has its answers.
const ANSWERS: u64 = 0x8000;

/// A guest that sends whatever comes to its mind.
struct Hostile {
    served: Served,
    chance: Chance,
    /// Heads of the chains in the table.
    heads: Vec<u16>,
}

impl Hostile {
    fn new() -> Self {
        let device = I2c::new(Box::new(Sevens), "0x50".parse::<AllowList>().unwrap(), None).unwrap();
        let mut served = Served::new(device);
        served.backend.session.rings.first_mut().unwrap().indirect = true;
        Self { served, chance: Chance(0x2545_f491_4f6c_dd1d), heads: Vec::with_capacity(SIZE.into()) }
    }

    /// Makes up to a ring full of chains available, some of them more than once, has the backend work, and stops the queue.
    fn batch(&mut self) {
        self.served.start();
        self.fill_table();
        let most = if self.chance.below(8) == 0 { SIZE } else { 8 };
        for slot in 0..=self.chance.small(most - 1) {
            let which = usize::from(self.chance.small(SIZE)) % self.heads.len();
            let head = if self.chance.below(1000) == 0 { SIZE } else { self.heads[which] };
            self.served.write(AVAILABLE + 4 + 2 * u64::from(slot), &head.to_le_bytes());
            self.served.available += 1;
        }
        self.served.write(AVAILABLE + 2, &self.served.available.to_le_bytes());
        while self.served.backend.is_pending() {
            self.served.backend.work();
        }
        self.served.backend.stop_ring(0).unwrap();
    }

    /// Fills the table with chains, and often spoils a descriptor of one.
    fn fill_table(&mut self) {
        self.heads.clear();
        // In every other batch all are one group.
        let joined = self.chance.small(2);
        let mut first = 0;
        while first < SIZE - 1 {
            let count = (2 + self.chance.small(59)).min(SIZE - first);
            self.heads.push(first);
            self.chain(first, count, joined);
            first += count;
        }
        let (index, field) = (self.chance.below(SIZE.into()), self.chance.below(8));
        // Address, length, flags, next; or nothing.
        if let Some((offset, bytes)) = [(0, 8), (8, 4), (12, 2), (14, 2)].get(usize::try_from(field).unwrap())
        {
            let limit = [u64::MAX, 0x1_0000, 66][usize::from(self.chance.small(3))];
            let value = self.chance.below(limit).to_le_bytes();
            self.served.write(DESCRIPTORS + 16 * index + offset, &value[..*bytes]);
        }
    }

    /// A message of up to 8000 bytes, in `count` descriptors.
    fn chain(&mut self, first: u16, count: u16, joined: u16) {
        let (bytes, reads) = (8 + self.chance.small(7992), self.chance.small(2));
        let (readable, request, room) = if reads == 1 {
            (1 + self.chance.small(8.min(count - 1)), 8, bytes)
        } else {
            (count - 1, bytes, 1)
        };
        let at = BUFFERS + 16 * u64::from(first);
        let flags = (joined | self.chance.small(2)) | reads << 1;
        self.served.write(at, &[0xa0, 0, 0, 0, u8::try_from(flags).unwrap(), 0, 0, 0]);
        self.spread(first, readable, at, request, 0);
        self.spread(first + readable, count - readable, ANSWERS, room, WRITE);
        let last = DESCRIPTORS + 16 * u64::from(first + count - 1);
        self.served.write(last + 12, &WRITE.to_le_bytes());
    }

    /// Describes `bytes` in `count` pieces, the last with what is over.
    fn spread(&self, first: u16, count: u16, at: u64, bytes: u16, flags: u16) {
        let each = bytes / count;
        for piece in 0..count {
            let length = if piece < count - 1 { each } else { bytes - each * piece };
            let at = at + u64::from(each * piece);
            self.served.describe(first + piece, at, length.into(), flags | NEXT);
        }
    }
}

/// Chains that the backend has at once: a group as long as the bus can join, and the turn that brings its end.
const AT_ONCE: u64 = 42 + 16;
/// What is kept of each from batch to batch: two buffers of 256 bytes, two lists of 16 segments of 16 bytes, and its place
/// in the lists of chains that are spare, requested, collected, finished and returning, which grow by doubling.
const KEPT: u64 = AT_ONCE * (2 * 256 + 2 * 16 * 16 + 5 * size_of::<Chain>() as u64);
/// What there is more of while they are worked on: a message of 8000 bytes in a power of two, and 60 segments likewise.
const AT_WORK: u64 = AT_ONCE * (8192 + 64 * 16);

/// Whatever lengths and numbers of descriptors come, and wherever their groups are broken off.
#[test]
fn what_a_hostile_guest_has_allocated_has_a_bound() {
    let mut hostile = Hostile::new();
    let (mut kept, mut peak) = (0_u64, 0);
    for round in 0..2000 {
        let AllocationInfo { bytes_current, bytes_max, .. } = measure(|| hostile.batch());
        peak = peak.max(kept + bytes_max);
        kept = kept.checked_add_signed(bytes_current).unwrap();
        assert!(kept <= KEPT, "{kept} bytes are kept after round {round}");
        assert!(peak <= KEPT + AT_WORK, "{peak} bytes at once in round {round}");
    }
    assert!(peak > AT_WORK / 2, "{peak} bytes: the guest is not as hostile as it was meant to be");
}

/// A device that remembers what its frontend left.
struct Leaving {
    survives: bool,
    left: Arc<Mutex<Option<Left>>>,
}

impl Device for Leaving {
    fn queues(&self) -> &'static [QueueLimits] {
        &[]
    }
    fn features(&self) -> u64 {
        0
    }
    fn accept_features(&mut self, _: u64) -> std::result::Result<(), Refused> {
        Ok(())
    }
    fn config(&self) -> &[u8] {
        &[]
    }
    fn process(&mut self, _: usize, _: &mut Vec<Chain>, _: &mut Vec<Chain>) {}
    fn work(&mut self) -> Option<Arc<dyn Work>> {
        None
    }
    fn worked(&mut self, _: &mut Vec<Chain>) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn event(&mut self, _: u32, _: &mut Vec<Chain>) {}
    fn start(&mut self, _: usize, _: Start) {}
    fn stop(&mut self, _: usize, _: Stop, _: &mut Vec<Chain>) {}
    fn reset(&mut self) {}
    fn record_bytes(&self) -> usize {
        0
    }
    fn take_over(&mut self, _: Tail) {}
    fn survives(&self) -> bool {
        self.survives
    }
    fn leave(&mut self, left: Left) {
        *self.left.lock().unwrap() = Some(left);
    }
    fn watch(&mut self, _: &Watcher) -> io::Result<()> {
        Ok(())
    }
}

/// Both are needed: a record for the driver to go on with, and somebody who holds the lines and starts another daemon.
#[test]
fn hardware_is_left_as_it_is_only_for_a_daemon_that_will_come() {
    for (recorded, survives) in [(false, false), (false, true), (true, false), (true, true)] {
        let left = Arc::default();
        let device = Leaving { survives, left: Arc::clone(&left) };
        let mut backend = Backend::new(Box::new(device), Watcher::new().unwrap()).unwrap();
        backend.session.recorded = recorded;
        backend.end_session().unwrap();
        let expected = if recorded && survives { Left::Driver } else { Left::Nothing };
        assert_eq!(*left.lock().unwrap(), Some(expected), "{recorded} {survives}");
    }
}
