// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same functions on the host, where the guest is checked and tested. Every access fails, and an
//! interrupt that is sent to another CPU is handled in the call that sends it.

use core::ops::Range;

#[cfg(test)]
use spin::Mutex;

use super::types::{Abort, GRANT_ENTRIES, GrantEntry, Width};

/// -ENOSYS, Xen's result of a hypercall that it does not have.
const NO_SUCH_CALL: i64 = -38;

/// There is no device tree.
#[must_use]
pub fn device_tree() -> &'static [u8] {
    &[]
}

/// There is no RAM.
#[must_use]
pub fn ram() -> Range<u64> {
    0..0
}

/// There is no image.
#[must_use]
pub fn constant_image() -> Range<u64> {
    0..0
}

/// Fails.
///
/// # Errors
/// Always.
pub fn load(address: u64, _: Width) -> Result<u64, Abort> {
    Err(Abort { syndrome: Abort::EXTERNAL, address })
}

/// Fails.
///
/// # Errors
/// Always.
pub fn store(address: u64, _: Width, _: u64) -> Result<(), Abort> {
    Err(Abort { syndrome: Abort::EXTERNAL, address })
}

/// Does nothing.
pub fn barrier() {}

/// Always 0.
#[must_use]
pub fn counter() -> u64 {
    0
}

/// Always 1, which can be a divisor.
#[must_use]
pub fn frequency() -> u64 {
    1
}

/// No interrupt is pending.
#[must_use]
pub fn acknowledge_interrupt() -> u64 {
    1023
}

/// Returns at once.
pub fn wait_for_interrupt() {}

/// Does nothing.
pub fn mask_interrupts() {}

/// Does nothing.
pub fn unmask_interrupts() {}

/// Always the first CPU.
#[must_use]
pub fn cpu() -> usize {
    0
}

/// Does nothing.
pub fn end_of_interrupt(_: u64) {}

/// What a CPU does when an interrupt is sent to it.
#[cfg(test)]
static ON_INTERRUPT: Mutex<fn(usize)> = Mutex::new(|_| ());

/// Sets what a CPU does when an interrupt is sent to it.
#[cfg(test)]
pub(crate) fn on_interrupt(handle: fn(usize)) {
    *ON_INTERRUPT.lock() = handle;
}

/// Lets the CPU handle the interrupt.
#[cfg(test)]
pub fn send_interrupt(cpu: usize) {
    let handle = *ON_INTERRUPT.lock();
    handle(cpu);
}

/// Does nothing.
#[cfg(not(test))]
pub fn send_interrupt(_: usize) {}

/// Does nothing.
pub fn enable_cpu_interface() {}

/// Does nothing.
pub fn set_timer(_: Option<u64>) {}

/// Fails: there is no Xen.
#[must_use]
pub fn hypercall(_: u64, _: [u64; 4]) -> i64 {
    NO_SUCH_CALL
}

/// Fails: there is no other CPU.
#[must_use]
pub fn start_cpu(_: usize) -> i64 {
    NO_SUCH_CALL
}

/// A table that Xen does not read.
#[must_use]
pub fn grant_table() -> (u64, &'static [GrantEntry; GRANT_ENTRIES]) {
    static TABLE: [GrantEntry; GRANT_ENTRIES] = [const { GrantEntry::new() }; GRANT_ENTRIES];
    (0, &TABLE)
}
