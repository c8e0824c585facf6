// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What cannot work, found before anything is built.
//!
//! Each check looks at one kind of thing and reports all that it finds; none of them stops another. What passes here
//! can be planned ([`crate::plan`]).

mod board;
mod devices;
mod domains;
mod files;
mod hardware;
mod host;
mod names;
mod once;
mod placement;
mod words;

use std::path::Path;

use dtoolkit::fdt::Fdt;

use crate::board::Board;
use crate::diagnostics::Diagnostic;
use crate::kernel;
use crate::manifest::Manifest;
use crate::plan::Plan;

/// All that is wrong with `board` by itself.
pub fn board(board: &Board) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    board::check(board, &mut found);
    found
}

/// All that is wrong with `manifest` on `board`, with which nothing is wrong.
pub fn validate(manifest: &Manifest, board: &Board) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    names::check(manifest, &mut found);
    domains::check(manifest, board, &mut found);
    hardware::check(manifest, board, &mut found);
    devices::check(manifest, board, &mut found);
    placement::check(manifest, &mut found);
    files::destinations(manifest, &mut found);
    files::console(manifest, &mut found);
    files::kernels(manifest, &mut found);
    found
}

/// Contradictions between the board file and `host`, the board's device tree.
pub fn host(plan: &Plan<'_>, host: &Fdt<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    host::check(plan, host, &mut found);
    found
}

/// All that is wrong with the files in `directory` that `manifest` names.
pub fn files(manifest: &Manifest, board: &Board, directory: &Path) -> Vec<Diagnostic> {
    let mut found = files::contents(manifest, directory);
    // The driver domain's ramdisk is not made yet.
    found.extend(files::modules_room(manifest, board, directory, 1));
    found
}

/// Whether the driver domain has room for its kernel, in `directory`, and a ramdisk of `ramdisk` bytes, and the board
/// for all that the boot loader loads.
pub fn driver_domain_room(
    manifest: &Manifest,
    board: &Board,
    directory: &Path,
    ramdisk: u64,
) -> Vec<Diagnostic> {
    let domain = &manifest.driver_domain.domain;
    let kernel = kernel::size(&directory.join(&domain.kernel.value));
    let room = kernel.ok().and_then(|kernel| files::room(domain, kernel, ramdisk));
    room.into_iter().chain(files::modules_room(manifest, board, directory, ramdisk)).collect()
}
