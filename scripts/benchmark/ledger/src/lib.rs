// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The accounts of executed instructions, by party.
//!
//! ```text
//!  QEMU translates an instruction ─▶ Class (by its address) + what runs now ─▶ its account
//!                                    Special (by its opcode)
//!  QEMU executes it ───────────────▶ Counts of that account: an addition, no call
//!  … which is a program's mark ────▶ Ledger: a Record of all accounts at that time
//! ```
//!
//! The party of an instruction is determined when QEMU translates it: Xen, or the domain in whose memory the
//! kernel or program is. Later switches of domains and threads need not be followed. Two registers give what
//! runs at that time: VTTBR_EL2 the domain (its VMID), CONTEXTIDR_EL1 the thread (if Linux is built with
//! CONFIG_PID_IN_CONTEXTIDR). [`counts`] has the counters, [`opcode`] recognises instructions with a meaning
//! of
//! their own, [`book`] has the accounts, [`record`] the format of the output, [`mark`] the marks of programs.

pub mod book;
pub mod counts;
pub mod mark;
pub mod opcode;
pub mod profile;
pub mod record;

pub use book::Ledger;
pub use counts::{Class, Counts, Kind};
pub use mark::Mark;
pub use record::{Account, Party, Record};
