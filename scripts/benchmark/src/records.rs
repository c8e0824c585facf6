// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reading the records of the plugin.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use ledger::{Mark, Record};

/// The plugin's file, which grows during the run.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    read: u64,
}

impl Records {
    /// Creates a reader of this file.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// Returns the records since the last call.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not a file of records.
    pub fn new_ones(&mut self) -> Result<Vec<Record>> {
        let mut file = File::open(&self.path).context("cannot read the plugin's records")?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The plugin may be writing the last line.
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += u64::try_from(complete)?;
        let lines = text.get(..complete).unwrap_or_default().lines();
        lines.map(|line| serde_json::from_str(line).context("invalid record of the plugin")).collect()
    }
}

/// Returns the record of this mark in a domain.
#[must_use]
pub fn of(records: &[Record], domain: u16, mark: Mark) -> Option<&Record> {
    records.iter().rev().find(|record| record.domain == domain && record.mark == mark.number())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_incomplete_line_is_read_when_it_is_complete() {
        let path = std::env::temp_dir().join(format!("records-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        let mut records = Records::new(path.clone());
        let line = serde_json::to_string(&Record { requests: 5, ..Record::default() }).unwrap();
        let (first, second) = line.split_at(10);
        write!(file, "{line}\n{first}").unwrap();
        assert_eq!(records.new_ones().unwrap().len(), 1);
        writeln!(file, "{second}").unwrap();
        assert_eq!(records.new_ones().unwrap()[0].requests, 5);
        assert!(records.new_ones().unwrap().is_empty());
        std::fs::remove_file(path).unwrap();
    }
}
