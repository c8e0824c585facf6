// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One transaction of a guest at a time, whatever number of its devices are on an adapter.
//!
//! The kernel serves those who wait for an adapter in the order in which they came (an rt_mutex, on which
//! processes that are not real-time ones have one priority). A guest that has eleven devices on it would have
//! eleven of twelve turns. So the daemons of a guest first take turns among themselves, by a lock on a file
//! of that guest and that adapter. The kernel releases it if a daemon ends. Daemons of another guest have
//! other files, which these cannot open, so that they can be held up by a transaction and by nothing else.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

/// What the daemons of a guest on an adapter have in common.
#[derive(Debug)]
pub struct Turn {
    /// An open file of its own: a lock belongs to that.
    file: File,
}

impl Turn {
    /// The turns at `adapter` of those who name the same `directory`, which is made if it is not there.
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

    /// Waits for the turn, and has it until what it returns is dropped.
    pub(super) fn wait(&self) -> Taken<'_> {
        if let Err(error) = retry_on_intr(|| flock(&self.file, FlockOperation::LockExclusive)) {
            log::error!("cannot wait for the turn of this guest at its adapter: {error}");
        }
        Taken(self)
    }
}

/// The turn. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a>(&'a Turn);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // It can only fail if it was not taken.
        let _ = flock(&self.0.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn one_of_a_directory_has_the_turn_at_an_adapter() {
        let root = tempfile::tempdir().unwrap();
        let open = |guest: &str, adapter| Turn::open(&root.path().join("run").join(guest), adapter).unwrap();
        let (first, second) = (open("a", "i2c-0"), open("a", "i2c-0"));
        let taken = first.wait();
        let is_free = |turn: &Turn| flock(&turn.file, FlockOperation::NonBlockingLockExclusive).is_ok();
        assert!(!is_free(&second));
        assert!(is_free(&open("a", "i2c-1")) && is_free(&open("b", "i2c-0")), "others are other files");
        let (has_it, hears) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _taken = second.wait();
                has_it.send(()).unwrap();
            });
            drop(taken);
            hears.recv().unwrap();
        });
        // Who ends without a word gives it back too.
        std::mem::forget(first.wait());
        drop(first);
        assert!(is_free(&open("a", "i2c-0")));
    }
}
