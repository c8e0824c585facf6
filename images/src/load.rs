// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From the path of a manifest to a manifest and a board that go together, or to what is wrong with them.

use std::fmt;
use std::io::IsTerminal;
use std::path::Path;

use annotate_snippets::Renderer;
use anyhow::Context;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::DeviceTree;

use crate::board::Board;
use crate::diagnostics::{Diagnostic, Source, render};
use crate::manifest::Manifest;
use crate::plan::Plan;
use crate::validate;

/// Why a manifest was refused.
#[derive(Debug)]
pub struct Refusal {
    source: Source,
    found: Vec<Diagnostic>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = if std::io::stderr().is_terminal() { Renderer::styled() } else { Renderer::plain() };
        let count = match self.found.len() {
            1 => "one mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        let found = render(&self.found, &self.source, &renderer);
        write!(f, "{found}\n{}: {count}, nothing was written", self.source.path)
    }
}

impl std::error::Error for Refusal {}

/// A manifest that can be built, its board, and its text for what is still found wrong with it.
#[derive(Debug)]
pub struct Loaded {
    /// The manifest.
    pub manifest: Manifest,
    /// Its board.
    pub board: Board,
    source: Source,
    board_source: Source,
}

impl Loaded {
    /// Gives everything its place.
    ///
    /// # Errors
    ///
    /// The builder contradicts itself: what was validated can be planned.
    pub fn plan(&self) -> anyhow::Result<Plan<'_>> {
        Plan::new(&self.manifest, &self.board).context("the manifest was validated but cannot be planned")
    }

    /// Refuses the manifest if a file that it names is not in `directory`, or is one that Xen does not start a domain from.
    ///
    /// # Errors
    ///
    /// What is wrong with which files, where the manifest has them.
    pub fn require_files(&self, directory: &Path) -> Result<(), Refusal> {
        refuse_if_any(&self.source, validate::files(&self.manifest, &self.board, directory))
    }

    /// Refuses the manifest if the driver domain has no room for its kernel, in `directory`, and a ramdisk of `ramdisk`
    /// bytes.
    ///
    /// # Errors
    ///
    /// How much memory it takes.
    pub fn require_room(&self, directory: &Path, ramdisk: u64) -> Result<(), Refusal> {
        let found = validate::driver_domain_room(&self.manifest, &self.board, directory, ramdisk);
        refuse_if_any(&self.source, found)
    }

    /// Reads `dtb`, the board's device tree, and refuses the board file if the two contradict each other.
    ///
    /// # Errors
    ///
    /// It is no device tree; or what contradicts it, where the board file has it.
    pub fn host(&self, plan: &Plan<'_>, dtb: &[u8]) -> anyhow::Result<DeviceTree> {
        let fdt = Fdt::new(dtb).context("the board's device tree cannot be read")?;
        refuse_if_any(&self.board_source, validate::host(plan, &fdt))?;
        Ok(DeviceTree::from_fdt(&fdt))
    }
}

/// Reads a manifest and its board, and validates the one on the other.
///
/// # Errors
///
/// A [`Refusal`] that lists every mistake; or that the file cannot be read.
pub fn load(path: &Path) -> anyhow::Result<Loaded> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let source = Source { path: path.display().to_string(), text };
    let refuse = |source: &Source, found| Refusal { source: source.clone(), found };
    let manifest = Manifest::parse(&source.text).map_err(|found| refuse(&source, found))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let board_source =
        Board::source(&manifest.board, directory).map_err(|found| refuse(&source, vec![found]))?;
    let board = Board::parse(&board_source.text).map_err(|found| refuse(&board_source, found))?;
    refuse_if_any(&board_source, validate::board(&board))?;
    refuse_if_any(&source, validate::validate(&manifest, &board))?;
    Ok(Loaded { manifest, board, source, board_source })
}

fn refuse_if_any(source: &Source, found: Vec<Diagnostic>) -> Result<(), Refusal> {
    if found.is_empty() { Ok(()) } else { Err(Refusal { source: source.clone(), found }) }
}
