// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attempts to open files as the user of a process of the driver domain. Prints a line for each attempt.

use std::fs::OpenOptions;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::arguments::Failure;

/// Tries to open each path for reading and writing, as `user`.
pub(super) fn open_as(user: u32, paths: &[&str]) -> Result<(), Failure> {
    become_user(user)?;
    for path in paths {
        report(path, &OpenOptions::new().read(true).write(true).open(path).map_err(Into::into));
    }
    Ok(())
}

/// Changes real, effective and saved user and group of this thread to the number `user`.
pub(super) fn become_user(user: u32) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Prints the result of an attempt.
pub(super) fn report<T>(what: &str, outcome: &Result<T, Failure>) {
    match outcome {
        Ok(_) => println!("{what}: done"),
        Err(error) => println!("{what}: refused: {error}"),
    }
}
