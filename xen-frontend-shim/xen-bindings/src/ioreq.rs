// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ioreq page: Xen writes the access of a waiting vCPU to it, and reads the answer from it.
//!
//! Each vCPU has one slot, `struct ioreq` of Xen's `public/hvm/ioreq.h`, with these states:
//!
//! ```text
//!   NONE ──Xen: access trapped, event sent──▶ READY ──take()──▶ INPROCESS ──respond(), notify──▶ RESP_READY
//!     ▲                                                                                             │
//!     └────────────────────────── Xen: answer read, vCPU continues ─────────────────────────────────┘
//! ```
//!
//! The shim relies on (Xen 4.20, `common/ioreq.c` and `arch/arm/ioreq.c`):
//!
//! - Xen writes all fields, issues a write barrier, sets READY and sends the event. So an acquire load of
//!   READY makes the fields readable. Xen reads `data` after RESP_READY, so the answer is published by a
//!   release store.
//! - On Arm, `count` is 1, `data_is_ptr` is 0, `size` is 1, 2, 4 or 8, and `data` of a write has no bits
//!   beyond `size`. Xen masks and sign-extends the answer. `df` is unused.
//! - Xen crashes a guest whose slot goes back to an earlier state. [`Slot`] only goes forward.
//! - Xen compares `vp_eport` with its own copy for each request and aborts the access if they differ. Nothing
//!   here writes that field.
//! - A request of type 8 (INVALIDATE) belongs to no window: device models are to drop their mappings of the
//!   guest. Xen sends it to each enabled server, and the vCPU waits for the answer.
//! - The slot may be NONE at an event: the event of a request that the kernel answered (see
//!   [`crate::eventfd`]), and the first one of a channel after it is bound.
//!
//! A frame of the resource has 128 slots. Frame 0 is the ring of buffered requests, which does not exist on
//! Arm; frame 1 is the page of slots.

use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::PAGE_SIZE;
use crate::abi::ioreq as abi;
use crate::ids::{DomId, RemotePort};
use crate::sys::mapping::Mapping;

/// The number of slots in one page, and the largest number of vCPUs of a guest.
pub const MAX_VCPUS: usize = PAGE_SIZE / size_of::<Slot>();

/// The state of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// No request.
    None,
    /// Xen has written a request.
    Ready,
    /// This process or the kernel's ioeventfd has taken the request.
    InProcess,
    /// The answer is written, and Xen has not read it yet.
    ResponseReady,
    /// A value that Xen does not define.
    Unknown(u8),
}

impl SlotState {
    const fn from_bits(bits: u8) -> Self {
        match bits & abi::STATE_MASK {
            abi::STATE_IOREQ_NONE => Self::None,
            abi::STATE_IOREQ_READY => Self::Ready,
            abi::STATE_IOREQ_INPROCESS => Self::InProcess,
            abi::STATE_IORESP_READY => Self::ResponseReady,
            unknown => Self::Unknown(unknown),
        }
    }
}

/// The type of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An access to an I/O port (x86).
    Pio,
    /// An access to memory-mapped registers, which virtio-mmio uses.
    Copy,
    /// An access to PCI configuration space.
    PciConfig,
    /// The guest has set its clock (x86).
    TimeOffset,
    /// A request to drop mappings of the guest's memory, without an address. Any answer is accepted.
    Invalidate,
    /// A type that Xen does not define.
    Unknown(u8),
}

impl Kind {
    /// The type with Xen's number.
    #[must_use]
    pub const fn from_wire(kind: u8) -> Self {
        match kind {
            abi::IOREQ_TYPE_PIO => Self::Pio,
            abi::IOREQ_TYPE_COPY => Self::Copy,
            abi::IOREQ_TYPE_PCI_CONFIG => Self::PciConfig,
            abi::IOREQ_TYPE_TIMEOFFSET => Self::TimeOffset,
            abi::IOREQ_TYPE_INVALIDATE => Self::Invalidate,
            unknown => Self::Unknown(unknown),
        }
    }

    /// Xen's number (`IOREQ_TYPE_*`).
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Pio => abi::IOREQ_TYPE_PIO,
            Self::Copy => abi::IOREQ_TYPE_COPY,
            Self::PciConfig => abi::IOREQ_TYPE_PCI_CONFIG,
            Self::TimeOffset => abi::IOREQ_TYPE_TIMEOFFSET,
            Self::Invalidate => abi::IOREQ_TYPE_INVALIDATE,
            Self::Unknown(unknown) => unknown,
        }
    }
}

/// The direction of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest reads; the answer has the data.
    Read,
    /// The guest writes.
    Write,
}

/// An access of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRequest {
    /// The type.
    pub kind: Kind,
    /// The direction of a request.
    pub direction: Direction,
    /// The guest physical address.
    pub addr: u64,
    /// The data that the guest writes; 0 for a read.
    pub data: u64,
    /// The size of one access in bytes.
    pub size: u32,
    /// The number of accesses (a repeated instruction of x86; 1 on Arm).
    pub count: u32,
    /// Whether `data` is the guest physical address of the data (x86; never on Arm).
    pub data_is_ptr: bool,
}

/// The slot of a vCPU in the ioreq page: `struct ioreq`.
///
/// It is shared with Xen and the kernel's ioeventfd, so each field is an atomic.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Slot {
    addr: AtomicU64,
    data: AtomicU64,
    count: AtomicU32,
    size: AtomicU32,
    vp_eport: AtomicU32,
    pad0: AtomicU16,
    bits: AtomicU8,
    kind: AtomicU8,
}

/// The offsets of a slot's fields, for the test against Xen's header.
#[cfg(test)]
pub(crate) const OFFSETS: [(&str, usize); 6] = [
    ("addr", offset_of!(Slot, addr)),
    ("data", offset_of!(Slot, data)),
    ("count", offset_of!(Slot, count)),
    ("size", offset_of!(Slot, size)),
    ("vp_eport", offset_of!(Slot, vp_eport)),
    ("type", offset_of!(Slot, kind)),
];

/// The offset of the byte of bit fields.
pub(crate) const BITS_OFFSET: usize = offset_of!(Slot, bits);

const _: () = {
    assert!(size_of::<Slot>() == 32);
    assert!(BITS_OFFSET == 30);
    assert!(offset_of!(Slot, vp_eport) == 24);
};

impl Slot {
    /// Loads the state. What Xen wrote before it set the state can be read afterwards.
    #[must_use]
    pub fn state(&self) -> SlotState {
        SlotState::from_bits(self.bits.load(Ordering::Acquire))
    }

    /// The event channel of this vCPU, to be bound. Xen writes it when an ioreq server whose page is mapped
    /// is enabled.
    #[must_use]
    pub fn event_port(&self) -> RemotePort {
        RemotePort::new(self.vp_eport.load(Ordering::Relaxed))
    }

    /// Reads the request in the slot without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<RawRequest> {
        let bits = self.bits.load(Ordering::Acquire);
        (SlotState::from_bits(bits) == SlotState::Ready).then(|| self.read(bits))
    }

    /// Takes the request in the slot. It must then be answered by [`Slot::respond`]: the vCPU waits without a
    /// limit.
    #[must_use]
    pub fn take(&self) -> Option<RawRequest> {
        let bits = self.bits.load(Ordering::Acquire);
        if SlotState::from_bits(bits) != SlotState::Ready {
            return None;
        }
        let taken = bits & !abi::STATE_MASK | abi::STATE_IOREQ_INPROCESS;
        // The kernel's ioeventfd may have answered it meanwhile, and the slot may have the next request. So
        // the request is read when the kernel cannot answer it any more.
        self.bits.compare_exchange(bits, taken, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        Some(self.read(bits))
    }

    /// Reads a request that was taken and not answered, to be answered by [`Slot::respond`]. Only for the
    /// single process that serves the slot: the slot does not tell whether the process that took the request
    /// still runs.
    #[must_use]
    pub fn retake(&self) -> Option<RawRequest> {
        let bits = self.bits.load(Ordering::Acquire);
        (SlotState::from_bits(bits) == SlotState::InProcess).then(|| self.read(bits))
    }

    /// Answers the request that was taken. `data` is the data of a read. The vCPU continues when its event
    /// channel is notified.
    ///
    /// A slot without a taken request is not changed, since Xen crashes a guest whose slot is in the wrong
    /// state.
    pub fn respond(&self, data: u64) {
        let bits = self.bits.load(Ordering::Acquire);
        if SlotState::from_bits(bits) != SlotState::InProcess {
            return;
        }
        if bits & abi::DIR != 0 {
            self.data.store(data, Ordering::Relaxed);
        }
        self.bits.store(bits & !abi::STATE_MASK | abi::STATE_IORESP_READY, Ordering::Release);
    }

    fn read(&self, bits: u8) -> RawRequest {
        RawRequest {
            kind: Kind::from_wire(self.kind.load(Ordering::Relaxed)),
            direction: if bits & abi::DIR == 0 { Direction::Write } else { Direction::Read },
            addr: self.addr.load(Ordering::Relaxed),
            data: self.data.load(Ordering::Relaxed),
            size: self.size.load(Ordering::Relaxed),
            count: self.count.load(Ordering::Relaxed),
            data_is_ptr: bits & abi::DATA_IS_PTR != 0,
        }
    }

    /// Writes a request to the slot, as Xen does, for tests. Fails if the slot is not free.
    pub fn post(&self, request: &RawRequest) -> Result<(), SlotState> {
        match self.state() {
            SlotState::None => {}
            busy => return Err(busy),
        }
        self.addr.store(request.addr, Ordering::Relaxed);
        self.data.store(request.data, Ordering::Relaxed);
        self.count.store(request.count, Ordering::Relaxed);
        self.size.store(request.size, Ordering::Relaxed);
        self.kind.store(request.kind.to_wire(), Ordering::Relaxed);
        let dir = if request.direction == Direction::Read { abi::DIR } else { 0 };
        let ptr = if request.data_is_ptr { abi::DATA_IS_PTR } else { 0 };
        self.bits.store(dir | ptr | abi::STATE_IOREQ_READY, Ordering::Release);
        Ok(())
    }

    /// Reads the answer and frees the slot, as Xen does, for tests.
    #[must_use]
    pub fn collect(&self) -> Option<u64> {
        let bits = self.bits.load(Ordering::Acquire);
        if SlotState::from_bits(bits) != SlotState::ResponseReady {
            return None;
        }
        let data = self.data.load(Ordering::Relaxed);
        self.bits.store(bits & !abi::STATE_MASK, Ordering::Release);
        Some(data)
    }
}

/// A guest's ioreq page, mapped into this process.
#[derive(Debug)]
pub struct IoreqPage {
    mapping: Mapping,
    domain: DomId,
    vcpus: usize,
}

impl IoreqPage {
    pub(crate) fn new(mapping: Mapping, domain: DomId, vcpus: u32) -> Self {
        let vcpus = usize::try_from(vcpus).unwrap_or(usize::MAX).min(MAX_VCPUS);
        Self { mapping, domain, vcpus }
    }

    /// The guest of the page.
    #[must_use]
    pub fn domain(&self) -> DomId {
        self.domain
    }

    /// The slots of the guest's vCPUs.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        let all = self.mapping.slots();
        all.get(..self.vcpus).unwrap_or(all)
    }

    /// The slot of a vCPU. `None` if the guest has no such vCPU.
    #[must_use]
    pub fn slot(&self, vcpu: usize) -> Option<&Slot> {
        self.slots().get(vcpu)
    }

    /// The address of the page in this process, by which the kernel identifies it.
    pub(crate) fn address(&self) -> u64 {
        self.mapping.address()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register_read(addr: u64) -> RawRequest {
        RawRequest {
            kind: Kind::Copy,
            direction: Direction::Read,
            addr,
            data: 0,
            size: 4,
            count: 1,
            data_is_ptr: false,
        }
    }

    /// A slot with these bytes in memory.
    fn slot_of(bytes: [u8; 32]) -> Slot {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        Slot {
            addr: AtomicU64::new(long(0)),
            data: AtomicU64::new(long(8)),
            count: AtomicU32::new(word(16)),
            size: AtomicU32::new(word(20)),
            vp_eport: AtomicU32::new(word(24)),
            pad0: AtomicU16::new(0),
            bits: AtomicU8::new(bytes[30]),
            kind: AtomicU8::new(bytes[31]),
        }
    }

    #[test]
    fn read_passes_all_states() {
        let slot = Slot::default();
        let request = register_read(0x0200_0000);
        assert_eq!(slot.take(), None);
        slot.post(&request).unwrap();
        assert_eq!(slot.peek(), Some(request));
        assert_eq!(slot.state(), SlotState::Ready);
        assert_eq!(slot.take(), Some(request));
        assert_eq!(slot.state(), SlotState::InProcess);
        assert_eq!(slot.take(), None, "a request is taken once");
        slot.respond(0x7472_6976);
        assert_eq!(slot.state(), SlotState::ResponseReady);
        assert_eq!(slot.collect(), Some(0x7472_6976));
        assert_eq!(slot.state(), SlotState::None);
    }

    #[test]
    fn request_taken_and_not_answered_can_be_taken_again() {
        let slot = Slot::default();
        let request = RawRequest { direction: Direction::Write, data: 5, ..register_read(0x0200_0070) };
        assert_eq!(slot.retake(), None);
        slot.post(&request).unwrap();
        assert_eq!(slot.retake(), None, "it is not taken yet");
        assert_eq!(slot.take(), Some(request));
        assert_eq!(slot.retake(), Some(request));
        slot.respond(0);
        assert_eq!(slot.retake(), None, "it is answered");
    }

    #[test]
    fn answer_to_a_write_does_not_change_its_data() {
        let slot = Slot::default();
        let request = RawRequest { direction: Direction::Write, data: 5, ..register_read(0x0200_0050) };
        slot.post(&request).unwrap();
        assert_eq!(slot.take().map(|r| r.data), Some(5));
        slot.respond(u64::MAX);
        assert_eq!(slot.collect(), Some(5));
    }

    #[test]
    fn state_never_goes_back() {
        let slot = Slot::default();
        slot.respond(1);
        assert_eq!(slot.state(), SlotState::None, "no request, no answer");
        slot.post(&register_read(0)).unwrap();
        slot.respond(1);
        assert_eq!(slot.state(), SlotState::Ready, "not taken, no answer");
        assert_eq!(slot.take().map(|r| r.kind), Some(Kind::Copy));
        slot.respond(1);
        slot.respond(2);
        assert_eq!(slot.post(&register_read(0)), Err(SlotState::ResponseReady));
        assert_eq!(slot.collect(), Some(1), "the first answer counts");
    }

    #[test]
    fn bit_fields_of_xen_are_read() {
        let mut bytes = [0xff; 32];
        bytes[24..28].copy_from_slice(&7u32.to_le_bytes());
        bytes[30] = 0b0010_0001;
        bytes[31] = 8;
        let slot = slot_of(bytes);
        assert_eq!(slot.event_port(), RemotePort::new(7));
        let request = slot.peek().unwrap();
        assert_eq!(
            (request.kind, request.direction, request.data_is_ptr),
            (Kind::Invalidate, Direction::Read, false)
        );
        bytes[30] = 0b0001_0001;
        let request = slot_of(bytes).peek().unwrap();
        assert_eq!((request.direction, request.data_is_ptr), (Direction::Write, true));
    }

    #[test]
    fn any_byte_is_a_state_and_a_kind() {
        for byte in 0..=u8::MAX {
            let mut bytes = [byte; 32];
            let state = slot_of(bytes).state();
            assert_eq!(matches!(state, SlotState::Unknown(_)), byte & 0xf > 3);
            bytes[30] = abi::STATE_IOREQ_READY;
            assert_eq!(slot_of(bytes).take().map(|r| r.kind.to_wire()), Some(byte));
        }
    }

    #[test]
    fn page_has_no_slot_beyond_its_vcpus() {
        let page = IoreqPage::new(Mapping::anonymous(PAGE_SIZE).unwrap(), DomId::new(2), 2);
        assert_eq!(page.slots().len(), 2);
        assert!(page.slot(1).is_some() && page.slot(2).is_none() && page.slot(usize::MAX).is_none());
        let crowded = IoreqPage::new(Mapping::anonymous(PAGE_SIZE).unwrap(), DomId::new(2), u32::MAX);
        assert_eq!(crowded.slots().len(), MAX_VCPUS);
    }

    #[test]
    fn request_is_taken_by_one_of_two_threads() {
        let slot = Slot::default();
        for round in 0..200 {
            slot.post(&register_read(round)).unwrap();
            let taken: usize = std::thread::scope(|scope| {
                let takers: Vec<_> =
                    (0..2).map(|_| scope.spawn(|| usize::from(slot.take().is_some()))).collect();
                takers.into_iter().map(|taker| taker.join().unwrap()).sum()
            });
            assert_eq!(taken, 1);
            slot.respond(round);
            assert_eq!(slot.collect(), Some(round));
        }
    }
}
