// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What cannot work, found before anything is built.
//!
//! Each check looks at one kind of thing and reports all that it finds; none of them stops another. What passes here
//! can be planned ([`crate::plan`]).

mod devices;
mod domains;
mod files;
mod hardware;
mod names;
mod placement;

use std::path::Path;

use crate::board::Board;
use crate::diagnostics::Diagnostic;
use crate::manifest::Manifest;

/// All that is wrong with `manifest` on `board`.
pub fn validate(manifest: &Manifest, board: &Board) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    names::check(manifest, &mut found);
    domains::check(manifest, board, &mut found);
    hardware::check(manifest, board, &mut found);
    devices::check(manifest, board, &mut found);
    placement::check(manifest, &mut found);
    files::destinations(manifest, &mut found);
    files::console(manifest, &mut found);
    found
}

/// All files that `manifest` names and that are not in `directory`.
pub fn missing_files(manifest: &Manifest, directory: &Path) -> Vec<Diagnostic> {
    files::missing(manifest, directory)
}
