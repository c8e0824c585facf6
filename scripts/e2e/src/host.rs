// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's end: QEMU, the simulated board, and the console that all domains share.

pub mod board;
pub mod census;
pub mod channel;
pub mod console;
pub mod event_channels;
pub mod grants;
pub mod machine;
pub mod process;
pub mod qmp;
pub mod view;

use std::time::Duration;

/// The limit of a wait for a boot or an agent: long enough for a busy host that emulates the board. Only a
/// failure takes that long.
pub const PATIENCE: Duration = Duration::from_secs(120);
