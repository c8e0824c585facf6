// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The record of everything that happened on a simulated bus: JSON lines, each complete when it is in the file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// Writes one line per transaction, numbered from 1.
#[derive(Debug, Default)]
pub struct Journal {
    file: Option<File>,
    sequence: u64,
}

#[derive(Serialize)]
struct Line<'a, T> {
    seq: u64,
    bus: &'a str,
    #[serde(flatten)]
    entry: &'a T,
}

impl Journal {
    /// Appends to `path`.
    ///
    /// # Errors
    /// When the file cannot be opened for that.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Some(OpenOptions::new().create(true).append(true).open(path)?), sequence: 0 })
    }

    /// Writes down `entry`, which happened on `bus`.
    pub fn record(&mut self, bus: &str, entry: &impl Serialize) {
        self.sequence += 1;
        let Some(file) = &mut self.file else { return };
        let line = Line { seq: self.sequence, bus, entry };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            file.write_all(&text)
        });
        if let Err(error) = written {
            log::error!("the journal misses entry {}: {error}", self.sequence);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_numbered_and_appended() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut journal = Journal::append_to(file.path()).unwrap();
        journal.record("i2c", &json!({ "result": "ok" }));
        journal.record("i2c", &json!({ "result": "nak" }));
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(
            text,
            "{\"seq\":1,\"bus\":\"i2c\",\"result\":\"ok\"}\n{\"seq\":2,\"bus\":\"i2c\",\"result\":\"nak\"}\n"
        );
    }
}
