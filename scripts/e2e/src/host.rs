// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end outside: QEMU, what is behind its devices, and the console that all domains share.

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

/// How much longer everything takes on a machine that emulates another one and is busy besides. Only failures
/// take as long as this.
pub const PATIENCE: Duration = Duration::from_secs(120);
