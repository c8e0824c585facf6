// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's plugin interface, version 4 (QEMU 9.2 and 10.0, include/qemu/qemu-plugin.h): as much of it as is used.

#![allow(unsafe_code)] // Foreign functions, and the two symbols that QEMU looks for.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use ledger::Counts;

use crate::counting;

#[repr(C)]
struct Tb(c_void);

#[repr(C)]
struct Insn(c_void);

#[repr(C)]
struct Scoreboard(c_void);

/// `qemu_info_t`, for a system emulator.
#[repr(C)]
struct Info {
    target: *const c_char,
    version: [c_int; 2],
    system: bool,
    processors: c_int,
    most_processors: c_int,
}

/// `qemu_plugin_u64`: a counter of each processor.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    board: *mut Scoreboard,
    offset: usize,
}

/// GLib's `GArray`, of which `qemu_plugin_get_registers` returns one, and `GByteArray`.
#[repr(C)]
struct Array {
    data: *mut c_void,
    length: c_uint,
}

/// `qemu_plugin_reg_descriptor`.
#[repr(C)]
struct Descriptor {
    handle: *mut c_void,
    name: *const c_char,
    feature: *const c_char,
}

const ADD: c_int = 0;
const READS_REGISTERS: c_int = 1;

type Translated = extern "C" fn(u64, *mut Tb);
type Executed = extern "C" fn(c_uint, *mut c_void);
type Initialised = extern "C" fn(u64, c_uint);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_init_cb(id: u64, call: Initialised);
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, call: Translated);
    fn qemu_plugin_tb_n_insns(tb: *const Tb) -> usize;
    fn qemu_plugin_tb_get_insn(tb: *const Tb, place: usize) -> *mut Insn;
    fn qemu_plugin_insn_data(insn: *const Insn, to: *mut c_void, size: usize) -> usize;
    fn qemu_plugin_insn_vaddr(insn: *const Insn) -> u64;
    fn qemu_plugin_register_vcpu_insn_exec_cb(insn: *mut Insn, call: Executed, flags: c_int, data: *mut c_void);
    fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        insn: *mut Insn,
        operation: c_int,
        entry: Entry,
        value: u64,
    );
    fn qemu_plugin_scoreboard_new(size: usize) -> *mut Scoreboard;
    fn qemu_plugin_scoreboard_find(board: *mut Scoreboard, processor: c_uint) -> *mut c_void;
    fn qemu_plugin_num_vcpus() -> c_int;
    fn qemu_plugin_get_registers() -> *mut Array;
    fn qemu_plugin_read_register(handle: *mut c_void, to: *mut Array) -> c_int;
    fn g_byte_array_new() -> *mut Array;
    fn g_byte_array_unref(array: *mut Array);
    fn g_array_unref(array: *mut Array);
}

/// The version that QEMU asks for.
#[unsafe(no_mangle)]
#[used]
static qemu_plugin_version: c_int = 4;

/// The counters of all processors.
struct Board(*mut Scoreboard);

// SAFETY: QEMU allows the calls on a scoreboard from any thread (qemu-plugin.h: "scoreboard").
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

/// QEMU's handles for the registers X0 to X30, which are the same for all processors.
struct Handles(Vec<usize>);

static BOARD: OnceLock<Board> = OnceLock::new();
static HANDLES: OnceLock<Handles> = OnceLock::new();

/// QEMU calls this once.
#[unsafe(no_mangle)]
extern "C" fn qemu_plugin_install(id: u64, info: *const Info, count: c_int, words: *const *const c_char) -> c_int {
    let words = (0..usize::try_from(count).unwrap_or_default()).map(|place| {
        // SAFETY: QEMU passes `count` pointers to strings, which live during this call.
        let word = unsafe { *words.add(place) };
        // SAFETY: as above.
        unsafe { CStr::from_ptr(word) }.to_string_lossy().into_owned()
    });
    // SAFETY: QEMU passes a pointer to its own structure, which lives during this call.
    let processors = usize::try_from(unsafe { (*info).most_processors }).unwrap_or_default();
    if let Err(reason) = counting::begin(processors, words) {
        eprintln!("plugin: {reason}");
        return 1;
    }
    // SAFETY: may be called from here on.
    let board = unsafe { qemu_plugin_scoreboard_new(size_of::<Counts>()) };
    if BOARD.set(Board(board)).is_err() {
        return 1;
    }
    // SAFETY: the function has the type that QEMU calls.
    unsafe { qemu_plugin_register_vcpu_init_cb(id, processor_is_there) };
    // SAFETY: as above.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

extern "C" fn processor_is_there(_id: u64, _processor: c_uint) {
    HANDLES.get_or_init(|| Handles(find_registers()));
}

fn find_registers() -> Vec<usize> {
    // SAFETY: this is a vCPU's initialisation, where QEMU allows the call; the array is ours.
    let array = unsafe { qemu_plugin_get_registers() };
    let mut handles = vec![0; 31];
    // SAFETY: a GArray has its data and its length.
    let (data, length) = unsafe { ((*array).data.cast::<Descriptor>(), (*array).length) };
    for place in 0..usize::try_from(length).unwrap_or_default() {
        // SAFETY: the array has `length` descriptors.
        let descriptor = unsafe { &*data.add(place) };
        // SAFETY: QEMU's names are strings that stay.
        let name = unsafe { CStr::from_ptr(descriptor.name) }.to_string_lossy();
        let number = name.strip_prefix('x').and_then(|digits| digits.parse::<usize>().ok());
        if let Some(handle) = number.and_then(|number| handles.get_mut(number)) {
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
}

impl Instruction {
    /// Adds one to a counter of the processor that executes it, each time.
    pub(crate) fn count(&self, place: usize) {
        let Some(board) = BOARD.get() else { return };
        let entry = Entry { board: board.0, offset: place * size_of::<u64>() };
        // SAFETY: the instruction is being translated, and the offset is one of a `Counts`.
        unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(self.insn, ADD, entry, 1) };
    }

    /// Calls [`counting::executed`] with `what`, each time before it is executed.
    pub(crate) fn call(&self, what: usize) {
        // SAFETY: the instruction is being translated; the data is no pointer, and nobody takes it for one.
        unsafe {
            qemu_plugin_register_vcpu_insn_exec_cb(
                self.insn,
                executed,
                READS_REGISTERS,
                std::ptr::without_provenance_mut(what),
            );
        };
    }
}

extern "C" fn translated(_id: u64, tb: *mut Tb) {
    // SAFETY: QEMU passes the block that it translates.
    let count = unsafe { qemu_plugin_tb_n_insns(tb) };
    for place in 0..count {
        // SAFETY: there are `count` of them.
        let insn = unsafe { qemu_plugin_tb_get_insn(tb, place) };
        let mut bytes = [0; 4];
        // SAFETY: QEMU writes at most as many bytes as it is told.
        let size = unsafe { qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), bytes.len()) };
        // SAFETY: the instruction lives during this call.
        let address = unsafe { qemu_plugin_insn_vaddr(insn) };
        if size == bytes.len() {
            counting::translated(&Instruction { insn, address, word: u32::from_le_bytes(bytes) });
        }
    }
}

extern "C" fn executed(processor: c_uint, what: *mut c_void) {
    counting::executed(usize::try_from(processor).unwrap_or_default(), what.addr());
}

/// The counters of one processor.
pub(crate) fn counts(processor: usize) -> Counts {
    let (Some(board), Ok(processor)) = (BOARD.get(), c_uint::try_from(processor)) else {
        return Counts::default();
    };
    // SAFETY: the board has an element for each processor.
    let element = unsafe { qemu_plugin_scoreboard_find(board.0, processor) };
    // SAFETY: an element is as large as a `Counts`, and aligned for it. It may be counted on meanwhile by another processor;
    // each counter is read whole.
    unsafe { element.cast::<Counts>().read_volatile() }
}

/// How many processors there are by now.
pub(crate) fn processors() -> usize {
    // SAFETY: may be called at any time.
    usize::try_from(unsafe { qemu_plugin_num_vcpus() }).unwrap_or_default()
}

/// The value of X0 to X30 of the processor that executes; of 31, which is the register of zeros, 0.
pub(crate) fn register(number: u8) -> u64 {
    let handle = HANDLES.get().and_then(|handles| handles.0.get(usize::from(number)).copied());
    let Some(handle @ 1..) = handle else { return 0 };
    // SAFETY: makes an array that is ours.
    let array = unsafe { g_byte_array_new() };
    // SAFETY: this is a callback that reads registers; the handle is QEMU's.
    let size = unsafe { qemu_plugin_read_register(std::ptr::without_provenance_mut(handle), array) };
    let mut bytes = [0; 8];
    if usize::try_from(size) == Ok(bytes.len()) {
        // SAFETY: QEMU has put eight bytes into the array.
        unsafe { std::ptr::copy_nonoverlapping((*array).data.cast(), bytes.as_mut_ptr(), bytes.len()) };
    }
    // SAFETY: the array is ours.
    unsafe { g_byte_array_unref(array) };
    u64::from_le_bytes(bytes)
}
