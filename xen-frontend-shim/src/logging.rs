// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The log: to standard error, a line for each message, with the guest's name in front where there is one.

use std::io::{Write, stderr};

use env_logger::{Builder, Env};
use rustix::fs::{FileType, fstat};

/// Starts the log of this process. `guest` is the one whose messages these are; RUST_LOG sets the level.
pub fn start(guest: Option<&str>) {
    let prefix = guest.map(|name| format!("{name}: ")).unwrap_or_default();
    Builder::from_env(Env::default().default_filter_or("info"))
        .format(move |out, record| writeln!(out, "{:<5} {prefix}{}", record.level(), record.args()))
        .init();
}

/// Whether what is logged makes a file grow.
#[must_use]
pub fn is_to_file() -> bool {
    fstat(stderr()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}
