// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of the session: a steady flow of requests allocates nothing and needs no kicks while the rings are
//! polled, a hostile one allocates a limited amount; failures are reported; and disconnects decide about the
//! hardware.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use rustix::event::{EventfdFlags, eventfd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::device::fake::FakeDevice;
use crate::gpio::device::Gpio;
use crate::gpio::fake::FakeLines;
use crate::gpio::safe::SafeValue;
use crate::i2c::bus::{Bus, Data, Failure, Message};
use crate::i2c::device::I2c;
use crate::i2c::policy::AllowList;
use crate::i2c::time::Clock;

const SIZE: u16 = 64;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFERS: u64 = 0x4000;
/// Distance of the buffers in bytes.
const BUFFER_BYTES: u64 = 0x100;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A server with its first queue started, and the driver of that queue.
struct Served {
    server: DeviceServer,
    available: u16,
}

impl Served {
    /// Serves an I2C device on `bus`.
    fn i2c(bus: impl Bus + 'static) -> Self {
        Self::new(I2c::new(Box::new(bus), "0x50".parse::<AllowList>().unwrap(), None).unwrap())
    }

    fn new(device: impl Device + 'static) -> Self {
        let mut server = DeviceServer::new(Box::new(device), Watcher::new().unwrap()).unwrap();
        let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let session = &mut server.session;
        (session.accepted, session.memory) = (Some(0), Memory::new(map).unwrap());
        let ring = session.rings.first_mut().unwrap();
        ring.set_size(SIZE.into()).unwrap();
        (ring.enabled, ring.call) = (true, Some(event()));
        let mut served = Self { server, available: 0 };
        served.start();
        served
    }

    fn ring(&mut self) -> &mut Ring {
        self.server.session.rings.first_mut().unwrap()
    }

    /// Starts the queue, with empty rings.
    fn start(&mut self) {
        self.available = 0;
        [AVAILABLE, USED].iter().for_each(|ring| self.write(*ring, &[0; 4]));
        let session = &mut self.server.session;
        let ring = session.rings.first_mut().unwrap();
        let parts = [DESCRIPTORS, AVAILABLE, USED].map(GuestAddress);
        ring.set_addresses(&session.memory, parts).unwrap();
        ring.set_next_available(0);
        ring.start(&session.memory).unwrap();
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.server.session.memory.map().write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// Makes requests available, each with room for an answer, and has the server process them.
    fn send(&mut self, requests: &[(&[u8], u32)]) {
        self.offer(requests);
        self.ring().pending = true;
        self.server.process_all();
        assert_eq!(self.used(), self.available, "all were returned");
    }

    /// Makes requests available, without a kick.
    fn offer(&mut self, requests: &[(&[u8], u32)]) {
        for (request, room) in requests {
            let head = 2 * self.available % SIZE;
            let buffer = |index: u16| BUFFERS + BUFFER_BYTES * u64::from(index);
            self.write(buffer(head), request);
            self.describe(head, buffer(head), u32::try_from(request.len()).unwrap(), NEXT);
            self.describe(head + 1, buffer(head + 1), *room, WRITE);
            self.offer_head(head);
        }
    }

    /// Makes a head available, which may be invalid.
    fn offer_head(&mut self, head: u16) {
        self.write(AVAILABLE + 4 + 2 * u64::from(self.available % SIZE), &head.to_le_bytes());
        self.available += 1;
        self.write(AVAILABLE + 2, &self.available.to_le_bytes());
    }

    /// Has the server process a kick.
    fn kick(&mut self) {
        self.server.handle_kick(0);
        self.server.process_all();
    }

    fn load(&self, at: u64) -> u16 {
        u16::from_le(self.server.session.memory.map().load(GuestAddress(at), Ordering::SeqCst).unwrap())
    }

    /// Returns the used index.
    fn used(&self) -> u16 {
        self.load(USED + 2)
    }

    /// Whether the driver must kick (`VIRTQ_USED_F_NO_NOTIFY`, virtio 1.3, 2.7.10).
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

    /// Returns the first byte of the answer to the latest request.
    fn answer(&self) -> u8 {
        self.answer_to(self.available - 1)
    }

    /// Returns the first byte of the answer to request `index`.
    fn answer_to(&self, index: u16) -> u8 {
        let at = BUFFERS + BUFFER_BYTES * u64::from(2 * index % SIZE + 1);
        self.server.session.memory.map().read_obj(GuestAddress(at)).unwrap()
    }

    /// Returns the allocations of ten rounds of `requests`, after some rounds have gone before.
    fn steady(&mut self, requests: &[(&[u8], u32)]) -> AllocationInfo {
        (0..3).for_each(|_| self.send(requests));
        measure(|| (0..10).for_each(|_| self.send(requests)))
    }
}

/// Creates an eventfd.
fn event() -> File {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap().into()
}

/// Whether an eventfd was signalled since the last call.
fn is_signalled(mut event: &File) -> bool {
    event.read(&mut [0; 8]).is_ok()
}

/// A read of two bytes, and the first half of a register read.
const READ: (&[u8], u32) = (&[0xa0, 0, 0, 0, 2, 0, 0, 0], 3);
const SELECT: (&[u8], u32) = (&[0xa0, 0, 0, 0, 1, 0, 0, 0, 0x10], 1);
/// A write of one byte, which is not joined with another.
const WRITE_ONE: (&[u8], u32) = (&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10], 1);

/// A bus on which every byte that is read is 7.
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
    fn handle_event(&mut self, _: u32) {}
}

#[test]
fn a_steady_flow_of_i2c_requests_allocates_nothing() {
    let mut served = Served::i2c(Sevens);
    let requests = [SELECT, READ];
    let allocated = served.steady(&requests);
    assert_eq!((served.answer(), allocated.count_total), (7, 0));
    // Eight register reads in flight.
    let allocated = served.steady(&requests.repeat(8));
    assert_eq!((served.answer(), allocated.count_total), (7, 0));
}

#[test]
fn a_steady_flow_of_gpio_requests_allocates_nothing() {
    let device = Gpio::new(FakeLines::new(1), &[None], &[SafeValue::default()]).unwrap();
    let mut served = Served::new(device);
    // SET_DIRECTION to input, then GET_VALUE.
    served.send(&[(&[3, 0, 0, 0, 2, 0, 0, 0], 2)]);
    let allocated = served.steady(&[(&[4, 0, 0, 0, 0, 0, 0, 0], 2)]);
    assert_eq!((served.answer(), allocated.count_total), (0, 0));
}

#[test]
fn while_its_rings_are_polled_a_driver_need_not_kick() {
    let mut served = Served::i2c(Sevens);
    served.send(&[READ]);
    assert!(served.wants_kicks());
    served.server.set_polled(true);
    served.send(&[READ]);
    assert!(!served.wants_kicks());
    served.server.poll_queues();
    assert!(!served.server.has_work());
    served.offer(&[READ]);
    served.server.poll_queues();
    assert!(served.server.has_work());
    served.server.process_all();
    assert_eq!((served.used(), served.wants_kicks()), (3, false));
    // A request between the last poll and the end of polling comes without a kick, and is not lost.
    served.offer(&[READ]);
    served.server.set_polled(false);
    assert!(served.server.has_work() && served.wants_kicks());
    served.server.process_all();
    assert_eq!(served.used(), 4);
    served.server.set_polled(false);
    assert!(!served.server.has_work());
}

/// An available index that runs ahead, and an entry that is not a descriptor: there is no chain to answer.
#[test]
fn an_unusable_ring_is_reported_to_the_frontend_once() {
    let far_ahead: fn(&mut Served) =
        |served| served.write(AVAILABLE + 2, &(served.available + SIZE + 1).to_le_bytes());
    let no_descriptor: fn(&mut Served) = |served| served.offer_head(SIZE);
    for spoil in [far_ahead, no_descriptor] {
        let (mut served, err) = (Served::i2c(Sevens), event());
        served.ring().err = Some(err.try_clone().unwrap());
        served.send(&[READ]);
        assert!(!is_signalled(&err));
        spoil(&mut served);
        served.kick();
        assert_eq!((is_signalled(&err), served.used()), (true, 1));
        // Later requests are not processed.
        served.offer(&[READ]);
        served.kick();
        assert_eq!((is_signalled(&err), served.used(), served.server.has_work()), (false, 1, false));
    }
}

/// So that the driver can still use their answers.
#[test]
fn chains_before_an_invalid_head_are_returned() {
    let mut served = Served::i2c(Sevens);
    served.offer(&[READ]);
    served.offer_head(SIZE);
    served.kick();
    assert_eq!((served.used(), served.answer_to(0)), (1, 7));
}

/// A bus that records the number of messages of each transaction. The first one may take longer than
/// COMPLETION_DELAY.
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
    fn handle_event(&mut self, _: u32) {}
}

fn counted(is_slow: bool) -> (Served, Arc<Mutex<Vec<usize>>>) {
    let bus = Counted { is_slow, ..Counted::default() };
    let transactions = Arc::clone(&bus.transactions);
    (Served::i2c(bus), transactions)
}

/// The daemon may have had no processor until the group timer expired.
#[test]
fn a_group_whose_rest_is_in_the_ring_is_one_transaction() {
    let (mut served, transactions) = counted(false);
    served.offer(&[SELECT]);
    served.kick();
    std::thread::sleep(Duration::from_millis(30));
    served.offer(&[WRITE_ONE]);
    served.server.process_event(0);
    assert_eq!((&*transactions.lock().unwrap(), served.used()), (&vec![2], 2));
}

#[test]
fn requests_that_wait_for_the_bus_fail_when_the_queue_stops() {
    let (mut served, transactions) = counted(true);
    served.offer(&[WRITE_ONE; 3]);
    served.server.handle_kick(0);
    let slow = served.server.process_queues().unwrap();
    slow.run();
    let next = served.server.finish_work().unwrap();
    assert_eq!(served.used(), 1, "the slow one is returned before the others");
    served.server.stop_ring(0).unwrap();
    assert_eq!((served.used(), served.answer()), (3, 1));
    // The worker may be about to run it.
    next.run();
    assert!(served.server.finish_work().is_none());
    assert_eq!(*transactions.lock().unwrap(), [1]);
}

/// A stop waits for the transaction on the bus, and fails all later requests.
#[test]
fn a_transaction_on_the_bus_is_answered_when_the_queue_stops() {
    let (mut served, transactions) = counted(true);
    served.offer(&[WRITE_ONE; 2]);
    served.server.handle_kick(0);
    let slow = served.server.process_queues().unwrap();
    let on_bus = std::thread::spawn(move || slow.run());
    while transactions.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    served.server.stop_ring(0).unwrap();
    assert_eq!((served.used(), served.answer_to(0), served.answer_to(1)), (2, 0, 1));
    on_bus.join().unwrap();
}

/// The chains that were taken are returned first, even in another turn.
#[test]
fn an_unusable_ring_is_reported_after_the_rest_of_a_slow_batch() {
    let ((mut served, _), err) = (counted(true), event());
    served.ring().err = Some(err.try_clone().unwrap());
    served.offer(&[WRITE_ONE; 3]);
    served.offer_head(SIZE);
    served.server.handle_kick(0);
    let mut work = served.server.process_queues();
    let mut seen = Vec::new();
    while let Some(next) = work {
        next.run();
        work = served.server.finish_work();
        seen.push((served.used(), is_signalled(&err)));
    }
    assert_eq!(seen, [(1, false), (1, false), (3, true)]);
}

/// The first driver does not use event indices; the second one wants an interrupt for another chain than its
/// first.
#[test]
fn a_driver_is_notified_independently_of_the_former_driver() {
    let mut served = Served::i2c(Sevens);
    served.steady(&[READ]);
    served.ring().stop();
    served.write(AVAILABLE, &[0; 0x1000]);
    served.write(USED, &[0; 0x1000]);
    served.ring().set_event_idx(true);
    served.start();
    let call = served.ring().call.as_ref().unwrap().try_clone().unwrap();
    assert!(is_signalled(&call), "the first driver was notified");
    let used_event = AVAILABLE + 4 + 2 * u64::from(SIZE);
    served.write(used_event, &0xfffe_u16.to_le_bytes());
    served.send(&[READ]);
    assert!(!is_signalled(&call), "the second driver did not want that");
}

/// The device writes the flags of the used ring, which are the available index here.
#[test]
fn overlapping_rings_make_the_queue_unusable() {
    let mut served = Served::i2c(Sevens);
    let session = &mut served.server.session;
    let ring = session.rings.first_mut().unwrap();
    ring.stop();
    let parts = [DESCRIPTORS, USED - 2 + 4, USED + 4].map(GuestAddress);
    ring.set_addresses(&session.memory, parts).unwrap();
    ring.set_next_available(1);
    ring.start(&session.memory).unwrap();
    served.server.process_all();
    assert!(!served.server.has_work());
}

/// 2.7.8.2: the driver finds the index there, so it was written last.
#[test]
fn the_used_index_is_written_after_an_answer_at_the_same_place() {
    let mut served = Served::i2c(Sevens);
    served.write(BUFFERS, &[0xa0, 0, 0, 0, 2, 0, 0, 0]);
    served.describe(0, BUFFERS, 8, NEXT);
    // The answer, bytes of 7 and a status, covers the index and the first entry.
    served.describe(1, USED + 2, 11, WRITE);
    served.offer_head(0);
    served.kick();
    let entry = [0, 2, 4, 6].map(|at| served.load(USED + 4 + at));
    assert_eq!((served.used(), entry), (1, [0, 0, 11, 0]));
}

/// A pseudo-random sequence with a fixed seed.
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

/// The address of the hostile guest's answers.
const ANSWERS: u64 = 0x8000;

/// A guest that sends random chains.
struct Hostile {
    served: Served,
    chance: Chance,
    /// Heads of the chains in the table.
    heads: Vec<u16>,
}

impl Hostile {
    fn new() -> Self {
        let mut served = Served::i2c(Sevens);
        served.ring().indirect = true;
        Self { served, chance: Chance(0x2545_f491_4f6c_dd1d), heads: Vec::with_capacity(SIZE.into()) }
    }

    /// Makes up to a ring of chains available, some of them repeatedly, has the server process them, and
    /// stops the queue.
    fn batch(&mut self) {
        self.served.start();
        self.fill_table();
        let count = if self.chance.below(8) == 0 { SIZE } else { 8 };
        for _ in 0..=self.chance.small(count - 1) {
            let index = usize::from(self.chance.small(SIZE)) % self.heads.len();
            let head = if self.chance.below(1000) == 0 { SIZE } else { self.heads[index] };
            self.served.offer_head(head);
        }
        while self.served.server.has_work() {
            self.served.server.process_all();
        }
        self.served.server.stop_ring(0).unwrap();
    }

    /// Fills the table with chains, and often changes a field of a descriptor.
    fn fill_table(&mut self) {
        self.heads.clear();
        // In every other batch all chains are one group.
        let joined = self.chance.small(2);
        let mut first = 0;
        while first < SIZE - 1 {
            let count = (2 + self.chance.small(59)).min(SIZE - first);
            self.heads.push(first);
            self.chain(first, count, joined);
            first += count;
        }
        let (index, field) = (self.chance.below(SIZE.into()), self.chance.below(8));
        // Address, length, flags or next; or none.
        if let Some((offset, bytes)) = [(0, 8), (8, 4), (12, 2), (14, 2)].get(usize::try_from(field).unwrap())
        {
            let limit = [u64::MAX, 0x1_0000, 66][usize::from(self.chance.small(3))];
            let value = self.chance.below(limit).to_le_bytes();
            self.served.write(DESCRIPTORS + 16 * index + offset, &value[..*bytes]);
        }
    }

    /// Describes a message of up to 8000 bytes in `count` descriptors.
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

    /// Describes `bytes` in `count` pieces, the last of which has the remainder.
    fn spread(&self, first: u16, count: u16, at: u64, bytes: u16, flags: u16) {
        let each = bytes / count;
        for piece in 0..count {
            let length = if piece < count - 1 { each } else { bytes - each * piece };
            let at = at + u64::from(each * piece);
            self.served.describe(first + piece, at, length.into(), flags | NEXT);
        }
    }
}

/// Chains that the server has at a time: the longest group of the bus, and the batch that ends it.
const CHAINS_MAX: u64 = 42 + 16;
/// Bytes that are kept of each chain between batches: two buffers of 256 bytes, two lists of 16 segments of
/// 16 bytes, and its entry in the lists of spare, requested, grouped, finished and returning chains, which
/// grow by doubling.
const KEPT: u64 = CHAINS_MAX * (2 * 256 + 2 * 16 * 16 + 5 * size_of::<Chain>() as u64);
/// Additional bytes while chains are processed: a message of 8000 bytes in a power of two, and 60 segments
/// likewise.
const IN_USE: u64 = CHAINS_MAX * (8192 + 64 * 16);

/// For any lengths and numbers of descriptors, and wherever groups end.
#[test]
fn allocations_for_a_hostile_guest_have_a_limit() {
    let mut hostile = Hostile::new();
    let (mut kept, mut peak) = (0_u64, 0);
    for round in 0..2000 {
        let AllocationInfo { bytes_current, bytes_max, .. } = measure(|| hostile.batch());
        peak = peak.max(kept + bytes_max);
        kept = kept.checked_add_signed(bytes_current).unwrap();
        assert!(kept <= KEPT, "{kept} bytes are kept after round {round}");
        assert!(peak <= KEPT + IN_USE, "{peak} bytes at once in round {round}");
    }
    assert!(peak > IN_USE / 2, "{peak} bytes: the guest is not hostile enough for this test");
}

/// That needs a record for the driver to continue with, and a parent process that holds the lines and starts
/// a daemon.
#[test]
fn hardware_stays_only_for_a_daemon_that_will_follow() {
    for (has_record, keeps_hardware) in [(false, false), (false, true), (true, false), (true, true)] {
        let device = FakeDevice { keeps_hardware, ..FakeDevice::default() };
        let disconnect = Arc::clone(&device.disconnect);
        let mut server = DeviceServer::new(Box::new(device), Watcher::new().unwrap()).unwrap();
        server.session.has_record = has_record;
        server.end_session().unwrap();
        let stays = has_record && keeps_hardware;
        let expected = if stays { Disconnect::DriverContinues } else { Disconnect::Final };
        assert_eq!(*disconnect.lock().unwrap(), Some(expected), "{has_record} {keeps_hardware}");
    }
}
