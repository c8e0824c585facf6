// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Marks for the plugin of the benchmark (scripts/benchmark/ledger): an instruction that does nothing where
//! no plugin looks at it.

#![allow(unsafe_code)] // One instruction that no safe function stands for.

use ledger::Mark;

/// Makes a mark.
#[inline]
pub fn mark(mark: Mark) {
    let number = mark.number();
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the architecture gives this hint no meaning: it is executed as NOP. Nothing is read or written;
    // that it is not said so keeps the compiler from moving accesses past the mark.
    unsafe {
        std::arch::asm!("hint #119", in("x0") number, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    let _ = number;
}
