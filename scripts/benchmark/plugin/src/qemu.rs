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

/// The counters of a processor, or of all of them.
type Element = [Counts; ACCOUNTS];

/// Where is counted.
enum Board {
    /// Each processor has an element of QEMU's scoreboard.
    Each(*mut Scoreboard),
    /// All have the same one.
    ///
    /// Where processors take turns in one thread (`-icount`), QEMU 10.0 has a mistake in inline additions:
    /// the number of the processor is taken for a constant, of the one that translates, and that constant is
    /// multiplied by the size of an element again for each addition in a block, also for all others who use
    /// it there (accel/tcg/plugin-gen.c, `gen_cpu_index` and `gen_plugin_u64_ptr`). So the size must be 1,
    /// and the number is known when the address is made.
    Same(*mut Scoreboard, *mut Element),
}

// SAFETY: QEMU allows the calls on a scoreboard from any thread (qemu-plugin.h: "scoreboard"); the element is
// only read.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    /// After the installation of the plugin has begun.
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

    /// The counter with this place in an element, for an instruction that this processor translates.
    fn entry(&self, place: usize) -> Entry {
        let offset = place * size_of::<u64>();
        match *self {
            Self::Each(board) => Entry { board, offset },
            Self::Same(board, element) => same(board, element.addr().wrapping_add(offset)),
        }
    }

    /// The elements.
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

/// The counter at this address, for all processors.
fn same(board: *mut Scoreboard, address: usize) -> Entry {
    // SAFETY: there is at least one processor: it translates.
    let start = unsafe { qemu_plugin_scoreboard_find(board, 0) }.addr();
    Entry { board, offset: address.wrapping_sub(start).wrapping_sub(translator()) }
}

/// A counter for each instruction of Xen and of the driver domain's kernel.
struct Profile(*mut u64);

// SAFETY: it is counted on by translated code only, and read and cleared in callbacks, which run between its
// instructions: there is a profile only where processors take turns.
unsafe impl Send for Profile {}
// SAFETY: as above.
unsafe impl Sync for Profile {}

static PROFILE: OnceLock<Profile> = OnceLock::new();

fn slots() -> usize {
    usize::try_from(SLOTS).unwrap_or_default()
}

/// Counts by address from now on.
pub(crate) fn begin_profile() {
    PROFILE.get_or_init(|| Profile(Box::into_raw(vec![0_u64; slots()].into_boxed_slice()).cast()));
}

/// All counters that are not 0, by address; then all are 0.
pub(crate) fn take_profile() -> Vec<(u64, u64)> {
    let Some(Profile(counters)) = PROFILE.get() else { return Vec::new() };
    // SAFETY: there are so many, and none of them changes now (see [`Profile`]).
    let counters = unsafe { slice::from_raw_parts_mut(*counters, slots()) };
    let counted = (0_u64..).zip(counters.iter()).filter(|(_, count)| **count > 0);
    let counted = counted.map(|(slot, count)| (profile::address(slot), *count)).collect();
    counters.fill(0);
    counted
}

/// The number of the processor that translates.
fn translator() -> usize {
    let current = CURRENT.with(|current| *current);
    if current.is_null() {
        return 0;
    }
    // SAFETY: it is QEMU's variable of this thread, `current_cpu`.
    let current = unsafe { *current };
    let number = (0..MOST_PROCESSORS).find(|number| {
        // SAFETY: QEMU returns null for a processor that is not there.
        unsafe { qemu_get_cpu(*number) == current }
    });
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
}

const MOST_PROCESSORS: c_int = 64;

thread_local! {
    /// Where QEMU has the processor that this thread executes or translates for.
    static CURRENT: *const *mut c_void = {
        // SAFETY: the name is a string, and no library is named: all that is loaded is looked through.
        unsafe { dlsym(std::ptr::null_mut(), c"current_cpu".as_ptr()) }.cast_const().cast()
    };
}

/// A register that is read.
#[derive(Clone, Copy)]
pub(crate) enum Register {
    /// X0 to X30; 31 is the register of zeros.
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

/// Starts counting; `in_turns` says that processors take turns in one thread.
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
    // SAFETY: the array has so many descriptors.
    for descriptor in unsafe { slice::from_raw_parts(data.cast::<Descriptor>(), length) } {
        // SAFETY: QEMU's names are strings that stay.
        let name = unsafe { CStr::from_ptr(descriptor.name) }.to_string_lossy();
        if let Some(handle) = Register::named(&name).and_then(|register| handles.get_mut(register.place())) {
            *handle = descriptor.handle.addr();
        }
    }
    // SAFETY: the array is ours, and nothing points into it any more.
    unsafe { g_array_unref(array) };
    handles
}

/// An instruction that is being translated.
pub(crate) struct Instruction {
    insn: *mut Insn,
    /// Where it lies.
    pub(crate) address: u64,
    /// Its four bytes.
    pub(crate) word: u32,
    executed: Executed,
}

impl Instruction {
    /// An instruction whose calls go to `executed`.
    pub(crate) fn new(insn: *mut Insn, address: u64, word: u32, executed: Executed) -> Self {
        Self { insn, address, word, executed }
    }

    /// Adds one to a counter, each time it is executed.
    pub(crate) fn count(&self, place: usize) {
        let Some(board) = BOARD.get() else { return };
        let entry = board.entry(place);
        // SAFETY: the instruction is being translated, and the entry is one of an element.
        unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(self.insn, ADD, entry, 1) };
    }

    /// Adds one to the counter with this place in the profile, each time it is executed, if there is a
    /// profile.
    pub(crate) fn profile(&self, slot: u64) {
        let (Some(Board::Same(board, _)), Some(Profile(counters))) = (BOARD.get(), PROFILE.get()) else {
            return;
        };
        let Ok(slot) = usize::try_from(slot) else { return };
        let entry = same(*board, counters.addr() + slot * size_of::<u64>());
        // SAFETY: the instruction is being translated, and the entry is one of the profile.
        unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(self.insn, ADD, entry, 1) };
    }

    /// Calls `executed` with `what`, each time before it is executed.
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

/// What runs while a block is translated, by the registers.
#[derive(Clone, Copy)]
pub(crate) struct Running {
    /// VTTBR_EL2.
    pub(crate) domain: u64,
    /// CONTEXTIDR_EL1.
    pub(crate) thread: u64,
}

/// The counters of so many accounts, of all processors.
pub(crate) fn counts(accounts: usize) -> Vec<Counts> {
    let mut sums = vec![Counts::default(); accounts.min(ACCOUNTS)];
    for element in BOARD.get().map(Board::elements).unwrap_or_default() {
        for (account, sums) in sums.iter_mut().enumerate() {
            let counts = element.cast::<Counts>().wrapping_add(account);
            // SAFETY: there are so many in an element. They may be counted on meanwhile by another processor;
            // each counter is read whole.
            let counts = unsafe { counts.read_volatile() };
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    sums
}

/// The value of a register of the processor that executes or translates.
pub(crate) fn register(register: Register) -> u64 {
    let handle = HANDLES.get().and_then(|handles| handles.0.get(register.place()).copied());
    let Some(handle @ 1..) = handle else { return 0 };
    // SAFETY: makes an array that is ours.
    let array = unsafe { g_byte_array_new() };
    // SAFETY: this is a callback of the thread that has the processor's state; the handle is QEMU's.
    let size = unsafe { qemu_plugin_read_register(std::ptr::without_provenance_mut(handle), array) };
    // SAFETY: it is a GByteArray, which has its data and its length.
    let (data, length) = unsafe { &*array }.parts();
    // SAFETY: the array has so many bytes.
    let read = unsafe { slice::from_raw_parts(data.cast::<u8>(), if size > 0 { length } else { 0 }) };
    let mut bytes = [0; 8];
    // In the order of the processor, the least first.
    bytes.iter_mut().zip(read).for_each(|(byte, read)| *byte = *read);
    // SAFETY: the array is ours.
    unsafe { g_byte_array_unref(array) };
    u64::from_le_bytes(bytes)
}
