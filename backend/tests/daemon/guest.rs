// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest: its memory, a driver that builds valid and invalid chains, and the frontend.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::board::until;

/// Start of the guest's memory.
const BASE: u64 = 0x4000_0000;
/// Size of the guest's memory: the rings, then the buffers.
const SIZE: usize = 1 << 20;
/// Entries of each ring, unless a test chooses another size.
pub(crate) const RING: u16 = 64;
/// Space for one ring of up to 1024 entries, and the place of its used ring.
const RING_BYTES: u16 = 0x8000;
const USED_OFFSET: u64 = 0x5000;
/// First address for buffers.
const BUFFERS: u64 = BASE + 0x1_0000;
/// More queues than any device has, so that the frontend does not refuse messages itself.
const QUEUES: u64 = 16;
/// Time in milliseconds after which a wait fails.
const TIMEOUT: i32 = 10_000;

/// `VIRTQ_DESC_F_NEXT`, `VIRTQ_DESC_F_WRITE` and `VIRTQ_DESC_F_INDIRECT`.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// The bytes of an answer before the device writes them.
pub(crate) const UNTOUCHED: u8 = 0xaa;

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Descriptor {
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// An entry of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) length: u32,
}

/// A chain that was made available.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) head: u16,
    /// The address of the request.
    pub(crate) request: u64,
    answer: u64,
}

struct Ring {
    at: u64,
    size: u16,
    available: u16,
    seen: u16,
    descriptors: u16,
    kick: EventFd,
    call: EventFd,
    called: Epoll,
    err: EventFd,
    failed: Epoll,
}

/// A guest with one device.
pub(crate) struct Guest {
    frontend: Frontend,
    /// The frontend's socket, for messages that `Frontend` cannot send.
    socket: UnixStream,
    without_protocol: VhostUserProtocolFeatures,
    features: u64,
    memory: GuestMemoryMmap,
    rings: Vec<Ring>,
    free: u64,
    /// The in-flight record, if there is one.
    record: Option<(VhostUserInflight, File)>,
}

impl Guest {
    /// Negotiates all that the device offers except `without`, and starts `queues` rings.
    pub(crate) fn connect(socket: UnixStream, queues: u16, without: u64) -> Self {
        let mut guest = Self::negotiate_without(socket, queues, without, VhostUserProtocolFeatures::empty());
        guest.start();
        guest
    }

    /// Likewise, with rings of `size` entries.
    pub(crate) fn connect_sized(socket: UnixStream, queues: u16, size: u16) -> Self {
        let mut guest = Self::negotiate_without(socket, queues, 0, VhostUserProtocolFeatures::empty());
        guest.rings.iter_mut().for_each(|ring| ring.size = size);
        guest.start();
        guest
    }

    /// Likewise, with an in-flight record.
    pub(crate) fn connect_recorded(socket: UnixStream, queues: u16) -> Self {
        Self::connect_recorded_without(socket, queues, VhostUserProtocolFeatures::empty())
    }

    /// Likewise, without the protocol features `without`.
    pub(crate) fn connect_recorded_without(
        socket: UnixStream,
        queues: u16,
        without: VhostUserProtocolFeatures,
    ) -> Self {
        let mut guest = Self::negotiate_without(socket, queues, 0, without);
        let wanted = VhostUserInflight::new(0, 0, queues, RING);
        guest.record = Some(guest.frontend.get_inflight_fd(&wanted).expect("memory"));
        guest.send_record();
        guest.start();
        guest
    }

    fn negotiate_without(
        socket: UnixStream,
        queues: u16,
        without: u64,
        without_protocol: VhostUserProtocolFeatures,
    ) -> Self {
        let same_socket = socket.try_clone().expect("a descriptor");
        let (frontend, features) = negotiate(socket, without, without_protocol);
        let rings =
            (0..u64::from(queues)).map(|index| Ring::new(BASE + index * u64::from(RING_BYTES))).collect();
        let memory = memory();
        Self {
            frontend,
            socket: same_socket,
            without_protocol,
            features,
            memory,
            rings,
            free: BUFFERS,
            record: None,
        }
    }

    /// Negotiates with another daemon.
    fn renegotiate(&mut self, socket: UnixStream) {
        self.socket = socket.try_clone().expect("a descriptor");
        let (frontend, features) = negotiate(socket, 0, self.without_protocol);
        assert_eq!(features, self.features);
        self.frontend = frontend;
        self.send_record();
    }

    /// Resets the device, which another daemon serves.
    pub(crate) fn reset_with(&mut self, socket: UnixStream) {
        self.renegotiate(socket);
        self.start();
    }

    /// Continues with another daemon, where the used index says.
    pub(crate) fn continue_with(&mut self, socket: UnixStream) {
        self.renegotiate(socket);
        let used = |ring: &Ring| {
            let at = GuestAddress(ring.used_at() + 2);
            u16::from_le(self.memory.load(at, Ordering::SeqCst).expect("memory"))
        };
        let bases: Vec<_> = self.rings.iter().map(used).collect();
        self.continue_at(&bases);
    }

    /// Sends messages without asking for replies, and waits until they were handled.
    pub(crate) fn send_without_reply(&mut self, messages: impl FnOnce(&mut Frontend) -> vhost::Result<()>) {
        self.frontend.set_hdr_flags(VhostUserHeaderFlag::empty());
        messages(&mut self.frontend).expect("messages");
        self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        self.sync();
    }

    /// Waits until the daemon has handled all earlier messages.
    pub(crate) fn sync(&mut self) {
        self.frontend.get_features().expect("features");
    }

    /// Sends a message of any bytes, and waits until the daemon has handled it.
    fn send_message(&mut self, request: u32, payload: &[u8], files: &[BorrowedFd<'_>]) {
        let size = u32::try_from(payload.len()).expect("small");
        let header = [request, 1, size].map(u32::to_ne_bytes).concat();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let message = [&header, payload].concat();
        sendmsg(&self.socket, &[IoSlice::new(&message)], &mut control, SendFlags::empty())
            .expect("a message");
        self.sync();
    }

    /// Starts the rings without kick descriptors, so that the daemon polls them (SET_VRING_KICK with bit 8).
    pub(crate) fn start_without_kicks(&mut self) {
        self.start();
        for index in 0..self.rings.len() {
            self.send_message(12, &(index as u64 | 0x100).to_ne_bytes(), &[]);
        }
    }

    /// Sends the memory table in a message with space for another region.
    pub(crate) fn send_padded_memory_table(&mut self) {
        let region = self.memory.iter().next().expect("a region");
        let info = VhostUserMemoryRegionInfo::from_guest_region(region).expect("shared memory");
        let words =
            [1, info.guest_phys_addr, info.memory_size, info.userspace_addr, info.mmap_offset, 0, 0, 0, 0];
        let file = region.file_offset().expect("a file").file().try_clone().expect("a descriptor");
        self.send_message(5, &words.map(u64::to_ne_bytes).concat(), &[file.as_fd()]);
    }

    /// Disables the rings, as a frontend without RESET_DEVICE does when a driver is unbound.
    pub(crate) fn disable(&mut self) {
        self.set_enabled(false);
    }

    /// Enables the rings.
    pub(crate) fn enable(&mut self) {
        self.set_enabled(true);
    }

    fn set_enabled(&mut self, enabled: bool) {
        for index in 0..self.rings.len() {
            self.frontend.set_vring_enable(index, enabled).expect("a ring");
        }
    }

    /// Returns the features that the driver accepted.
    pub(crate) fn accepted_features(&self) -> u64 {
        self.features
    }

    /// Returns the kick descriptor of a queue.
    pub(crate) fn kick(&self, queue: usize) -> EventFd {
        self.rings[queue].kick.try_clone().expect("a descriptor")
    }

    /// Sends the in-flight record.
    pub(crate) fn send_record(&mut self) {
        let (description, file) = self.record.as_ref().expect("a record");
        self.frontend.set_inflight_fd(description, file.as_raw_fd()).expect("a valid record");
    }

    /// Sends the in-flight record with another description.
    pub(crate) fn send_record_as(
        &mut self,
        bytes: u64,
        offset: u64,
        queues: u16,
        size: u16,
    ) -> vhost::Result<()> {
        let file = self.record().as_raw_fd();
        self.frontend.set_inflight_fd(&VhostUserInflight::new(bytes, offset, queues, size), file)
    }

    /// Asks for an in-flight record.
    pub(crate) fn ask_record(&mut self, queues: u16, size: u16) -> vhost::Result<()> {
        self.frontend.get_inflight_fd(&VhostUserInflight::new(0, 0, queues, size)).map(drop)
    }

    /// Stops a queue, which may not exist.
    pub(crate) fn try_stop(&self, queue: usize) -> vhost::Result<u32> {
        self.frontend.get_vring_base(queue)
    }

    /// Waits until the daemon has taken a chain of the first queue.
    pub(crate) fn wait_marked(&mut self, sent: Sent) {
        let at = 16 + 16 * u64::from(sent.head);
        let file = self.record();
        let mut mark = [0];
        until("the chain is taken", || {
            file.read_exact_at(&mut mark, at).expect("memory");
            (mark == [1]).then_some(())
        });
    }

    /// Returns the file of the in-flight record, to read or forge it.
    pub(crate) fn record(&mut self) -> &File {
        &self.record.as_ref().expect("a record").1
    }

    /// Starts empty rings at 0, as a driver does after a reset.
    pub(crate) fn start(&mut self) {
        for ring in &mut self.rings {
            ring.clear(&self.memory);
        }
        self.free = BUFFERS;
        self.continue_at(&vec![0; self.rings.len()]);
    }

    /// Sends the memory table and starts the rings at `bases`.
    pub(crate) fn continue_at(&mut self, bases: &[u16]) {
        self.try_continue_at(bases).expect("a start");
    }

    /// Likewise, where the daemon may refuse.
    pub(crate) fn try_continue_at(&mut self, bases: &[u16]) -> vhost::Result<()> {
        let offset = self.send_memory_table()?;
        for (index, base) in bases.iter().enumerate() {
            self.start_ring(index, *base, offset)?;
        }
        Ok(())
    }

    /// Sends the memory table. Returns the frontend's address of guest address 0.
    fn send_memory_table(&mut self) -> vhost::Result<u64> {
        let region = self.memory.iter().next().expect("a region");
        let info = VhostUserMemoryRegionInfo::from_guest_region(region).expect("shared memory");
        self.frontend.set_mem_table(&[info])?;
        Ok(info.userspace_addr - BASE)
    }

    fn start_ring(&mut self, index: usize, base: u16, offset: u64) -> vhost::Result<()> {
        let ring = &self.rings[index];
        let config = VringConfigData {
            queue_max_size: ring.size,
            queue_size: ring.size,
            flags: 0,
            desc_table_addr: offset + ring.at,
            avail_ring_addr: offset + ring.available_at(),
            used_ring_addr: offset + ring.used_at(),
            log_addr: None,
        };
        self.frontend.set_vring_num(index, ring.size)?;
        self.frontend.set_vring_base(index, base)?;
        self.frontend.set_vring_addr(index, &config)?;
        self.frontend.set_vring_err(index, &ring.err)?;
        self.frontend.set_vring_call(index, &ring.call)?;
        self.frontend.set_vring_kick(index, &ring.kick)?;
        self.frontend.set_vring_enable(index, true)
    }

    /// Resets a queue and enables it again (virtio 1.3, 2.6.1): the frontend sends another memory table after
    /// each, while the other rings run, and clears the queue's record.
    pub(crate) fn reset_queue(&mut self, index: usize) {
        self.frontend.set_vring_enable(index, false).expect("a ring to disable");
        self.frontend.get_vring_base(index).expect("a stop");
        self.send_memory_table().expect("a memory table");
        self.rings[index].clear(&self.memory);
        if let Some((_, record)) = &self.record {
            let part = (16 + 16 * u64::from(RING)).next_multiple_of(64);
            let zeros = vec![0; usize::try_from(part).expect("small")];
            record.write_all_at(&zeros, part * index as u64).expect("memory");
        }
        let offset = self.send_memory_table().expect("a memory table");
        self.start_ring(index, 0, offset).expect("a start");
    }

    /// Accepts the offered features in `mask`.
    pub(crate) fn accept(&mut self, mask: u64) -> vhost::Result<()> {
        let offered = self.frontend.get_features()?;
        self.frontend.set_features(offered & mask)
    }

    /// Moves the used ring of the first queue to the end of memory, and beyond.
    pub(crate) fn move_beyond_memory(&mut self) -> vhost::Result<()> {
        let region = self.memory.iter().next().expect("a region");
        let info = VhostUserMemoryRegionInfo::from_guest_region(region).expect("shared memory");
        let there = info.userspace_addr;
        let config = VringConfigData {
            queue_max_size: RING,
            queue_size: RING,
            flags: 0,
            desc_table_addr: there,
            avail_ring_addr: there,
            used_ring_addr: there + info.memory_size - 8,
            log_addr: None,
        };
        self.frontend.set_vring_addr(0, &config)
    }

    /// Asks for the features, as a frontend does to check whether the daemon answers.
    pub(crate) fn features(&self) -> u64 {
        self.frontend.get_features().expect("an answer")
    }

    /// Stops the queues, as a frontend does for a reset or a pause. Returns the next indices.
    pub(crate) fn stop(&mut self) -> Vec<u16> {
        let stop = |index| self.frontend.get_vring_base(index).expect("a stop");
        (0..self.rings.len()).map(stop).map(|base| u16::try_from(base).expect("an index")).collect()
    }

    /// Resets the device, as a frontend with RESET_DEVICE does.
    pub(crate) fn reset(&mut self) {
        self.stop();
        self.frontend.reset_device().expect("a reset");
        if let Some((_, file)) = &self.record {
            let length = usize::try_from(file.metadata().expect("a file").len()).expect("small");
            file.write_all_at(&vec![0; length], 0).expect("memory");
        }
    }

    /// Reads the configuration space.
    pub(crate) fn config(&mut self, size: u32) -> Vec<u8> {
        let buffer = vec![0; usize::try_from(size).expect("small")];
        let (_, config) = self
            .frontend
            .get_config(0, size, VhostUserConfigFlags::empty(), &buffer)
            .expect("a configuration");
        config
    }

    /// Writes `bytes` to free guest memory, and returns the address.
    pub(crate) fn place(&mut self, bytes: &[u8]) -> u64 {
        let at = self.free;
        self.memory.write_slice(bytes, GuestAddress(at)).expect("memory");
        self.free += (u64::try_from(bytes.len()).expect("small") + 15) & !15;
        at
    }

    /// Frees the memory of all buffers, none of which may be in use.
    pub(crate) fn forget_buffers(&mut self) {
        self.free = BUFFERS;
    }

    /// Makes a request with room for an answer available, and kicks.
    pub(crate) fn send(&mut self, queue: usize, request: &[u8], room: u32) -> Sent {
        let sent = self.stage(queue, request, room);
        self.publish(queue);
        sent
    }

    /// Makes several requests available at once, and kicks once.
    pub(crate) fn send_all(&mut self, queue: usize, requests: &[(Vec<u8>, u32)]) -> Vec<Sent> {
        let sent = requests.iter().map(|(request, room)| self.stage(queue, request, *room)).collect();
        self.publish(queue);
        sent
    }

    /// Describes a request with room for an answer, and adds it to the available ring.
    fn stage(&mut self, queue: usize, request: &[u8], room: u32) -> Sent {
        let length = u32::try_from(request.len()).expect("small");
        let request = self.place(request);
        let answer = self.place(&vec![UNTOUCHED; usize::try_from(room).expect("small")]);
        let both = [(request, length, 0), (answer, room, WRITE)];
        let parts: Vec<_> = both.into_iter().filter(|(_, length, _)| *length > 0).collect();
        let last = parts.len() - 1;
        let Ring { descriptors: first, size, .. } = self.rings[queue];
        let chain: Vec<_> = (0_u16..)
            .zip(parts)
            .map(|(index, (address, length, flags))| {
                let more = if usize::from(index) < last { NEXT } else { 0 };
                Descriptor { address, length, flags: flags | more, next: (first + index + 1) % size }
            })
            .collect();
        let head = self.describe(queue, &chain);
        self.put(queue, head);
        Sent { head, request, answer }
    }

    /// Writes descriptors to the next free entries, makes the first available, and kicks.
    pub(crate) fn send_raw(&mut self, queue: usize, chain: &[Descriptor]) -> u16 {
        let head = self.describe(queue, chain);
        self.offer(queue, head);
        head
    }

    /// Links descriptors to a chain, makes it available, and waits until it is used.
    pub(crate) fn send_linked(&mut self, queue: usize, chain: &mut [Descriptor]) -> Used {
        let (first, last) = (self.next_descriptor(queue), chain.len() - 1);
        for (descriptor, next) in chain.iter_mut().zip(1..).take(last) {
            (descriptor.flags, descriptor.next) = (descriptor.flags | NEXT, (first + next) % RING);
        }
        if let Some(last) = chain.last_mut() {
            last.flags &= !NEXT;
        }
        let head = self.send_raw(queue, chain);
        let used = self.wait(queue);
        assert_eq!(used.head, head);
        used
    }

    /// Returns the head of the next chain.
    pub(crate) fn next_descriptor(&self, queue: usize) -> u16 {
        self.rings[queue].descriptors
    }

    /// Writes descriptors to the next free entries, and returns the first index.
    fn describe(&mut self, queue: usize, chain: &[Descriptor]) -> u16 {
        let ring = &mut self.rings[queue];
        let head = ring.descriptors;
        for descriptor in chain {
            let at = GuestAddress(ring.at + 16 * u64::from(ring.descriptors));
            self.memory.write_slice(&descriptor.bytes(), at).expect("memory");
            ring.descriptors = (ring.descriptors + 1) % ring.size;
        }
        head
    }

    /// Makes a head available, valid or not, and kicks.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        self.put(queue, head);
        self.publish(queue);
    }

    /// Writes a head to the next entry of the available ring.
    fn put(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let slot = ring.available_at() + 4 + 2 * u64::from(ring.available % ring.size);
        self.memory.write_obj(head.to_le(), GuestAddress(slot)).expect("memory");
        ring.available = ring.available.wrapping_add(1);
    }

    /// Writes the available index, and kicks.
    fn publish(&mut self, queue: usize) {
        let available = self.rings[queue].available;
        self.publish_as(queue, available);
    }

    /// Writes an available index, valid or not, and kicks.
    pub(crate) fn publish_as(&mut self, queue: usize, available: u16) {
        let ring = &mut self.rings[queue];
        let index = GuestAddress(ring.available_at() + 2);
        self.memory.store(available.to_le(), index, Ordering::SeqCst).expect("memory");
        ring.kick.write(1).expect("a kick");
    }

    /// Sets the event index so that the `chain`th next used entry causes an interrupt, and no earlier one.
    pub(crate) fn set_event(&mut self, queue: usize, chain: u16) {
        let ring = &self.rings[queue];
        let event = GuestAddress(ring.available_at() + 4 + 2 * u64::from(ring.size));
        let index = ring.seen.wrapping_add(chain - 1);
        self.memory.store(index.to_le(), event, Ordering::SeqCst).expect("memory");
    }

    /// Returns the number of interrupts since the last call.
    pub(crate) fn notifications(&mut self, queue: usize) -> u64 {
        self.rings[queue].call.read().unwrap_or(0)
    }

    /// Waits for an interrupt without reading the ring, and returns their number.
    pub(crate) fn wait_notified(&mut self, queue: usize) -> u64 {
        let ring = &self.rings[queue];
        let mut events = [EpollEvent::default()];
        let count = ring.called.wait(TIMEOUT, &mut events).expect("a wait");
        assert_ne!(count, 0, "queue {queue}: no interrupt");
        self.notifications(queue)
    }

    /// Waits until the daemon reports that the ring is unusable.
    pub(crate) fn wait_failed(&mut self, queue: usize) {
        let ring = &self.rings[queue];
        let mut events = [EpollEvent::default()];
        let count = ring.failed.wait(TIMEOUT, &mut events).expect("a wait");
        assert_ne!(count, 0, "queue {queue}: not reported");
        let _ = ring.err.read();
    }

    /// Writes an indirect table to guest memory.
    pub(crate) fn place_table(&mut self, table: &[Descriptor]) -> u64 {
        let bytes: Vec<u8> = table.iter().flat_map(|descriptor| descriptor.bytes()).collect();
        self.place(&bytes)
    }

    /// Returns the next used entry, if there is one.
    pub(crate) fn used(&mut self, queue: usize) -> Option<Used> {
        let ring = &mut self.rings[queue];
        let index: u16 =
            self.memory.load(GuestAddress(ring.used_at() + 2), Ordering::SeqCst).expect("memory");
        if u16::from_le(index) == ring.seen {
            return None;
        }
        let at = ring.used_at() + 4 + 8 * u64::from(ring.seen % ring.size);
        ring.seen = ring.seen.wrapping_add(1);
        // With VIRTIO_RING_F_EVENT_IDX: an interrupt for the next entry.
        let event = GuestAddress(ring.available_at() + 4 + 2 * u64::from(ring.size));
        self.memory.store(ring.seen.to_le(), event, Ordering::SeqCst).expect("memory");
        let [head, length]: [u32; 2] = self.memory.read_obj(GuestAddress(at)).expect("memory");
        Some(Used { head: u16::try_from(head).expect("a head"), length })
    }

    /// Waits for the next used entry.
    pub(crate) fn wait(&mut self, queue: usize) -> Used {
        loop {
            if let Some(used) = self.used(queue) {
                return used;
            }
            let ring = &self.rings[queue];
            let mut events = [EpollEvent::default()];
            let count = ring.called.wait(TIMEOUT, &mut events).expect("a wait");
            assert_ne!(count, 0, "queue {queue}: nothing is used");
            let _ = ring.call.read();
        }
    }

    /// Returns the bytes of an answer.
    pub(crate) fn answer(&self, sent: Sent, used: Used) -> Vec<u8> {
        assert_eq!(sent.head, used.head);
        self.memory(sent.answer, used.length)
    }

    /// Reads guest memory.
    pub(crate) fn memory(&self, at: u64, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).expect("small")];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).expect("memory");
        bytes
    }

    /// Sends a request and returns its answer.
    pub(crate) fn ask(&mut self, queue: usize, request: &[u8], room: u32) -> Vec<u8> {
        let sent = self.send(queue, request, room);
        let used = self.wait(queue);
        self.answer(sent, used)
    }
}

impl Ring {
    /// Empties the ring, as a driver does.
    fn clear(&mut self, memory: &GuestMemoryMmap) {
        memory.write_slice(&vec![0; usize::from(RING_BYTES)], GuestAddress(self.at)).expect("memory");
        (self.available, self.seen, self.descriptors) = (0, 0, 0);
    }

    fn new(at: u64) -> Self {
        let [kick, call, err] =
            [EFD_NONBLOCK; 3].map(|flags| EventFd::new(flags).expect("an event descriptor"));
        let wait_for = |event: &EventFd| {
            let epoll = Epoll::new().expect("an epoll descriptor");
            let readable = EpollEvent::new(EventSet::IN, 0);
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), readable).expect("a descriptor to wait for");
            epoll
        };
        let (called, failed) = (wait_for(&call), wait_for(&err));
        Self { at, size: RING, available: 0, seen: 0, descriptors: 0, kick, call, called, err, failed }
    }

    fn available_at(&self) -> u64 {
        self.at + 16 * u64::from(self.size)
    }

    fn used_at(&self) -> u64 {
        self.at + USED_OFFSET
    }
}

/// Accepts all offered features except `without`, and the protocol features except `without_protocol`.
fn negotiate(
    socket: UnixStream,
    without: u64,
    without_protocol: VhostUserProtocolFeatures,
) -> (Frontend, u64) {
    let mut frontend = Frontend::from_stream(socket, QUEUES);
    frontend.set_owner().expect("an owner");
    let offered = frontend.get_features().expect("features");
    assert_ne!(offered & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits(), 0);
    let protocol = frontend.get_protocol_features().expect("protocol features");
    let wanted = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
    frontend.set_protocol_features(protocol & wanted & !without_protocol).expect("what was offered");
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let features = offered & !without;
    frontend.set_features(features).expect("what was offered");
    (frontend, features)
}

/// Creates memory that another process can map.
fn memory() -> GuestMemoryMmap {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(u64::try_from(SIZE).expect("small")).expect("a size");
    let range = (GuestAddress(BASE), SIZE, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).expect("memory")
}
