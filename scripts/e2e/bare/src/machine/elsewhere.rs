// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same functions on the machine that builds the guest: no device is there, and every access finds that out. Other
//! CPUs are, and take no time: they do what they are given in the call that wakes them.

use core::ops::Range;

use super::{Abort, GRANT_ENTRIES, GrantEntry, Width};
use crate::jobs;

/// What Xen says of a hypercall that it does not have.
const NO_SUCH_CALL: i64 = -38;

/// There is none.
#[must_use]
pub fn device_tree() -> &'static [u8] {
    &[]
}

/// There is none.
#[must_use]
pub fn ram() -> Range<u64> {
    0..0
}

/// There is none.
#[must_use]
pub fn constant_image() -> Range<u64> {
    0..0
}

/// # Errors
/// Always.
pub fn load(address: u64, _: Width) -> Result<u64, Abort> {
    Err(Abort { syndrome: Abort::EXTERNAL, address })
}

/// # Errors
/// Always.
pub fn store(address: u64, _: Width, _: u64) -> Result<(), Abort> {
    Err(Abort { syndrome: Abort::EXTERNAL, address })
}

/// Nothing to order.
pub fn barrier() {}

/// Time stands still.
#[must_use]
pub fn counter() -> u64 {
    0
}

/// Something to divide by.
#[must_use]
pub fn frequency() -> u64 {
    1
}

/// None is pending.
#[must_use]
pub fn acknowledge_interrupt() -> u64 {
    1023
}

/// None will come.
pub fn wait_for_interrupt() {}

/// There are none.
pub fn mask_interrupts() {}

/// There are none.
pub fn unmask_interrupts() {}

/// The only one.
#[must_use]
pub fn cpu() -> usize {
    0
}

/// There was none.
pub fn end_of_interrupt(_: u64) {}

/// That CPU does what it has been given, before this returns.
pub fn send_interrupt(cpu: usize) {
    jobs::serve(cpu);
}

/// There is none.
pub fn enable_cpu_interface() {}

/// There is none.
pub fn set_timer(_: Option<u64>) {}

/// Xen is not there.
#[must_use]
pub fn hypercall(_: u64, _: [u64; 4]) -> i64 {
    NO_SUCH_CALL
}

/// That CPU is there from now on.
#[must_use]
pub fn start_cpu(cpu: usize) -> i64 {
    jobs::arrive(cpu);
    0
}

/// One that nobody reads.
#[must_use]
pub fn grant_table() -> (u64, &'static [GrantEntry; GRANT_ENTRIES]) {
    static TABLE: [GrantEntry; GRANT_ENTRIES] = [const { GrantEntry::new() }; GRANT_ENTRIES];
    (0, &TABLE)
}
