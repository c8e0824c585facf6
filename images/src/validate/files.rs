// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files that a manifest names.

use std::path::Path;

use toml_span::Spanned;

use crate::diagnostics::{Diagnostic, listed};
use crate::emit::ramdisk::{BACKEND, BUSYBOX, SHELL, SHIM};
use crate::manifest::Manifest;

/// Checks where extra files go in the driver domain.
pub(super) fn destinations(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    for file in &manifest.driver_domain.files {
        let path = file.destination.value.as_str();
        let plain = path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
        if !plain {
            let title = format!("`{path}` is no place for a file");
            found.push(
                Diagnostic::new(file.destination.span, title, "not a plain absolute path")
                    .help("write a path such as \"/usr/bin/agent\""),
            );
        }
    }
}

/// Checks that the program on the driver domain's console is one that it has, and that init can start it as written.
pub(super) fn console(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let driver_domain = &manifest.driver_domain;
    let Some(program) = driver_domain.console.first() else { return };
    let added = driver_domain.files.iter().map(|file| file.destination.value.as_str());
    let own = [BUSYBOX, SHELL, SHIM, BACKEND];
    if !added.chain(own).any(|path| path == program.value) {
        let title = format!("the driver domain has no program `{}`", program.value);
        found.push(
            Diagnostic::new(program.span, title, "not in its ramdisk")
                .help(format!("add it to `files`, or write one of {}", listed(own))),
        );
    }
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+=:,@%".contains(char);
    for word in driver_domain.console.iter().filter(|word| !word.value.chars().all(plain)) {
        let title = format!("`{}` cannot be an argument of a program on the console", word.value);
        found.push(
            Diagnostic::new(word.span, title, "a shell would read this in its own way")
                .help("put what needs more than letters, digits and `/._-+=:,@%` into a script"),
        );
    }
}

/// All files of `manifest` that are not in `directory`.
pub(super) fn missing(manifest: &Manifest, directory: &Path) -> Vec<Diagnostic> {
    let driver_domain = &manifest.driver_domain;
    let own = driver_domain.files.iter().map(|file| &file.source);
    let kernels = std::iter::once(&driver_domain.domain.kernel)
        .chain(manifest.guests.iter().map(|guest| &guest.domain.kernel));
    let ramdisks = manifest.guests.iter().filter_map(|guest| guest.ramdisk.as_ref());
    let given = |file: &&Spanned<String>| !file.span.is_empty();
    own.chain(kernels.filter(given))
        .chain(ramdisks)
        .filter(|file| !directory.join(&file.value).is_file())
        .map(|file| {
            let title = format!("there is no file `{}` in {}", file.value, directory.display());
            Diagnostic::new(file.span, title, "no such file")
                .help("paths are relative to the directory given with `--files`")
        })
        .collect()
}
