// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Safe functions over QEMU's plugin interface: counters, registers and calls.

#![allow(unsafe_code)] // Foreign functions.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::slice;
use std::sync::OnceLock;

use ledger::Counts;
use ledger::book::ACCOUNTS;
use ledger::profile::{self, SLOTS};

use crate::api::{
    ADD, Descriptor, Entry, Executed, Insn, READS_REGISTERS, Scoreboard, dlsym, g_array_unref,
    g_byte_array_new, g_byte_array_unref, qemu_get_cpu, qemu_plugin_get_registers, qemu_plugin_num_vcpus,
    qemu_plugin_read_register, qemu_plugin_register_vcpu_insn_exec_cb,
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu, qemu_plugin_scoreboard_find,
    qemu_plugin_scoreboard_new,
};

/// The counters of one processor, or of all.
type Element = [Counts; ACCOUNTS];

/// The place of the counters.
enum Board {
    /// Each processor has an element of QEMU's scoreboard.
    Each(*mut Scoreboard),
    /// All processors share one element.
    ///
    /// Where processors take turns in one thread (`-icount`), QEMU 10.0 has a fault in inline additions:
    /// it uses
    /// the number of the processor that translates as a constant, and multiplies it by the size of an
    /// element
    /// again for each addition in a block, and for all other uses of it (accel/tcg/plugin-gen.c,
    /// `gen_cpu_index` and `gen_plugin_u64_ptr`). Therefore the size is 1, and the address is computed
    /// from the
    /// known number.
    Same(*mut Scoreboard, *mut Element),
}

// SAFETY: QEMU allows these calls on a scoreboard from any thread (qemu-plugin.h: "scoreboard"). The element
// is only read.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    /// Creates the counters. The installation of the plugin has begun.
    fn new(in_turns: bool) -> Self {
        let board = |size| {
            // SAFETY: may be called at any time.
            unsafe { qemu_plugin_scoreboard_new(size) }
        };
        if in_turns {
            Self::Same(board(1), Box::into_raw(Box::new([Counts::default(); ACCOUNTS])))
        } else {
            Self::Each(board(size_of::<Element>()))
        }
    }

    /// Returns the counter at an index of an element, for an instruction that this processor translates.
    fn entry(&self, place: usize) -> Entry {
        let offset = place * size_of::<u64>();
        match *self {
            Self::Each(board) => Entry { board, offset },
            Self::Same(board, element) => same(board, element.addr().wrapping_add(offset)),
        }
    }

    /// Returns the elements.
    fn elements(&self) -> Vec<*const Element> {
        match *self {
            Self::Each(board) => {
                // SAFETY: may be called at any time.
                let processors = c_uint::try_from(unsafe { qemu_plugin_num_vcpus() }).unwrap_or_default();
                // SAFETY: the board has an element for each processor.
                let find = |processor| unsafe { qemu_plugin_scoreboard_find(board, processor) };
                (0..processors).map(|processor| find(processor).cast_const().cast()).collect()
            }
            Self::Same(_, element) => vec![element.cast_const()],
        }
    }
}

/// Returns the counter at this address for all processors.
fn same(board: *mut Scoreboard, address: usize) -> Entry {
    // SAFETY: there is at least one processor, the one that translates.
    let start = unsafe { qemu_plugin_scoreboard_find(board, 0) }.addr();
    Entry { board, offset: address.wrapping_sub(start).wrapping_sub(translator()) }
}

/// A counter for each instruction of Xen and of the driver domain's kernel.
struct Profile(*mut u64);

// SAFETY: only translated code counts, and callbacks, which run between its instructions, read and clear: a
// profile requires that processors take turns.
unsafe impl Send for Profile {}
// SAFETY: as above.
unsafe impl Sync for Profile {}

static PROFILE: OnceLock<Profile> = OnceLock::new();

fn slots() -> usize {
    usize::try_from(SLOTS).unwrap_or_default()
}

/// Starts counting by address.
pub(crate) fn begin_profile() {
    PROFILE.get_or_init(|| Profile(Box::into_raw(vec![0_u64; slots()].into_boxed_slice()).cast()));
}

/// Returns the counters that are not 0 by address, and clears all.
pub(crate) fn take_profile() -> Vec<(u64, u64)> {
    let Some(Profile(counters)) = PROFILE.get() else { return Vec::new() };
    // SAFETY: the slice has `slots()` counters, and none changes now (see [`Profile`]).
    let counters = unsafe { slice::from_raw_parts_mut(*counters, slots()) };
    let counted = (0_u64..).zip(counters.iter()).filter(|(_, count)| **count > 0);
    let counted = counted.map(|(slot, count)| (profile::address(slot), *count)).collect();
    counters.fill(0);
    counted
}

/// Returns the number of the processor that translates.
fn translator() -> usize {
    let current = CURRENT.with(|current| *current);
    if current.is_null() {
        return 0;
    }
    // SAFETY: this is QEMU's thread-local variable `current_cpu`.
    let current = unsafe { *current };
    let number = (0..MOST_PROCESSORS).find(|number| {
        // SAFETY: QEMU returns null for a processor that does not exist.
        unsafe { qemu_get_cpu(*number) == current }
    });
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
}

const MOST_PROCESSORS: c_int = 64;

thread_local! {
    /// The address of QEMU's pointer to the processor for which this thread executes or translates.
    static CURRENT: *const *mut c_void = {
        // SAFETY: the name is a string. Without a library, all loaded ones are searched.
        unsafe { dlsym(std::ptr::null_mut(), c"current_cpu".as_ptr()) }.cast_const().cast()
    };
}

/// A register that the plugin reads.
#[derive(Clone, Copy)]
pub(crate) enum Register {
    /// X0 to X30; 31 is XZR.
    General(u8),
    /// VTTBR_EL2.
    Domain,
    /// CONTEXTIDR_EL1.
    Thread,
}

impl Register {
    fn named(name: &str) -> Option<Self> {
        match name {
            "VTTBR_EL2" => Some(Self::Domain),
            "CONTEXTIDR_EL1" => Some(Self::Thread),
            _ => Some(Self::General(name.strip_prefix('x')?.parse().ok()?)),
        }
    }

    fn place(self) -> usize {
        match self {
            Self::General(number) => usize::from(number),
            Self::Domain => 32,
            Self::Thread => 33,
        }
    }
}

/// QEMU's handles for the registers, which are the same for all processors.
struct Handles([usize; 34]);

static BOARD: OnceLock<Board> = OnceLock::new();
static HANDLES: OnceLock<Handles> = OnceLock::new();

/// Starts counting. `in_turns`: processors take turns in one thread.
pub(crate) fn begin(in_turns: bool) {
    BOARD.get_or_init(|| Board::new(in_turns));
}

/// Looks up QEMU's handles, when a vCPU is initialised.
pub(crate) fn find_registers() {
    HANDLES.get_or_init(|| Handles(handles()));
}

fn handles() -> [usize; 34] {
    // SAFETY: this is a vCPU's initialisation, where QEMU allows the call; the array is ours.
    let array = unsafe { qemu_plugin_get_registers() };
    let mut handles = [0; 34];
    // SAFETY: it is a GArray, which has its data and its length.
    let (data, length) = unsafe { &*array }.parts();
    // SAFETY: the array has `length` descriptors.
    for descriptor in unsafe { slice::from_raw_parts(data.cast::<Descriptor>(), length) } {
        // SAFETY: QEMU's names are strings that are never freed.
        let name = unsafe { CStr::from_ptr(descriptor.name) }.to_string_lossy();
        if let Some(handle) = Register::named(&name).and_then(|register| handles.get_mut(register.place())) {
            *handle = descriptor.handle.addr();
        }
    }
    // SAFETY: the array is ours, and nothing points into it any longer.
    unsafe { g_array_unref(array) };
    handles
}

/// An instruction that is being translated.
pub(crate) struct Instruction {
    insn: *mut Insn,
    /// Its address.
    pub(crate) address: u64,
    /// Its four bytes.
    pub(crate) word: u32,
    executed: Executed,
}

impl Instruction {
    /// Creates an instruction whose calls go to `executed`.
    pub(crate) fn new(insn: *mut Insn, address: u64, word: u32, executed: Executed) -> Self {
        Self { insn, address, word, executed }
    }

    /// Increments a counter each time the instruction is executed.
    pub(crate) fn count(&self, place: usize) {
        let Some(board) = BOARD.get() else { return };
        let entry = board.entry(place);
        // SAFETY: the instruction is being translated, and the entry is in an element.
        unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(self.insn, ADD, entry, 1) };
    }

    /// Increments a counter of the profile each time the instruction is executed. Has no effect without a
    /// profile.
    pub(crate) fn profile(&self, slot: u64) {
        let (Some(Board::Same(board, _)), Some(Profile(counters))) = (BOARD.get(), PROFILE.get()) else {
            return;
        };
        let Ok(slot) = usize::try_from(slot) else { return };
        let entry = same(*board, counters.addr() + slot * size_of::<u64>());
        // SAFETY: the instruction is being translated, and the entry is in the profile.
        unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(self.insn, ADD, entry, 1) };
    }

    /// Calls `executed` with `what` before each execution of the instruction.
    pub(crate) fn call(&self, what: usize) {
        // SAFETY: the instruction is being translated; the data is not a pointer and never dereferenced.
        unsafe {
            qemu_plugin_register_vcpu_insn_exec_cb(
                self.insn,
                self.executed,
                READS_REGISTERS,
                std::ptr::without_provenance_mut(what),
            );
        };
    }
}

/// The domain and the thread that run while a block is translated, as values of registers.
#[derive(Clone, Copy)]
pub(crate) struct Running {
    /// VTTBR_EL2.
    pub(crate) domain: u64,
    /// CONTEXTIDR_EL1.
    pub(crate) thread: u64,
}

/// Returns the counters of the first `accounts` accounts, of all processors.
pub(crate) fn counts(accounts: usize) -> Vec<Counts> {
    let mut sums = vec![Counts::default(); accounts.min(ACCOUNTS)];
    for element in BOARD.get().map(Board::elements).unwrap_or_default() {
        for (account, sums) in sums.iter_mut().enumerate() {
            let counts = element.cast::<Counts>().wrapping_add(account);
            // SAFETY: an element has at least `accounts` counters. Another processor may count meanwhile;
            // each counter is read as a whole.
            let counts = unsafe { counts.read_volatile() };
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    sums
}

/// Returns the value of a register of the processor that executes or translates.
pub(crate) fn register(register: Register) -> u64 {
    let handle = HANDLES.get().and_then(|handles| handles.0.get(register.place()).copied());
    let Some(handle @ 1..) = handle else { return 0 };
    // SAFETY: creates an array that is ours.
    let array = unsafe { g_byte_array_new() };
    // SAFETY: this is a callback of the thread that has the processor's state; the handle is QEMU's.
    let size = unsafe { qemu_plugin_read_register(std::ptr::without_provenance_mut(handle), array) };
    // SAFETY: it is a GByteArray, which has its data and its length.
    let (data, length) = unsafe { &*array }.parts();
    // SAFETY: the array has `length` bytes.
    let read = unsafe { slice::from_raw_parts(data.cast::<u8>(), if size > 0 { length } else { 0 }) };
    let mut bytes = [0; 8];
    // The value is in the processor's byte order, least significant byte first.
    bytes.iter_mut().zip(read).for_each(|(byte, read)| *byte = *read);
    // SAFETY: the array is ours.
    unsafe { g_byte_array_unref(array) };
    u64::from_le_bytes(bytes)
}
