// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where the boot loader puts the files that Xen takes domains from.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::board::{Board, Region};

/// Kernels must be at a multiple of this (Linux, `Documentation/arch/arm64/booting.rst`); nothing else minds.
const ALIGNMENT: u64 = 2 << 20;

/// A file, and where it will be in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The file.
    pub file: PathBuf,
    /// Its place.
    pub region: Region,
}

/// All files that are loaded for Xen, each once.
#[derive(Debug)]
pub struct Modules {
    room: Region,
    loaded: Vec<Module>,
}

impl Modules {
    /// No files yet; they go where `board` has room for them.
    pub fn new(board: &Board) -> Self {
        Self { room: board.machine.modules.value, loaded: Vec::new() }
    }

    /// The place of `file`, which is `size` bytes long.
    ///
    /// # Errors
    ///
    /// There is no room left.
    pub fn place(&mut self, file: &Path, size: u64) -> anyhow::Result<Region> {
        if let Some(module) = self.loaded.iter().find(|module| module.file == file) {
            return Ok(module.region);
        }
        let free = self.loaded.last().map_or(self.room.base, |last| last.region.end());
        let region = Region { base: free.next_multiple_of(ALIGNMENT), size };
        ensure!(
            region.end() <= self.room.end(),
            "no room for {}: kernels, ramdisks and device trees are more than the {} MiB that the board has for them",
            file.display(),
            self.room.size >> 20
        );
        self.loaded.push(Module { file: file.to_owned(), region });
        Ok(region)
    }

    /// The place of `file`, whose size is asked of the file system.
    ///
    /// # Errors
    ///
    /// The file cannot be looked at, or there is no room left.
    pub fn place_file(&mut self, file: &Path) -> anyhow::Result<Region> {
        let size =
            std::fs::metadata(file).with_context(|| format!("cannot look at {}", file.display()))?.len();
        self.place(file, size)
    }

    /// All files.
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
    fn each_file_has_a_place_of_its_own_where_a_kernel_could_be() {
        let mut modules = Modules::new(&board());
        let first = modules.place(Path::new("a"), 1).unwrap();
        let second = modules.place(Path::new("b"), (2 << 20) + 1).unwrap();
        let third = modules.place(Path::new("c"), 1).unwrap();
        assert_eq!(first.base, board().machine.modules.value.base);
        assert_eq!([second.base - first.base, third.base - first.base], [2 << 20, 6 << 20]);
    }

    #[test]
    fn a_file_of_two_domains_is_loaded_once() {
        let mut modules = Modules::new(&board());
        let first = modules.place(Path::new("Image"), 10).unwrap();
        modules.place(Path::new("other"), 10).unwrap();
        assert_eq!(modules.place(Path::new("Image"), 10).unwrap(), first);
        assert_eq!(modules.all().len(), 2);
    }

    #[test]
    fn too_much_is_refused() {
        let mut modules = Modules::new(&board());
        let error = modules.place(Path::new("huge"), 1 << 30).unwrap_err();
        assert!(error.to_string().contains("no room for huge"), "{error}");
    }
}
