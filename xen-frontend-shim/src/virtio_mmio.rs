// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! virtio over MMIO, version 2 (virtio 1.3, 4.2): the registers that a guest's driver sees.
//!
//! ```text
//!   ioreq::bus ──▶ registers (offset → what may be read, what written) ──▶ transport (the state machine)
//!                     status (the steps of initialisation, as data) · features · queue · config_space · interrupt
//!                  transport ──▶ [`Device`]: start, stop, kick, write_config: the only way out
//! ```
//!
//! The transport knows nothing of Xen, of sockets or of threads.

pub mod config_space;
pub mod features;
pub mod interrupt;
pub mod queue;
pub mod registers;
pub mod status;
pub mod transport;

#[cfg(test)]
mod driver_tests;

pub use transport::{Device, Identity, Lost, Transport};
