// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where the text for the guest comes from.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;

use super::file::LogFile;
use super::kmsg::KernelLog;
use super::unix::{Responder, Word};
use crate::watch::Watcher;

/// A source of text. It is opened before the daemon gives up its privileges, and does not block.
pub trait Source: Send {
    /// Appends more text to `text`, at most [`PIECE`] bytes. Appends nothing if there is no more for now.
    ///
    /// # Errors
    /// When the source has failed for good, or has ended.
    fn read(&mut self, text: &mut Vec<u8>) -> io::Result<()>;

    /// Adds descriptors to `watcher`, with tokens of its choice. Called once.
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    fn watch(&mut self, watcher: &Watcher) -> io::Result<()>;

    /// Handles an event of the descriptor that it watches as `token`.
    ///
    /// # Errors
    /// When the source has failed for good, or has ended.
    fn handle_event(&mut self, _token: u32) -> io::Result<()> {
        Ok(())
    }

    /// The device waits for text, or no longer does. A source that has text is read until it has no more
    /// before the device waits.
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    fn set_awaited(&mut self, _awaited: bool) -> io::Result<()> {
        Ok(())
    }

    /// Takes a line that the guest wrote.
    ///
    /// # Errors
    /// When the source has failed for good, or has ended.
    fn request(&mut self, _line: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// The driver has reset the device: drops the requests of that driver.
    fn reset(&mut self) {}

    /// Returns the position after all text that was read. It is never 0.
    fn position(&self) -> Option<u64> {
        None
    }

    /// Continues at a position that [`position`](Self::position) of a former daemon returned. It may be
    /// wrong.
    fn set_position(&mut self, _position: u64) {}
}

/// Maximum length in bytes of what one [`Source::read`] appends.
pub const PIECE: usize = 64 * 1024;

/// A source as the operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceName {
    /// The log of this kernel.
    Kmsg,
    /// A file that grows.
    File(PathBuf),
    /// A socket of type SOCK_SEQPACKET that answers requests.
    Unix(PathBuf),
}

/// The error for a text that names no source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a source is given as kmsg, file:PATH or unix:PATH")]
pub struct NoSource;

impl FromStr for SourceName {
    type Err = NoSource;

    fn from_str(text: &str) -> Result<Self, NoSource> {
        match text.split_once(':') {
            None if text == "kmsg" => Ok(Self::Kmsg),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(NoSource),
        }
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kmsg => formatter.write_str("kmsg"),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl SourceName {
    /// Opens the source. Only `requests` of a guest reach a socket.
    ///
    /// # Errors
    /// When it cannot be opened, or does not take requests.
    pub fn open(&self, requests: &[Word]) -> anyhow::Result<Box<dyn Source>> {
        let takes_requests = matches!(self, Self::Unix(_));
        anyhow::ensure!(
            takes_requests || requests.is_empty(),
            "--source={self} takes no requests: remove --request, or name a source unix:PATH"
        );
        anyhow::ensure!(
            !takes_requests || !requests.is_empty(),
            "--source={self} needs the words that a guest may send to it: name them with --request"
        );
        let opened: io::Result<Box<dyn Source>> = match self {
            Self::Kmsg => KernelLog::open().map(|log| Box::new(log) as _),
            Self::File(path) => LogFile::open(path).map(|file| Box::new(file) as _),
            Self::Unix(path) => Responder::connect(path, requests).map(|socket| Box::new(socket) as _),
        };
        opened.with_context(|| format!("cannot open --source={self}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_as_it_is_written() {
        for text in ["kmsg", "file:/var/log/a:b", "unix:/run/status"] {
            assert_eq!(text.parse::<SourceName>().unwrap().to_string(), text);
        }
        for text in ["", "kmsg:", "file", "file:", "unix:", "/dev/kmsg", "tcp:1"] {
            assert_eq!(text.parse::<SourceName>(), Err(NoSource), "{text}");
        }
    }

    #[test]
    fn only_a_socket_takes_requests() {
        let error = |name: &str, requests: &[&str]| {
            let words: Vec<_> = requests.iter().map(|word| word.parse().unwrap()).collect();
            let opened = name.parse::<SourceName>().unwrap().open(&words);
            format!("{:#}", opened.err().unwrap())
        };
        assert!(error("file:/nowhere", &["json"]).contains("takes no requests"));
        assert!(error("unix:/nowhere", &[]).contains("name them with --request"));
        assert!(error("unix:/nowhere", &["json"]).contains("--source=unix:/nowhere: No such file"));
        assert!(error("file:/nowhere", &[]).contains("--source=file:/nowhere: No such file"));
        assert!(error("file:/", &[]).contains("not a regular file"));
    }
}
