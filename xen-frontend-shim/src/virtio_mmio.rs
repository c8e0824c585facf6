// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! virtio over MMIO, version 2 (virtio 1.3, 4.2): the registers that a guest's driver sees.
//!
//! ```text
//!   ioreq::bus ──▶ registers (the table: offset → what may be read, what written) ──▶ transport (the state machine)
//!                     session (what a driver has said) · status (the steps of initialisation, as data) · features
//!                     queue · config_space · interrupt
//!                  transport ──▶ [`Device`]: start, stop, kick, write_config: the only way out
//!                  transport ◀─▶ [`State`]: what it knows, for the next process to go on with
//! ```
//!
//! The transport knows nothing of Xen, of sockets or of threads. What it owes to the specification is listed in
//! `CONFORMANCE.md`, statement by statement, with the tests in `conformance`.

pub mod config_space;
pub mod device;
mod driver_state;
pub mod effect;
pub mod features;
pub mod interrupt;
pub mod queue;
pub mod registers;
pub mod state;
pub mod status;
pub mod transport;
pub mod width;

#[cfg(test)]
pub(crate) mod tests;

pub use device::{Device, Identity, Lost};
pub use effect::Effect;
pub use state::{RestoreError, State};
pub use transport::Transport;
pub use width::Width;
