// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reads a manifest and its board file, and refuses what [`crate::validate`] finds wrong.

use std::fmt;
use std::io::IsTerminal;
use std::path::Path;

use annotate_snippets::Renderer;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::DeviceTree;

use crate::board::Board;
use crate::diagnostics::{Diagnostic, Source, render};
use crate::error::Error;
use crate::manifest::Manifest;
use crate::plan::Plan;
use crate::validate;

/// The errors in a manifest or a board file.
#[derive(Debug)]
pub struct Refusal {
    source: Source,
    found: Vec<Diagnostic>,
}

impl Refusal {
    fn new(source: &Source, found: Vec<Diagnostic>) -> Self {
        Self { source: source.clone(), found }
    }

    /// Refuses `source` if `found` is not empty.
    fn check(source: &Source, found: Vec<Diagnostic>) -> Result<(), Self> {
        if found.is_empty() { Ok(()) } else { Err(Self::new(source, found)) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = match self.found.len() {
            1 => "one error".to_owned(),
            count => format!("{count} errors"),
        };
        let found = rendered(&self.found, &self.source);
        write!(f, "{found}\n{}: {count}, nothing was written", self.source.path)
    }
}

impl std::error::Error for Refusal {}

/// The text for standard error.
fn rendered(found: &[Diagnostic], source: &Source) -> String {
    let renderer = if std::io::stderr().is_terminal() { Renderer::styled() } else { Renderer::plain() };
    render(found, source, &renderer)
}

/// A manifest that was accepted, and its board.
#[derive(Debug)]
pub struct Loaded {
    /// The manifest.
    pub manifest: Manifest,
    /// The board.
    pub board: Board,
    source: Source,
    board_source: Source,
}

impl Loaded {
    /// Assigns domids, addresses and interrupts.
    ///
    /// # Errors
    ///
    /// [`Error::NoPlan`], if the validation accepts what cannot be planned.
    pub fn plan(&self) -> Result<Plan<'_>, Error> {
        Plan::new(&self.manifest, &self.board).ok_or(Error::NoPlan)
    }

    /// What the manifest gives away on purpose, as a text for standard error. None if there is nothing.
    pub fn warnings(&self) -> Option<String> {
        let found = validate::warnings(&self.manifest);
        (!found.is_empty()).then(|| rendered(&found, &self.source))
    }

    /// Checks the files in `directory` that the manifest names.
    ///
    /// # Errors
    ///
    /// They are missing, or Xen does not start a domain from them.
    pub fn require_files(&self, directory: &Path) -> Result<(), Refusal> {
        Refusal::check(&self.source, validate::files(&self.manifest, &self.board, directory))
    }

    /// Checks the room for the kernels in `directory` and a ramdisk of the driver domain of `ramdisk` bytes.
    ///
    /// # Errors
    ///
    /// The domain's memory or the board's room for files is too small.
    pub fn require_room(&self, directory: &Path, ramdisk: u64) -> Result<(), Refusal> {
        let found = validate::driver_domain_room(&self.manifest, &self.board, directory, ramdisk);
        Refusal::check(&self.source, found)
    }

    /// Reads `dtb`, the board's device tree, and compares it with the board file.
    ///
    /// # Errors
    ///
    /// It is not a device tree, or the two contradict each other.
    pub fn host(&self, plan: &Plan<'_>, dtb: &[u8]) -> Result<DeviceTree, Error> {
        let fdt = Fdt::new(dtb)?;
        Refusal::check(&self.board_source, validate::host(plan, &fdt))?;
        Ok(DeviceTree::from_fdt(&fdt))
    }
}

/// Reads the manifest at `path` and its board file.
///
/// # Errors
///
/// They cannot be read, or are refused.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::Read(path.to_owned(), error))?;
    let source = Source { path: path.display().to_string(), text };
    let manifest = Manifest::parse(&source.text).map_err(|found| Refusal::new(&source, found))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let board_source =
        Board::source(&manifest.board, directory).map_err(|found| Refusal::new(&source, vec![found]))?;
    let board = Board::parse(&board_source.text).map_err(|found| Refusal::new(&board_source, found))?;
    Refusal::check(&board_source, validate::board(&board))?;
    Refusal::check(&source, validate::validate(&manifest, &board))?;
    Ok(Loaded { manifest, board, source, board_source })
}
