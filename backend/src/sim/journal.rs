// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The journal of a simulated bus: one JSON line for each event.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// Appends lines to a file, numbered from 1.
#[derive(Debug, Default)]
pub struct Journal {
    file: Option<File>,
    sequence: u64,
}

#[derive(Serialize)]
struct NumberedEntry<'a, T> {
    seq: u64,
    bus: &'a str,
    #[serde(flatten)]
    entry: &'a T,
}

impl Journal {
    /// Opens `path` for appending.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Some(OpenOptions::new().create(true).append(true).open(path)?), sequence: 0 })
    }

    /// Appends `entry` of `bus`.
    pub fn append(&mut self, bus: &str, entry: &impl Serialize) {
        self.sequence += 1;
        let Some(file) = &mut self.file else { return };
        let line = NumberedEntry { seq: self.sequence, bus, entry };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            file.write_all(&text)
        });
        if let Err(error) = written {
            log::error!("entry {} cannot be written to the journal: {error}", self.sequence);
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
        journal.append("i2c", &json!({ "result": "ok" }));
        journal.append("i2c", &json!({ "result": "nak" }));
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(
            text,
            "{\"seq\":1,\"bus\":\"i2c\",\"result\":\"ok\"}\n{\"seq\":2,\"bus\":\"i2c\",\"result\":\"nak\"}\n"
        );
    }
}
