// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's driver and its frontend, with a model of what the device owes them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use backend::session::Backend;
use rustix::event::{EventfdFlags, eventfd};
use vhost::vhost_user::VhostUserBackendReqHandlerMut;
use vhost::vhost_user::message::{VhostUserInflight, VhostUserVringAddrFlags};

use crate::memory::{BUFFERS, BUFFERS_BYTES, Memory, RINGS};
use crate::{Input, Kind, Region, Step};

/// Entries of each ring.
const SIZE: u16 = 16;
/// Space for a ring, and where its parts are.
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

/// The record of a queue's chains in flight: its header, each descriptor's state, all of it.
const HEADER: usize = 16;
const STATE: usize = 16;
const RECORD: usize = (HEADER + STATE * SIZE as usize).next_multiple_of(64);

/// No work takes more turns than this: each but the last takes a chain at least.
const TURNS: usize = 64;

/// What the guest knows of a ring.
#[derive(Clone, Default)]
struct Ring {
    /// The next free descriptor.
    descriptor: u16,
    /// Heads in the order in which they were made available, from index 0.
    offered: Vec<u16>,
    /// Heads that came back.
    returned: Vec<u16>,
    /// A head was made available again before it had come back.
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
    backend: Backend,
    record: Option<(VhostUserInflight, File)>,
    rings: Vec<Ring>,
    buffers: u64,
    /// Each chain that the device takes is to come back, once: the guest has kept the rules of rings.
    is_owed: bool,
    /// What the device may write can be told: the guest has named it by descriptors of its rings.
    is_closed: bool,
}

impl<'a> Guest<'a> {
    /// A guest whose driver has just set its device up.
    pub fn new(kind: &'a Kind, input: &Input, region: &Region) -> Self {
        let wanted =
            [(input.event_idx, EVENT_IDX), (input.indirect, INDIRECT_DESC), (!input.plain, kind.features)];
        let features = wanted.iter().filter(|(wanted, _)| *wanted).map(|(_, feature)| feature).sum::<u64>();
        let mut backend = kind.start();
        let shape = VhostUserInflight::new(0, 0, kind.queues, SIZE);
        let record = match region {
            Region::None => None,
            Region::Fresh | Region::Found(_) => Some(backend.get_inflight_fd(&shape).expect("a record")),
        };
        if let (Region::Found(bytes), Some((shape, file))) = (region, &record) {
            let bytes = &bytes[..bytes.len().min(usize::try_from(shape.mmap_size).expect("small"))];
            file.write_all_at(bytes, 0).expect("a record");
        }
        let mut guest = Self {
            kind,
            features: features | VERSION_1 | PROTOCOL_FEATURES,
            memory: Memory::default(),
            backend,
            record,
            rings: vec![Ring::default(); usize::from(kind.queues)],
            buffers: 0,
            is_owed: !matches!(region, Region::Found(_)),
            is_closed: !input.indirect,
        };
        for queue in 0..kind.queues {
            guest.memory.open(ring(queue) + USED, USED_BYTES);
        }
        guest.connect();
        guest.start_all();
        guest
    }

    /// What a frontend says first.
    fn connect(&mut self) {
        // A driver may be refused; then nothing is done for it.
        let _ = self.backend.set_features(self.features);
        let (regions, files) = self.memory.table();
        self.backend.set_mem_table(&regions, files, None).expect("memory");
        if let Some((shape, file)) = &self.record {
            self.backend.set_inflight_fd(shape, file.try_clone().expect("a descriptor")).expect("a record");
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
        let backend = &mut self.backend;
        backend.set_vring_num(index, u32::from(SIZE)).expect("a size");
        backend.set_vring_base(index, u32::from(base)).expect("a base");
        let none = VhostUserVringAddrFlags::empty();
        backend.set_vring_addr(index, none, at, at + USED, at + AVAILABLE, 0).expect("addresses");
        let event =
            || File::from(eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an event"));
        backend.set_vring_err(short, Some(event())).expect("an error's descriptor");
        backend.set_vring_call(short, Some(event())).expect("a call");
        backend.set_vring_kick(short, Some(event())).expect("a kick");
        backend.set_vring_enable(index, true).expect("a queue");
    }

    /// Stops all queues, sees that all that was taken has come back, and returns where the queues are.
    fn stop_all(&mut self) -> Vec<u16> {
        let stop = |queue| self.backend.get_vring_base(u32::from(queue)).expect("a stop").num;
        let taken: Vec<_> = (0..self.kind.queues).map(stop).collect();
        self.take_back();
        let taken: Vec<_> = taken.into_iter().map(|taken| u16::try_from(taken).expect("an index")).collect();
        if self.is_owed {
            for (queue, (ring, taken)) in self.rings.iter().zip(&taken).enumerate() {
                let mut owed = ring.offered[..usize::from(*taken)].to_vec();
                owed.retain(|head| *head < SIZE);
                let mut returned = ring.returned.clone();
                (owed.sort_unstable(), returned.sort_unstable());
                assert_eq!(returned, owed, "queue {queue}: left what was returned, right what was taken");
            }
            self.check_record();
        }
        taken
    }

    /// Nothing is in flight, and the record says so.
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

    /// Looks at the used rings.
    fn take_back(&mut self) {
        for (queue, state) in (0..).zip(&mut self.rings) {
            let index = self.memory.load(ring(queue) + USED + 2);
            let mut seen = u16::try_from(state.returned.len()).expect("few");
            if !self.is_owed {
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

    /// Kicks all queues, and has the daemon work until it rests.
    fn work(&mut self) {
        for turn in 0.. {
            self.backend.work();
            for token in 0..self.kind.tokens {
                self.backend.device_event(token);
            }
            if !self.backend.is_pending() {
                break;
            }
            assert!(turn < TURNS, "the daemon does not come to rest");
        }
        self.take_back();
    }

    fn kick(&mut self) {
        for queue in 0..self.kind.queues {
            // Reads the event, of which each queue has had one; without one it goes on all the same.
            self.backend.kicked(u32::from(queue));
        }
    }

    /// Does one thing.
    pub fn step(&mut self, step: &Step) {
        let queue = |queue: u8| u16::from(queue) % self.kind.queues;
        match step {
            Step::Request { queue: to, seed, data, cuts, room } => {
                let queue = queue(*to);
                let bytes = (self.kind.sensible)(queue, *seed, data);
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
                self.trust_only_good_heads();
                let bases = self.stop_all();
                (0..).zip(bases).for_each(|(queue, base)| self.start(queue, base));
            }
            Step::Reset => self.reset(),
            Step::Die => {
                self.trust_only_good_heads();
                // The record has a place for each head, and so knows a head once.
                let repeats = self.rings.iter().any(|ring| ring.repeats);
                self.is_owed &= self.record.is_some() && !repeats;
                self.backend = self.kind.start();
                self.connect();
                self.start_all();
                // What was in flight is answered in the first turn, before anybody can stop the queues again.
                self.work();
            }
        }
    }

    /// A head that is none cannot come back, so the used ring does not tell how many chains were taken. A queue that goes
    /// on by its used ring takes up some of them again, which is the fault of the guest.
    fn trust_only_good_heads(&mut self) {
        self.is_owed &= self.rings.iter().flat_map(|ring| &ring.offered).all(|head| *head < SIZE);
    }

    fn reset(&mut self) {
        self.stop_all();
        self.backend.reset_device().expect("a reset");
        for queue in 0..self.kind.queues {
            self.memory.write(ring(queue), &[0; 0x1000]);
        }
        self.rings.fill_with(Ring::default);
        self.buffers = 0;
        let _ = self.backend.set_features(self.features);
        self.start_all();
    }

    /// A request in `cuts` + 1 descriptors, and room for an answer in another.
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
            // Longer ones than any device takes are rare.
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
            self.is_owed = false;
        }
    }

    fn offer(&mut self, queue: u16, head: u16) {
        let state = &mut self.rings[usize::from(queue)];
        let index = u16::try_from(state.offered.len()).expect("few");
        state.offer(head);
        self.memory.write(ring(queue) + AVAILABLE + 4 + 2 * u64::from(index % SIZE), &head.to_le_bytes());
        self.set_index(queue, index.wrapping_add(1));
    }

    /// Sets the available index to something, with whatever heads are there.
    fn publish(&mut self, queue: u16, index: u16) {
        let state = &mut self.rings[usize::from(queue)];
        let offered = u16::try_from(state.offered.len()).expect("few");
        let more = index.wrapping_sub(offered);
        if more > SIZE {
            self.is_owed = false;
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
        // More than the ring has: what was there and was not taken is overwritten.
        self.is_owed &= index.wrapping_sub(used) <= SIZE;
        self.memory.write(ring(queue) + AVAILABLE + 2, &index.to_le_bytes());
    }

    fn poke(&mut self, at: u64, bytes: &[u8]) {
        let end = at.saturating_add(u64::try_from(bytes.len()).expect("small"));
        if at < ring(self.kind.queues) && end > RINGS {
            (self.is_owed, self.is_closed) = (false, false);
        }
        self.memory.write(at, bytes);
    }

    /// The end of the run.
    pub fn end(mut self) {
        self.stop_all();
        if self.is_closed {
            self.memory.check();
        }
    }
}

fn ring(queue: u16) -> u64 {
    RINGS + RING_BYTES * u64::from(queue)
}
