// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Turns of the daemons of a guest at an adapter, so that a guest has one transaction at a time.
//!
//! The kernel serves processes that wait for an adapter in the order in which they came (an rt_mutex, for
//! which processes without real-time scheduling have one priority). A guest with eleven devices there would
//! have eleven of twelve turns. Therefore the daemons of a guest take turns by a lock on a file of that guest
//! and adapter. The kernel releases the lock of a daemon that ends. Daemons of another guest have other
//! files, which these cannot open.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

/// The turns of a guest's daemons at an adapter.
#[derive(Debug)]
pub struct BusTurn {
    /// An open file description of its own, to which the lock belongs.
    file: File,
}

impl BusTurn {
    /// Opens the turns at `adapter` of the daemons with the same `directory`, which is created if it does not
    /// exist.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(directory: &Path, adapter: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).open(directory.join(adapter))?;
        Ok(Self { file })
    }

    /// Waits for the turn, which lasts until the returned guard is dropped.
    pub(super) fn lock(&self) -> TurnGuard<'_> {
        if let Err(error) = retry_on_intr(|| flock(&self.file, FlockOperation::LockExclusive)) {
            log::error!("cannot lock the turn of this guest at its adapter: {error}");
        }
        TurnGuard(self)
    }
}

/// A turn, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct TurnGuard<'a>(&'a BusTurn);

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        // Fails only if the lock was not taken.
        let _ = flock(&self.0.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn one_daemon_of_a_guest_has_the_turn_at_an_adapter() {
        let root = tempfile::tempdir().unwrap();
        let open =
            |guest: &str, adapter| BusTurn::open(&root.path().join("run").join(guest), adapter).unwrap();
        let (first, second) = (open("a", "i2c-0"), open("a", "i2c-0"));
        let guard = first.lock();
        let is_free = |turn: &BusTurn| flock(&turn.file, FlockOperation::NonBlockingLockExclusive).is_ok();
        assert!(!is_free(&second));
        assert!(is_free(&open("a", "i2c-1")) && is_free(&open("b", "i2c-0")), "these are other files");
        let (locked, wait) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _guard = second.lock();
                locked.send(()).unwrap();
            });
            drop(guard);
            wait.recv().unwrap();
        });
        // The lock of a daemon that dies is released.
        std::mem::forget(first.lock());
        drop(first);
        assert!(is_free(&open("a", "i2c-0")));
    }
}
