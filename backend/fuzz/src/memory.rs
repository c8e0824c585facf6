// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's memory, shared with the daemon, and a copy with the expected content.

use std::cell::OnceCell;
use std::fs::File;
use std::sync::atomic::Ordering;

use arbitrary::Arbitrary;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// Address and size of the rings.
pub const RINGS: u64 = 0x1000_0000;
const RINGS_BYTES: u64 = 0x2000;
/// Address and size of the buffers.
pub const BUFFERS: u64 = 0x2000_0000;
pub const BUFFERS_BYTES: u64 = 0x8000;

/// The regions: address, bytes, and offset in the file.
const REGIONS: [(u64, u64, u64); 2] = [(RINGS, RINGS_BYTES, 0), (BUFFERS, BUFFERS_BYTES, RINGS_BYTES)];
const TOTAL: u64 = RINGS_BYTES + BUFFERS_BYTES;

/// An address, mostly one in the rings or buffers.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Place {
    /// In or just beyond the buffers.
    Buffer(u16),
    /// In or just beyond the rings.
    Ring(u16),
    /// Anywhere.
    Any(u64),
}

impl Place {
    /// Returns the guest's address.
    pub fn address(self) -> u64 {
        match self {
            Self::Buffer(offset) => BUFFERS + u64::from(offset),
            Self::Ring(offset) => RINGS + u64::from(offset),
            Self::Any(address) => address,
        }
    }
}

/// The shared memory, mapped once: that costs more than a run.
struct Shared {
    file: File,
    map: GuestMemoryMmap,
}

impl Shared {
    fn new() -> Self {
        let file = File::from(memfd_create(c"guest", MemfdFlags::CLOEXEC).expect("a file"));
        ftruncate(&file, TOTAL).expect("a size");
        let ranges = REGIONS.map(|(address, bytes, offset)| {
            let part = FileOffset::new(file.try_clone().expect("a file"), offset);
            (GuestAddress(address), usize::try_from(bytes).expect("small"), Some(part))
        });
        Self { map: GuestMemoryMmap::from_ranges_with_files(ranges).expect("memory"), file }
    }

    /// Returns the memory of the thread.
    fn get() -> &'static Self {
        thread_local! {
            static SHARED: OnceCell<&'static Shared> = const { OnceCell::new() };
        }
        SHARED.with(|cell| *cell.get_or_init(|| Box::leak(Box::new(Self::new()))))
    }
}

/// The memory of one run.
pub struct Memory {
    shared: &'static Shared,
    /// What the guest has written, in the order of the file.
    expected: Vec<u8>,
    /// Which bytes the device may write.
    open: Vec<bool>,
}

impl Default for Memory {
    fn default() -> Self {
        let bytes = usize::try_from(TOTAL).expect("small");
        let memory = Self { shared: Shared::get(), expected: vec![0; bytes], open: vec![false; bytes] };
        for (address, bytes, _) in REGIONS {
            let zeros = vec![0; usize::try_from(bytes).expect("small")];
            memory.shared.map.write_slice(&zeros, GuestAddress(address)).expect("memory");
        }
        memory
    }
}

impl Memory {
    /// Returns the memory table, in which the frontend's addresses are the guest's.
    pub fn table(&self) -> (Vec<VhostUserMemoryRegion>, Vec<File>) {
        let region = |(address, bytes, offset)| VhostUserMemoryRegion::new(address, bytes, address, offset);
        let file = |_| self.shared.file.try_clone().expect("a descriptor");
        (REGIONS.map(region).into(), REGIONS.map(file).into())
    }

    /// Writes the bytes that are in memory.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        for (index, byte) in (0..).zip(bytes) {
            let address = at.wrapping_add(index);
            if let Some(place) = place(address) {
                self.expected[place] = *byte;
                self.shared.map.write_obj(*byte, GuestAddress(address)).expect("memory");
            }
        }
    }

    /// Reads two bytes of the guest's memory.
    pub fn load(&self, at: u64) -> u16 {
        self.shared.map.load(GuestAddress(at), Ordering::SeqCst).expect("a ring")
    }

    /// Allows the device to write `length` bytes. Returns whether a ring is among them.
    pub fn open(&mut self, at: u64, length: u64) -> bool {
        let end = at.saturating_add(length);
        for (address, bytes, offset) in REGIONS {
            let (from, to) = (at.max(address), end.min(address + bytes));
            let place = |address_in: u64| usize::try_from(address_in - address + offset).expect("small");
            if from < to {
                self.open[place(from)..place(to - 1) + 1].fill(true);
            }
        }
        at < RINGS + RINGS_BYTES && end > RINGS
    }

    /// Checks that the device has written only what it may.
    pub fn check(&self) {
        let mut found = vec![0; self.expected.len()];
        for (address, bytes, offset) in REGIONS {
            let place = usize::try_from(offset).expect("small");
            let part = &mut found[place..place + usize::try_from(bytes).expect("small")];
            self.shared.map.read_slice(part, GuestAddress(address)).expect("memory");
        }
        if found != self.expected {
            for (place, (found, expected)) in found.iter().zip(&self.expected).enumerate() {
                assert!(
                    found == expected || self.open[place],
                    "byte {place:#x} of the guest's memory was written"
                );
            }
        }
    }
}

/// Returns the offset of `address` in the file.
fn place(address: u64) -> Option<usize> {
    let inside = |(start, bytes, _): &&(u64, u64, u64)| (*start..start + bytes).contains(&address);
    let (start, _, offset) = REGIONS.iter().find(inside)?;
    usize::try_from(address - start + offset).ok()
}
