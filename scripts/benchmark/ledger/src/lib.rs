// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whose instruction it was.
//!
//! ```text
//!  QEMU translates an instruction ─▶ Class (by its address) + Special (by its opcode)
//!  QEMU executes it ───────────────▶ Counts of that processor: one addition, no call
//!  … which switches to another ────▶ Ledger: what was counted goes to the party that ran until then
//!  … which is a program's mark ────▶ Ledger: a Record, of all accounts at that moment
//! ```
//!
//! A party is a thread of a domain. Xen says which domain runs by writing VTTBR_EL2, Linux which thread by writing
//! CONTEXTIDR_EL1 (if it is built with CONFIG_PID_IN_CONTEXTIDR). [`opcode`] recognises these instructions, [`counts`] has
//! what is counted, [`book`] the accounts, [`record`] what is written of them, [`mark`] what a program can say.

pub mod book;
pub mod counts;
pub mod mark;
pub mod opcode;
pub mod record;

pub use book::Ledger;
pub use counts::{Class, Counts, Kind};
pub use mark::Mark;
pub use record::{Account, Party, Record};
