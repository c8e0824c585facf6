// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the driver domain's processes could open: each attempt on a line of its own.

use std::fs::OpenOptions;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::arguments::Failure;

/// Tries to open each path for reading and writing, as the user that a daemon runs as.
pub(super) fn open_as(user: u32, paths: &[&str]) -> Result<(), Failure> {
    become_user(user)?;
    for path in paths {
        say(path, &OpenOptions::new().read(true).write(true).open(path).map_err(Into::into));
    }
    Ok(())
}

/// Becomes a user, and the group of the same number, for good.
pub(super) fn become_user(user: u32) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

pub(super) fn say<T>(what: &str, outcome: &Result<T, Failure>) {
    match outcome {
        Ok(_) => println!("{what}: done"),
        Err(error) => println!("{what}: refused: {error}"),
    }
}
