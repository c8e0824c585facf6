// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The places of kernels, ramdisks, device trees and the policy in memory, where the boot loader loads them
//! for Xen.

use std::path::{Path, PathBuf};

use crate::board::{Board, Region};
use crate::error::Error;
use crate::kernel::UNIT;

/// A file and its place in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The file.
    pub file: PathBuf,
    /// The place.
    pub region: Region,
}

/// All files that the boot loader loads for Xen, each once.
#[derive(Debug)]
pub struct Modules {
    room: Region,
    loaded: Vec<Module>,
}

impl Modules {
    /// No files, in the room that `board` has for them.
    pub fn new(board: &Board) -> Self {
        Self { room: board.machine.modules.value, loaded: Vec::new() }
    }

    /// Gives `file`, of `size` bytes, a place at a multiple of [`UNIT`]. A file that has one keeps it.
    ///
    /// # Errors
    ///
    /// There is no room left.
    pub fn place(&mut self, file: &Path, size: u64) -> Result<Region, Error> {
        if let Some(module) = self.loaded.iter().find(|module| module.file == file) {
            return Ok(module.region);
        }
        let free = self.loaded.last().map_or(self.room.base, |last| last.region.end());
        let region = Region { base: free.next_multiple_of(UNIT), size };
        if region.end() > self.room.end() {
            return Err(Error::NoRoom { file: file.to_owned(), mib: self.room.size >> 20 });
        }
        self.loaded.push(Module { file: file.to_owned(), region });
        Ok(region)
    }

    /// Gives `file`, which exists, a place.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or there is no room left.
    pub fn place_file(&mut self, file: &Path) -> Result<Region, Error> {
        let metadata = std::fs::metadata(file).map_err(|error| Error::Read(file.to_owned(), error))?;
        self.place(file, metadata.len())
    }

    /// All files, in the order of their places.
    pub fn all(&self) -> &[Module] {
        &self.loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board::parse(include_str!("../boards/qemu-virt.toml")).unwrap()
    }

    #[test]
    fn files_are_placed_one_after_the_other_in_whole_units() {
        let mut modules = Modules::new(&board());
        let first = modules.place(Path::new("a"), 1).unwrap();
        let second = modules.place(Path::new("b"), (2 << 20) + 1).unwrap();
        let third = modules.place(Path::new("c"), 1).unwrap();
        assert_eq!(first.base, board().machine.modules.value.base);
        assert_eq!([second.base - first.base, third.base - first.base], [2 << 20, 6 << 20]);
    }

    #[test]
    fn file_that_is_placed_twice_keeps_its_place() {
        let mut modules = Modules::new(&board());
        let first = modules.place(Path::new("Image"), 10).unwrap();
        modules.place(Path::new("other"), 10).unwrap();
        assert_eq!(modules.place(Path::new("Image"), 10).unwrap(), first);
        assert_eq!(modules.all().len(), 2);
    }

    #[test]
    fn file_larger_than_the_room_is_refused() {
        let mut modules = Modules::new(&board());
        let error = modules.place(Path::new("huge"), 1 << 30).unwrap_err();
        assert!(error.to_string().contains("no room for huge"), "{error}");
    }
}
