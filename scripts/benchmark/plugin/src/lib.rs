// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A QEMU plugin that counts the instructions of each thread of each Xen domain:
//! `qemu-system-aarch64 -plugin libplugin.so,out=FILE`. With `-icount`, processors take turns: add
//! `,turns=on`,
//! and `,profile=on` to count by address too.
//!
//! ```text
//!  QEMU ─▶ translated: what is this instruction? ─┬─▶ all: add 1 to a counter of the processor, inline
//!                                                 └─▶ some: a call ─▶ Ledger ─▶ a line of JSON in FILE
//! ```
//!
//! [`install`]: the functions that QEMU calls; [`counting`]: the actions for an instruction; [`qemu`]: safe
//! functions over [`api`], QEMU's interface. The crate `ledger` has the meaning and the account of an
//! instruction, because it can be tested there.

mod api;
mod counting;
mod install;
mod qemu;
