// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A file that grows, such as a log.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::{Errno, read};

use super::source::Source;
use crate::watch::Watcher;

/// The token of the notifications.
const CHANGES: u32 = 0;

/// Maximum number of bytes of one read.
const READ: usize = 4096;

/// A regular file, and notifications of its changes.
pub struct LogFile {
    file: File,
    changes: OwnedFd,
    /// The offset of the next byte.
    offset: u64,
}

impl LogFile {
    /// Opens the file at `path` at its start.
    ///
    /// # Errors
    /// When it cannot be read, or is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let changes = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        add_watch(&changes, path, WatchFlags::MODIFY)?;
        Ok(Self { file, changes, offset: 0 })
    }
}

impl Source for LogFile {
    fn read(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        if self.file.metadata()?.len() < self.offset {
            log::info!("the source was truncated: it is read from its start");
            text.extend_from_slice(b"[the file was truncated]\n");
            self.offset = 0;
        }
        let mut bytes = [0; READ];
        let count = self.file.read_at(&mut bytes, self.offset)?;
        text.extend_from_slice(bytes.get(..count).unwrap_or_default());
        self.offset += u64::try_from(count).unwrap_or(0);
        Ok(())
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        watcher.add(&self.changes, CHANGES)
    }

    /// Takes all notifications. The device then reads the file.
    fn handle_event(&mut self, _token: u32) -> io::Result<()> {
        let mut notifications = [0; READ];
        loop {
            match read(&self.changes, &mut notifications) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn position(&self) -> Option<u64> {
        (self.offset > 0).then_some(self.offset)
    }

    fn set_position(&mut self, position: u64) {
        self.offset = position;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    fn all(file: &mut LogFile) -> String {
        let mut text = Vec::new();
        loop {
            let before = text.len();
            file.read(&mut text).unwrap();
            if text.len() == before {
                return String::from_utf8(text).unwrap();
            }
        }
    }

    #[test]
    fn a_file_is_read_from_its_start_and_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let long = "line\n".repeat(READ);
        std::fs::write(&path, &long).unwrap();
        let mut file = LogFile::open(&path).unwrap();
        assert_eq!(all(&mut file), long);
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        writer.write_all(b"one more\n").unwrap();
        file.handle_event(CHANGES).unwrap();
        assert_eq!(all(&mut file), "one more\n");
        let mut next = LogFile::open(&path).unwrap();
        next.set_position(file.position().unwrap());
        writer.write_all(b"another\n").unwrap();
        assert_eq!(all(&mut next), "another\n");
        writer.set_len(0).unwrap();
        writer.write_all(b"new\n").unwrap();
        assert_eq!(all(&mut next), "[the file was truncated]\nnew\n");
    }
}
