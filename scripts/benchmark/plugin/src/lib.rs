// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A QEMU plugin that counts the instructions of each thread of each Xen domain:
//! `qemu-system-aarch64 -plugin libplugin.so,out=FILE`, and
//! `,turns=on` where processors take turns (`-icount`), and
//! then `,profile=on` to count by address, too.
//!
//! ```text
//!  QEMU ─▶ translated: what is this instruction? ─┬─▶ all: add 1 to a counter of the processor, inline
//!                                                 └─▶ some: a call ─▶ Ledger ─▶ a line of JSON in FILE
//! ```
//!
//! [`install`]: what QEMU calls; [`counting`]: what is counted; [`qemu`]: safe functions over [`api`], QEMU's
//! interface. What an instruction means and whose account it goes to is the crate `ledger`'s to say, where it
//! can be tested.

mod api;
mod counting;
mod install;
mod qemu;
