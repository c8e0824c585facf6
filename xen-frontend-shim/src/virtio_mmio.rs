// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! virtio over MMIO, version 2 (virtio 1.3, 4.2): the registers that a guest's driver sees.
//!
//! ```text
//!   window ──▶ registers (offset → what is read and written) ──▶ transport (the state machine) ──▶ effect
//!                 driver_state (what the driver has written): status · features · queue · interrupt
//!                 config_space
//!              transport ◀─▶ [`State`]: all of it as plain data, for the next worker
//!              window ──▶ [`Device`]: what an effect is applied to
//! ```
//!
//! The transport does not depend on Xen, sockets or threads. `CONFORMANCE.md` lists the statements of the
//! specification with the tests in `tests/conformance`.

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
