// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's driver and its frontend, with a model of the chains that the device must return.

use std::fs::File;
use std::os::unix::fs::FileExt;

use backend::session::DeviceServer;
use rustix::event::{EventfdFlags, eventfd};
use vhost::vhost_user::VhostUserBackendReqHandlerMut;
use vhost::vhost_user::message::{VhostUserInflight, VhostUserVringAddrFlags};

use crate::memory::{BUFFERS, BUFFERS_BYTES, Memory, RINGS};
use crate::{Input, Kind, Record, Step};

/// Entries of each ring.
const SIZE: u16 = 16;
/// Size of a ring, and offsets of its parts.
const RING_BYTES: u64 = 0x1000;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
const USED_BYTES: u64 = 6 + 8 * SIZE as u64;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const INDIRECT_DESC: u64 = 1 << 28;
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Sizes in the in-flight record of a queue: its header, the state of a descriptor, the whole.
const HEADER: usize = 16;
const STATE: usize = 16;
const RECORD: usize = (HEADER + STATE * SIZE as usize).next_multiple_of(64);

/// Maximum number of turns until the daemon is idle: each but the last takes at least one chain.
const TURNS: usize = 64;

/// The guest's view of a ring.
#[derive(Clone, Default)]
struct Ring {
    /// The next free descriptor.
    descriptor: u16,
    /// Heads in the order in which they were made available, from index 0.
    offered: Vec<u16>,
    /// Heads that were returned.
    returned: Vec<u16>,
    /// A head was made available again before it was returned.
    repeats: bool,
}

impl Ring {
    fn offer(&mut self, head: u16) {
        let count = |heads: &[u16]| heads.iter().filter(|known| **known == head).count();
        self.repeats |= count(&self.offered) > count(&self.returned);
        self.offered.push(head);
    }
}

/// The guest.
pub struct Guest<'a> {
    kind: &'a Kind,
    features: u64,
    memory: Memory,
    server: DeviceServer,
    record: Option<(VhostUserInflight, File)>,
    rings: Vec<Ring>,
    buffers: u64,
    /// Each chain that the device takes must be returned once: the guest has followed the rules of rings.
    expects_all_back: bool,
    /// The memory that the device may write is known: it is named by descriptors in the rings.
    knows_writable: bool,
}

impl<'a> Guest<'a> {
    /// Creates a guest whose driver has set up its device.
    pub fn new(kind: &'a Kind, input: &Input, found: &Record) -> Self {
        let wanted =
            [(input.event_idx, EVENT_IDX), (input.indirect, INDIRECT_DESC), (!input.plain, kind.features)];
        let features = wanted.iter().filter(|(wanted, _)| *wanted).map(|(_, feature)| feature).sum::<u64>();
        let mut server = kind.start();
        let shape = VhostUserInflight::new(0, 0, kind.queues, SIZE);
        let record = match found {
            Record::None => None,
            Record::Fresh | Record::Found(_) => Some(server.get_inflight_fd(&shape).expect("a record")),
        };
        if let (Record::Found(bytes), Some((shape, file))) = (found, &record) {
            let bytes = &bytes[..bytes.len().min(usize::try_from(shape.mmap_size).expect("small"))];
            file.write_all_at(bytes, 0).expect("a record");
        }
        let mut guest = Self {
            kind,
            features: features | VERSION_1 | PROTOCOL_FEATURES,
            memory: Memory::default(),
            server,
            record,
            rings: vec![Ring::default(); usize::from(kind.queues)],
            buffers: 0,
            expects_all_back: !matches!(found, Record::Found(_)),
            knows_writable: !input.indirect,
        };
        for queue in 0..kind.queues {
            guest.memory.open(ring(queue) + USED, USED_BYTES);
        }
        guest.connect();
        guest.start_all();
        guest
    }

    /// Sends the first messages of a frontend.
    fn connect(&mut self) {
        // A driver may be refused; its requests are not processed then.
        let _ = self.server.set_features(self.features);
        let (regions, files) = self.memory.table();
        self.server.set_mem_table(&regions, files, None).expect("memory");
        if let Some((shape, file)) = &self.record {
            self.server.set_inflight_fd(shape, file.try_clone().expect("a descriptor")).expect("a record");
        }
    }

    /// Starts all queues where their used rings are, as after a restart, or where they were stopped.
    fn start_all(&mut self) {
        for queue in 0..self.kind.queues {
            let base = self.memory.load(ring(queue) + USED + 2);
            self.start(queue, base);
        }
    }

    fn start(&mut self, queue: u16, base: u16) {
        let (index, at) = (u32::from(queue), ring(queue));
        let short = u8::try_from(queue).expect("small");
        let server = &mut self.server;
        server.set_vring_num(index, u32::from(SIZE)).expect("a size");
        server.set_vring_base(index, u32::from(base)).expect("a base");
        let none = VhostUserVringAddrFlags::empty();
        server.set_vring_addr(index, none, at, at + USED, at + AVAILABLE, 0).expect("addresses");
        let event =
            || File::from(eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an event"));
        server.set_vring_err(short, Some(event())).expect("an error's descriptor");
        server.set_vring_call(short, Some(event())).expect("a call");
        server.set_vring_kick(short, Some(event())).expect("a kick");
        server.set_vring_enable(index, true).expect("a queue");
    }

    /// Stops all queues, checks that all chains that were taken are returned, and returns the next indices.
    fn stop_all(&mut self) -> Vec<u16> {
        let stop = |queue| self.server.get_vring_base(u32::from(queue)).expect("a stop").num;
        let taken: Vec<_> = (0..self.kind.queues).map(stop).collect();
        self.read_used();
        let taken: Vec<_> = taken.into_iter().map(|taken| u16::try_from(taken).expect("an index")).collect();
        if self.expects_all_back {
            for (queue, (ring, taken)) in self.rings.iter().zip(&taken).enumerate() {
                let mut taken_heads = ring.offered[..usize::from(*taken)].to_vec();
                taken_heads.retain(|head| *head < SIZE);
                let mut returned = ring.returned.clone();
                (taken_heads.sort_unstable(), returned.sort_unstable());
                assert_eq!(
                    returned, taken_heads,
                    "queue {queue}: left what was returned, right what was taken"
                );
            }
            self.check_record();
        }
        taken
    }

    /// Checks that the in-flight record is empty.
    fn check_record(&self) {
        let Some((_, file)) = &self.record else { return };
        let mut bytes = vec![0; RECORD * usize::from(self.kind.queues)];
        file.read_exact_at(&mut bytes, 0).expect("a record");
        for (queue, record) in bytes.chunks(RECORD).enumerate() {
            let marked =
                record[HEADER..].chunks(STATE).take(usize::from(SIZE)).position(|state| state[0] != 0);
            assert_eq!(marked, None, "queue {queue}: recorded as in flight");
        }
    }

    /// Reads the used rings.
    fn read_used(&mut self) {
        for (queue, state) in (0..).zip(&mut self.rings) {
            let index = self.memory.load(ring(queue) + USED + 2);
            let mut seen = u16::try_from(state.returned.len()).expect("few");
            if !self.expects_all_back {
                continue;
            }
            assert!(index.wrapping_sub(seen) <= SIZE, "queue {queue}: the used ring ran ahead");
            while seen != index {
                let head = self.memory.load(ring(queue) + USED + 4 + 8 * u64::from(seen % SIZE));
                state.returned.push(head);
                seen = seen.wrapping_add(1);
            }
        }
    }

    /// Has the daemon work until it is idle.
    fn work(&mut self) {
        for turn in 0.. {
            self.server.process_all();
            for token in 0..self.kind.tokens {
                self.server.process_event(token);
            }
            if !self.server.has_work() {
                break;
            }
            assert!(turn < TURNS, "the daemon does not become idle");
        }
        self.read_used();
    }

    fn kick(&mut self) {
        for queue in 0..self.kind.queues {
            // Reads the event; without one, the queue is processed all the same.
            self.server.handle_kick(u32::from(queue));
        }
    }

    /// Executes a step.
    pub fn step(&mut self, step: &Step) {
        let queue = |queue: u8| u16::from(queue) % self.kind.queues;
        match step {
            Step::Request { queue: to, seed, data, cuts, room } => {
                let queue = queue(*to);
                let bytes = (self.kind.well_formed)(queue, *seed, data);
                self.request(queue, &bytes, *cuts, *room);
            }
            Step::Bytes { queue: to, data, cuts, room } => self.request(queue(*to), data, *cuts, *room),
            Step::Descriptor { queue: of, index, at, length, flags, next } => {
                self.describe(queue(*of), u16::from(*index) % SIZE, at.address(), *length, *flags, *next);
            }
            Step::Offer { queue: to, head } => self.offer(queue(*to), *head),
            Step::Index { queue: of, index } => self.publish(queue(*of), *index),
            Step::Poke { at, bytes } => self.poke(at.address(), bytes),
            Step::Work => {
                self.kick();
                self.work();
            }
            Step::Pause => {
                self.require_valid_heads();
                let bases = self.stop_all();
                (0..).zip(bases).for_each(|(queue, base)| self.start(queue, base));
            }
            Step::Reset => self.reset(),
            Step::Die => {
                self.require_valid_heads();
                // The record has one entry for each head.
                let repeats = self.rings.iter().any(|ring| ring.repeats);
                self.expects_all_back &= self.record.is_some() && !repeats;
                self.server = self.kind.start();
                self.connect();
                self.start_all();
                // Chains in flight are answered in the first turn, before the queues can be stopped again.
                self.work();
            }
        }
    }

    /// Expects no chains to be returned after an invalid head. It has no used entry, so that the used index
    /// is not the number of chains that were taken, and a queue that continues from it takes some of them
    /// again.
    fn require_valid_heads(&mut self) {
        self.expects_all_back &= self.rings.iter().flat_map(|ring| &ring.offered).all(|head| *head < SIZE);
    }

    fn reset(&mut self) {
        self.stop_all();
        self.server.reset_device().expect("a reset");
        for queue in 0..self.kind.queues {
            self.memory.write(ring(queue), &[0; 0x1000]);
        }
        self.rings.fill_with(Ring::default);
        self.buffers = 0;
        let _ = self.server.set_features(self.features);
        self.start_all();
    }

    /// Makes a request available, in `cuts` + 1 descriptors and one for the answer.
    fn request(&mut self, queue: u16, bytes: &[u8], cuts: u8, room: u16) {
        let piece = bytes.len() / (usize::from(cuts % 4) + 1) + 1;
        let first = self.rings[usize::from(queue)].descriptor;
        let mut parts: Vec<(u64, usize, u16)> = Vec::new();
        for piece in bytes.chunks(piece) {
            let at = self.allocate(piece.len());
            self.memory.write(at, piece);
            parts.push((at, piece.len(), 0));
        }
        if room > 0 {
            // Answers longer than any device allows are rare.
            let room = usize::from(if room % 8 == 0 { room } else { room % 64 });
            parts.push((self.allocate(room), room, WRITE));
        }
        let last = parts.len().saturating_sub(1);
        for (index, (at, length, flags)) in parts.into_iter().enumerate() {
            let place = (first + u16::try_from(index).expect("few")) % SIZE;
            let more = if index < last { NEXT } else { 0 };
            let length = u32::try_from(length).expect("small");
            self.describe(queue, place, at, length, flags | more, (place + 1) % SIZE);
        }
        let used = u16::try_from(last + 1).expect("few");
        self.rings[usize::from(queue)].descriptor = (first + used) % SIZE;
        self.offer(queue, first);
    }

    fn allocate(&mut self, bytes: usize) -> u64 {
        let at = self.buffers;
        self.buffers = (at + u64::try_from(bytes).expect("small")) % BUFFERS_BYTES;
        BUFFERS + at
    }

    fn describe(&mut self, queue: u16, index: u16, at: u64, length: u32, flags: u16, next: u16) {
        let bytes = [&at.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        self.memory.write(ring(queue) + 16 * u64::from(index), &bytes.concat());
        if flags & WRITE != 0 && self.memory.open(at, u64::from(length)) {
            self.expects_all_back = false;
        }
    }

    fn offer(&mut self, queue: u16, head: u16) {
        let state = &mut self.rings[usize::from(queue)];
        let index = u16::try_from(state.offered.len()).expect("few");
        state.offer(head);
        self.memory.write(ring(queue) + AVAILABLE + 4 + 2 * u64::from(index % SIZE), &head.to_le_bytes());
        self.set_index(queue, index.wrapping_add(1));
    }

    /// Sets the available index, with the heads that are in the ring.
    fn publish(&mut self, queue: u16, index: u16) {
        let state = &mut self.rings[usize::from(queue)];
        let offered = u16::try_from(state.offered.len()).expect("few");
        let more = index.wrapping_sub(offered);
        if more > SIZE {
            self.expects_all_back = false;
        } else {
            for place in offered..index {
                let at = ring(queue) + AVAILABLE + 4 + 2 * u64::from(place % SIZE);
                state.offer(self.memory.load(at));
            }
        }
        self.set_index(queue, index);
    }

    fn set_index(&mut self, queue: u16, index: u16) {
        let used = self.memory.load(ring(queue) + USED + 2);
        // Beyond the size of the ring, entries that were not taken are overwritten.
        self.expects_all_back &= index.wrapping_sub(used) <= SIZE;
        self.memory.write(ring(queue) + AVAILABLE + 2, &index.to_le_bytes());
    }

    fn poke(&mut self, at: u64, bytes: &[u8]) {
        let end = at.saturating_add(u64::try_from(bytes.len()).expect("small"));
        if at < ring(self.kind.queues) && end > RINGS {
            (self.expects_all_back, self.knows_writable) = (false, false);
        }
        self.memory.write(at, bytes);
    }

    /// Stops the device and checks the guest's memory.
    pub fn end(mut self) {
        self.stop_all();
        if self.knows_writable {
            self.memory.check();
        }
    }
}

fn ring(queue: u16) -> u64 {
    RINGS + RING_BYTES * u64::from(queue)
}
