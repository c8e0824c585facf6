// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Marks for the plugin of the benchmark (scripts/benchmark/ledger): an instruction without effect, which the
//! plugin counts.

#![allow(unsafe_code)] // For one instruction that no safe function executes.

use ledger::Mark;

/// Executes a mark.
#[inline]
pub fn mark(mark: Mark) {
    let number = mark.number();
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the architecture does not allocate this hint: it executes as NOP and accesses no memory. The
    // option `nomem` is left out, so that the compiler moves no memory access past the mark.
    unsafe {
        std::arch::asm!("hint #119", in("x0") number, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    let _ = number;
}
