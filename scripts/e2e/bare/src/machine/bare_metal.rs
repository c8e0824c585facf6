// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The functions of [`machine`](super) in the guest.
//!
//! None of them can violate an assumption of Rust, except for a store to memory that Rust uses, which
//! [`store`] refuses.

#![allow(unsafe_code)]

use alloc::alloc::{Layout, alloc};
use core::arch::{asm, global_asm};
use core::ops::Range;
use core::slice;

use dtoolkit::fdt::Fdt;
use linked_list_allocator::LockedHeap;
use spin::Mutex;

use super::types::{Abort, GRANT_ENTRIES, GrantEntry, Width};

global_asm!(include_str!("start.s"));

/// The heap: memory that is neither image nor device tree.
#[global_allocator]
static HEAP: LockedHeap = LockedHeap::empty();

static DEVICE_TREE: Mutex<&[u8]> = Mutex::new(&[]);

/// The GiB that start.s maps as memory. The RAM of a guest begins at its start (Xen's public header
/// arch-arm.h: GUEST_RAM0_BASE), that of the driver domain within it.
const MEMORY: Range<u64> = 0x4000_0000..0x8000_0000;
/// The size of the stack of a CPU that [`start_cpu`] starts.
const STACK: usize = 128 << 10;
/// CPU_ON of Arm's PSCI (5.1.4) for 64-bit callers, which starts a CPU.
const CPU_ON: u64 = 0xc400_0003;

unsafe extern "C" {
    static image_start: u8;
    static data_start: u8;
    static image_end: u8;
    static attempt_start: u8;
    static attempt_end: u8;
    static attempt_failed: u8;
    fn another_cpu() -> !;
}

/// Initialises the device tree and the heap.
///
/// # Safety
/// `device_tree` is the address of a device tree that nothing writes to. The function is called once, before
/// any allocation.
pub(crate) unsafe fn initialise(device_tree: u64) {
    // SAFETY: the caller guarantees the address. The second word of the header is the size of the tree.
    let size = unsafe { (device_tree as *const [u8; 8]).read_unaligned() };
    let [.., a, b, c, d] = size;
    let size = u64::from(u32::from_be_bytes([a, b, c, d]));
    // SAFETY: as above. The heap does not overlap it.
    let bytes = unsafe { slice::from_raw_parts(device_tree as *const u8, size as usize) };
    *DEVICE_TREE.lock() = bytes;
    let room = free_memory(device_tree..device_tree + size);
    // SAFETY: this is unused RAM: it begins after the image and does not contain the device tree.
    unsafe { HEAP.lock().init(room.start as *mut u8, (room.end - room.start) as usize) };
}

/// Returns the larger part of the free RAM, below or above the device tree.
fn free_memory(taken: Range<u64>) -> Range<u64> {
    let start = (&raw const image_end) as u64;
    let end = ram().end;
    let (below, above) = (start..taken.start.min(end), taken.end.next_multiple_of(4096)..end);
    if below.end.saturating_sub(below.start) >= above.end.saturating_sub(above.start) { below } else { above }
}

/// Returns the RAM, as described by the device tree.
pub fn ram() -> Range<u64> {
    let found = Fdt::new(device_tree()).ok().and_then(|tree| {
        let memory = tree.memory().ok()?;
        let first = memory.reg().ok()??.next()?;
        let (base, size) = (first.address::<u64>().ok()?, first.size::<u64>().ok()?);
        Some(base..base + size)
    });
    found.unwrap_or(MEMORY.start..MEMORY.start)
}

/// Returns the part of this image that is never written: code and constants.
pub fn constant_image() -> Range<u64> {
    (&raw const image_start) as u64..(&raw const data_start) as u64
}

/// Returns the device tree from Xen.
pub fn device_tree() -> &'static [u8] {
    *DEVICE_TREE.lock()
}

// ---- Exceptions ----

/// The registers as start.s saves them at an exception.
#[repr(C)]
pub(crate) struct Registers {
    x: [u64; 31],
    elr: u64,
    spsr: u64,
    padding: u64,
    q: [u128; 32],
}

/// The index in the vector table of a synchronous exception from the current exception level with SP_ELx.
const SYNCHRONOUS: u64 = 4;
/// The index of an interrupt, likewise.
pub(crate) const INTERRUPT: u64 = 5;

/// Makes [`load`] or [`store`] return the abort if one of them caused it.
///
/// # Panics
/// At any other exception.
pub(crate) fn handle_abort(index: u64, registers: &mut Registers) {
    let (syndrome, address): (u64, u64);
    // SAFETY: reads two registers that exist at this exception level.
    unsafe {
        asm!("mrs {}, esr_el1", "mrs {}, far_el1", out(reg) syndrome, out(reg) address,
            options(nomem, nostack));
    }
    let attempts = (&raw const attempt_start) as u64..(&raw const attempt_end) as u64;
    if index == SYNCHRONOUS && attempts.contains(&registers.elr) {
        registers.elr = (&raw const attempt_failed) as u64;
        [registers.x[1], registers.x[2]] = [syndrome, address];
        return;
    }
    panic!("exception {index} at {:#x}: syndrome {syndrome:#x}, address {address:#x}", registers.elr);
}

// ---- Memory and devices ----

/// Loads from any address.
///
/// # Errors
/// Returns the abort if the access faulted.
pub fn load(address: u64, width: Width) -> Result<u64, Abort> {
    let (value, syndrome, fault);
    // SAFETY: one load, which has no effect on Rust's memory. If it faults, `handle_abort` makes it return.
    unsafe {
        asm!("bl attempt_load",
            inlateout("x0") address => value, inlateout("x1") width.bytes() => syndrome, lateout("x2") fault,
            out("x30") _, options(nostack));
    }
    if syndrome == 0 { Ok(value) } else { Err(Abort { syndrome, address: fault }) }
}

/// Stores to any address except the guest's own memory.
///
/// # Errors
/// Returns the abort if the access faulted.
///
/// # Panics
/// Panics if the address is in memory. [`Page`](crate::pages::Page) writes shared pages.
pub fn store(address: u64, width: Width, value: u64) -> Result<(), Abort> {
    assert!(!MEMORY.contains(&address), "{address:#x} is memory");
    let (syndrome, fault);
    // SAFETY: one store, not to memory that Rust uses. If it faults, `handle_abort` makes it return.
    unsafe {
        asm!("bl attempt_store",
            inlateout("x0") address => _, inlateout("x1") width.bytes() => syndrome,
            inlateout("x2") value => fault, out("x30") _, options(nostack));
    }
    if syndrome == 0 { Ok(()) } else { Err(Abort { syndrome, address: fault }) }
}

/// Completes all earlier accesses before any later one.
pub fn barrier() {
    // SAFETY: the instruction only orders accesses.
    unsafe { asm!("dsb sy", options(nostack)) };
}

// ---- CPU ----

/// Defines a function that reads a system register.
macro_rules! reads {
    ($(#[$doc:meta])* $name:ident, $register:literal) => {
        $(#[$doc])*
        pub fn $name() -> u64 {
            let value;
            // SAFETY: reads a register that exists at this exception level.
            unsafe { asm!("isb", concat!("mrs {}, ", $register), out(reg) value, options(nomem, nostack)) };
            value
        }
    };
}

/// Defines a function that writes a system register or executes an instruction without operands.
macro_rules! executes {
    ($(#[$doc:meta])* $name:ident, $($instruction:literal),+) => {
        $(#[$doc])*
        pub fn $name() {
            // SAFETY: no effect on memory, on registers that Rust uses, or on the flow of control.
            unsafe { asm!($($instruction),+, options(nostack)) };
        }
    };
}

reads!(
    /// Returns the virtual counter.
    counter,
    "cntvct_el0"
);
reads!(
    /// Returns the frequency of [`counter`] in Hz.
    frequency,
    "cntfrq_el0"
);
reads!(
    /// Acknowledges the most urgent interrupt. Returns its number, or one from 1020 on if there is none.
    acknowledge_interrupt,
    "icc_iar1_el1"
);
executes!(
    /// Waits until an interrupt is pending, masked or not.
    wait_for_interrupt,
    "dsb sy",
    "wfi"
);
executes!(
    /// Masks interrupts.
    mask_interrupts,
    "msr daifset, #2"
);
executes!(
    /// Unmasks interrupts.
    unmask_interrupts,
    "msr daifclr, #2",
    "isb"
);

/// Returns the number of this CPU.
pub fn cpu() -> usize {
    let value: u64;
    // SAFETY: reads a register that exists at this exception level.
    unsafe { asm!("mrs {}, mpidr_el1", out(reg) value, options(nomem, nostack, pure)) };
    (value & 0xff) as usize
}

/// Ends the handling of an acknowledged interrupt.
pub fn end_of_interrupt(number: u64) {
    // SAFETY: writes a register of the interrupt controller, which has no effect on memory.
    unsafe { asm!("msr icc_eoir1_el1, {}", in(reg) number, options(nostack)) };
}

/// Sends software-generated interrupt 0 to another CPU.
pub fn send_interrupt(cpu: usize) {
    // SAFETY: as above.
    unsafe { asm!("dsb sy", "msr icc_sgi1r_el1, {}", "isb", in(reg) 1u64 << cpu, options(nostack)) };
}

/// Enables the CPU interface for interrupts of any priority.
pub fn enable_cpu_interface() {
    // SAFETY: as above.
    unsafe {
        asm!("msr icc_sre_el1, {one}", "isb", "msr icc_pmr_el1, {all}", "msr icc_igrpen1_el1, {one}", "isb",
            one = in(reg) 1u64, all = in(reg) 0xf0u64, options(nostack));
    }
}

/// Makes the virtual timer interrupt when the counter reaches `at`. `None` disables it.
pub fn set_timer(at: Option<u64>) {
    // SAFETY: writes registers of the timer, which has no effect on memory.
    unsafe {
        asm!("msr cntv_cval_el0, {}", "msr cntv_ctl_el0, {}", "isb",
            in(reg) at.unwrap_or(u64::MAX), in(reg) u64::from(at.is_some()), options(nostack));
    }
}

// ---- Xen ----

/// The address of the grant table in a guest (Xen's public header arch-arm.h: GUEST_GNTTAB_BASE).
const GRANT_TABLE: u64 = 0x3800_0000;

/// Returns the grant table and its address. It can be accessed after Xen has mapped it there.
pub fn grant_table() -> (u64, &'static [GrantEntry; GRANT_ENTRIES]) {
    // SAFETY: start.s maps it as memory, it is never unmapped, and its fields are atomics.
    (GRANT_TABLE, unsafe { &*(GRANT_TABLE as *const [GrantEntry; GRANT_ENTRIES]) })
}

/// Makes a hypercall. `arguments` may be addresses that Xen reads or writes: the caller ensures that it may.
pub fn hypercall(number: u64, arguments: [u64; 4]) -> i64 {
    let [a, b, c, d] = arguments;
    let result;
    // SAFETY: Xen changes x0 to x4, x16, and the memory at the arguments: callers pass addresses of atomics.
    unsafe {
        asm!("hvc #0xea1",
            inlateout("x0") a => result, inlateout("x1") b => _, inlateout("x2") c => _,
            inlateout("x3") d => _, out("x4") _, inlateout("x16") number => _, options(nostack));
    }
    result
}

/// Starts a CPU. Returns the result of PSCI, 0 for success.
pub fn start_cpu(cpu: usize) -> i64 {
    let Ok(layout) = Layout::from_size_align(STACK, 4096) else { return -1 };
    // SAFETY: the layout is not empty. The memory is never freed.
    let stack = unsafe { alloc(layout) };
    if stack.is_null() {
        return -1;
    }
    let end = stack as u64 + STACK as u64;
    let result;
    // SAFETY: Xen, in the role of the firmware, starts the CPU at start.s with its own stack. The calling
    // convention (SMCCC) lets it change x0 to x17.
    unsafe {
        asm!("hvc #0",
            inlateout("x0") CPU_ON => result, inlateout("x1") cpu as u64 => _,
            inlateout("x2") another_cpu as *const () as u64 => _, inlateout("x3") end => _,
            clobber_abi("C"), options(nostack));
    }
    result
}
