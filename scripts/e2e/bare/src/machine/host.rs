// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The functions of [`machine`](super) on the host, for checks and tests. Every access fails. An interrupt to
//! another CPU is handled in the call that sends it.

use core::ops::Range;

#[cfg(test)]
use spin::Mutex;

use super::types::{Abort, GRANT_ENTRIES, GrantEntry, Width};

/// -ENOSYS, Xen's result of an unknown hypercall.
const NO_SUCH_CALL: i64 = -38;

/// Returns an empty device tree.
#[must_use]
pub fn device_tree() -> &'static [u8] {
    &[]
}

/// Returns an empty range.
#[must_use]
pub fn ram() -> Range<u64> {
    0..0
}

/// Returns an empty range.
#[must_use]
pub fn constant_image() -> Range<u64> {
    0..0
}

/// Fails.
///
/// # Errors
/// Always returns an error.
pub fn load(address: u64, _: Width) -> Result<u64, Abort> {
    Err(Abort { syndrome: Abort::EXTERNAL, address })
}

/// Fails.
///
/// # Errors
/// Always returns an error.
pub fn store(address: u64, _: Width, _: u64) -> Result<(), Abort> {
    Err(Abort { syndrome: Abort::EXTERNAL, address })
}

/// Does nothing.
pub fn barrier() {}

/// Returns 0.
#[must_use]
pub fn counter() -> u64 {
    0
}

/// Returns 1, which can be a divisor.
#[must_use]
pub fn frequency() -> u64 {
    1
}

/// Returns no interrupt.
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

/// Returns the number of the first CPU.
#[must_use]
pub fn cpu() -> usize {
    0
}

/// Does nothing.
pub fn end_of_interrupt(_: u64) {}

/// The function that handles an interrupt to a CPU, given its number.
#[cfg(test)]
static ON_INTERRUPT: Mutex<fn(usize)> = Mutex::new(|_| ());

/// Sets the function that handles an interrupt to a CPU.
#[cfg(test)]
pub(crate) fn on_interrupt(handle: fn(usize)) {
    *ON_INTERRUPT.lock() = handle;
}

/// Handles the interrupt at once.
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

/// Fails with -ENOSYS.
#[must_use]
pub fn hypercall(_: u64, _: [u64; 4]) -> i64 {
    NO_SUCH_CALL
}

/// Fails with -ENOSYS.
#[must_use]
pub fn start_cpu(_: usize) -> i64 {
    NO_SUCH_CALL
}

/// Returns a table that Xen does not use.
#[must_use]
pub fn grant_table() -> (u64, &'static [GrantEntry; GRANT_ENTRIES]) {
    static TABLE: [GrantEntry; GRANT_ENTRIES] = [const { GrantEntry::new() }; GRANT_ENTRIES];
    (0, &TABLE)
}
