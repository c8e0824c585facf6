// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks of manifests and board files, before an image is built.
//!
//! Each module checks one part and adds all errors to a list; no check depends on another. An accepted
//! manifest can be planned ([`crate::plan`]). The rules and the programs that require them are listed in
//! `images/README.md`.

mod board;
mod devices;
mod domains;
pub(crate) mod files;
pub(crate) mod hardware;
mod host;
mod memory_access;
pub(crate) mod names;
pub(crate) mod once;
mod placement;
mod users;
pub(crate) mod words;

use std::path::Path;

use dtoolkit::fdt::Fdt;

use crate::board::Board;
use crate::diagnostics::Diagnostic;
use crate::kernel;
use crate::manifest::Manifest;
use crate::plan::Plan;

/// The errors in `board`.
pub fn board(board: &Board) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    board::check(board, &mut found);
    found
}

/// The errors in `manifest`, on a `board` without errors.
pub fn validate(manifest: &Manifest, board: &Board) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    names::check(manifest, &mut found);
    domains::check(manifest, board, &mut found);
    hardware::check(manifest, board, &mut found);
    devices::check(manifest, board, &mut found);
    placement::check(manifest, &mut found);
    users::check(manifest, &mut found);
    memory_access::check(manifest, &mut found);
    files::destinations(manifest, &mut found);
    files::console(manifest, &mut found);
    files::kernels(manifest, &mut found);
    found
}

/// What `manifest`, which has no errors, gives away on purpose.
pub fn warnings(manifest: &Manifest) -> Vec<Diagnostic> {
    memory_access::warnings(manifest)
}

/// Contradictions between the board file and `host`, the board's device tree.
pub fn host(plan: &Plan<'_>, host: &Fdt<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    host::check(plan, host, &mut found);
    found
}

/// The errors in the files of `manifest` in `directory`.
pub fn files(manifest: &Manifest, board: &Board, directory: &Path) -> Vec<Diagnostic> {
    let mut found = files::contents(manifest, directory);
    // The driver domain's ramdisk does not exist yet.
    found.extend(files::modules_room(manifest, board, directory, 1));
    found
}

/// The errors if the driver domain has no room for its kernel in `directory` and a ramdisk of `ramdisk`
/// bytes, or the board for all files.
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
