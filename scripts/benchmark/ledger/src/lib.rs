// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whose instruction it was.
//!
//! ```text
//!  QEMU translates an instruction ─▶ Class (by its address) + what runs now ─▶ its account
//!                                    Special (by its opcode)
//!  QEMU executes it ───────────────▶ Counts of that account: an addition, no call
//!  … which is a program's mark ────▶ Ledger: a Record, of all accounts at that moment
//! ```
//!
//! Code belongs to who executes it first: Xen to itself, a kernel and a program to the domain in whose memory
//! they are. So the account is known when an instruction is translated, and later switches need not be
//! followed. Two registers name what runs at that time: VTTBR_EL2 the domain (by its VMID), CONTEXTIDR_EL1
//! the thread (if Linux is built with CONFIG_PID_IN_CONTEXTIDR). [`counts`] has what is counted, [`opcode`]
//! recognises instructions that are more than one more instruction, [`book`] has the accounts, [`record`]
//! what is written of them, [`mark`] what a program can say.

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
