// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files: their paths in the driver domain, and kernels and ramdisks among the input files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml_span::Spanned;

use super::words::is_plain_text;
use crate::board::Board;
use crate::diagnostics::{Diagnostic, listed};
use crate::emit::ramdisk::{BACKEND, BUSYBOX, OWN_FILES, SHELL, SHIM};
use crate::kernel::{self, KernelError, UNIT};
use crate::manifest::{Domain, Manifest, Memory};
use crate::spanned::MIB;

/// Directories of the driver domain for mounts and for files that are made at run time.
const MOUNTED: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// The longest name of a file, and the longest path that the kernel takes from a ramdisk (`NAME_MAX`, and
/// `PATH_MAX` without the NUL).
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4095;

/// Checks the paths of extra files in the driver domain.
pub(super) fn destinations(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for file in manifest.files() {
        let (path, span) = (file.destination.value.as_str(), file.destination.span);
        // Devices can have the same program.
        if seen.contains(&(path, file.source.value.as_str())) {
            continue;
        }
        let mut refuse = |title: String, label: &str, help: &str| {
            found.push(Diagnostic::new(span, title, label).help(help));
        };
        if !is_path(path) {
            let title = format!("{path:?} cannot be the path of a file");
            let help = "write a path such as \"/usr/bin/agent\", of names that have at most 255 characters";
            refuse(title, "not a plain absolute path", help);
        } else if MOUNTED.iter().any(|mounted| is_below(path, mounted)) {
            let title = format!("a file at `{path}` could be hidden by a mount");
            refuse(title, "a directory for mounts and files of the run time", "choose another directory");
        } else if OWN_FILES.iter().any(|own| is_below(path, own) || is_below(own, path)) {
            let title = format!("`{path}` is taken");
            refuse(title, "the builder puts a file of its own there", "choose another place");
        } else if seen.iter().any(|(other, _)| is_below(path, other) || is_below(other, path)) {
            let title = format!("`{path}` cannot be beside the other files");
            refuse(title, "another file is there, above it or below it", "choose another place");
        }
        seen.push((path, &file.source.value));
    }
}

/// Whether `path` is absolute and has no `.` and `..`, and the kernel unpacks a file there.
pub(crate) fn is_path(path: &str) -> bool {
    let is_name = |part: &str| !["", ".", ".."].contains(&part) && part.len() <= LONGEST_NAME;
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_name))
        && path.len() <= LONGEST_PATH
        && is_plain_text(path)
}

/// Whether `path` is `directory` or below it.
pub(crate) fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The programs of every driver domain.
const PROGRAMS: [&str; 4] = [BUSYBOX, SHELL, SHIM, BACKEND];

/// Whether `path` is a program in the driver domain's ramdisk.
pub(crate) fn has_program(manifest: &Manifest, path: &str) -> bool {
    PROGRAMS.contains(&path) || manifest.files().any(|file| file.destination.value == path)
}

/// Checks that the driver domain has the program of its console, and that busybox's init starts it as
/// written.
pub(super) fn console(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let driver_domain = &manifest.driver_domain;
    let Some(program) = driver_domain.console.first() else { return };
    if !has_program(manifest, &program.value) {
        let title = format!("the driver domain has no program `{}`", program.value);
        found.push(
            Diagnostic::new(program.span, title, "not in its ramdisk")
                .help(format!("add it to `files`, or write one of {}", listed(PROGRAMS))),
        );
    }
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+=:,@%".contains(char);
    let is_lost = |word: &&Spanned<String>| word.value.is_empty() || !word.value.chars().all(plain);
    for word in driver_domain.console.iter().filter(is_lost) {
        let title = format!("{:?} cannot be an argument of a program on the console", word.value);
        found.push(
            Diagnostic::new(word.span, title, "init or a shell would not pass this on as it is")
                .help("put what needs more than letters, digits and `/._-+=:,@%` into a script"),
        );
    }
}

/// Checks that no file is a kernel and a ramdisk: Xen keeps one module for an address.
pub(super) fn kernels(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let is_kernel =
        |file: &&Spanned<String>| manifest.domains().any(|other| other.kernel.value == file.value);
    let ramdisks = manifest.guests.iter().filter_map(|guest| guest.ramdisk.as_ref());
    for ramdisk in ramdisks.filter(is_kernel) {
        let title = format!("`{}` is a kernel and a ramdisk", ramdisk.value);
        let label = "a guest would have no ramdisk: Xen has one module at one address";
        found.push(
            Diagnostic::new(ramdisk.span, title, label).help("name another file, or leave `ramdisk` out"),
        );
    }
}

/// The errors in the files of `manifest` in `directory`.
pub(super) fn contents(manifest: &Manifest, directory: &Path) -> Vec<Diagnostic> {
    let mut found: Vec<_> = manifest.files().filter_map(|file| missing(&file.source, directory)).collect();
    let mut kernels = BTreeMap::new();
    for domain in manifest.domains() {
        let size = || kernel(domain, directory, &mut found);
        kernels.entry(domain.kernel.value.as_str()).or_insert_with(size);
    }
    packed(manifest, directory, &mut found);
    for guest in &manifest.guests {
        let ramdisk = guest.ramdisk.as_ref().map(|ramdisk| self::ramdisk(ramdisk, directory, &mut found));
        let kernel = kernels.get(guest.domain.kernel.value.as_str());
        if let (Some(Some(kernel)), None | Some(Some(_))) = (kernel, ramdisk) {
            found.extend(room(&guest.domain, *kernel, ramdisk.flatten().unwrap_or(0)));
        }
    }
    found
}

/// Checks that a compressed kernel is used by one domain only.
fn packed(manifest: &Manifest, directory: &Path, found: &mut Vec<Diagnostic>) {
    let mut seen = vec![manifest.driver_domain.domain.kernel.value.as_str()];
    for guest in &manifest.guests {
        let kernel = guest.domain.kernel.value.as_str();
        if seen.contains(&kernel) && kernel::is_packed(&directory.join(kernel)) {
            let title = format!("the compressed kernel `{kernel}` is that of two domains");
            let label = "this one would have none: Xen decompresses a kernel once";
            let help = "give it uncompressed, or give each domain a copy under another name";
            found.push(Diagnostic::new(guest.name.span, title, label).help(help));
        }
        seen.push(kernel);
    }
}

fn missing(file: &Spanned<String>, directory: &Path) -> Option<Diagnostic> {
    if directory.join(&file.value).is_file() {
        return None;
    }
    let title = format!("there is no file `{}` in {}", file.value, directory.display());
    let diagnostic = Diagnostic::new(file.span, title, "no such file");
    Some(diagnostic.help("paths are relative to the directory given with `--files`"))
}

/// The bytes that a domain's kernel takes in its memory.
fn kernel(domain: &Domain, directory: &Path, found: &mut Vec<Diagnostic>) -> Option<u64> {
    let file = &domain.kernel;
    // The default is an input of every image, which the build checks.
    let is_written = !file.span.is_empty();
    if let Some(missing) = missing(file, directory) {
        found.extend(is_written.then_some(missing));
        return None;
    }
    let refuse = |error: KernelError| {
        let title = format!("Xen does not start a domain from `{}`", file.value);
        let (span, label) = if is_written {
            (file.span, "this kernel")
        } else {
            (domain.memory.span, "the kernel of this domain")
        };
        found.push(Diagnostic::new(span, title, label).help(format!("it is {error}")));
    };
    kernel::size(&directory.join(&file.value)).map_err(refuse).ok()
}

/// The size of a ramdisk.
fn ramdisk(file: &Spanned<String>, directory: &Path, found: &mut Vec<Diagnostic>) -> Option<u64> {
    if let Some(missing) = missing(file, directory) {
        found.push(missing);
        return None;
    }
    let size = std::fs::metadata(directory.join(&file.value)).map_or(0, |metadata| metadata.len());
    if size == 0 {
        let title = format!("the ramdisk `{}` is empty", file.value);
        found
            .push(Diagnostic::new(file.span, title, "a kernel cannot unpack it").help("leave `ramdisk` out"));
        return None;
    }
    Some(size)
}

/// The error if a domain has no room for a kernel and a ramdisk of these sizes.
pub(super) fn room(domain: &Domain, kernel: u64, ramdisk: u64) -> Option<Diagnostic> {
    // The device tree takes one unit.
    let least = Memory { bytes: kernel::footprint(kernel, ramdisk, 1) };
    let memory = &domain.memory;
    if least < memory.value {
        return None;
    }
    let title = format!("{} of memory are too little for kernel and ramdisk", memory.value);
    let label = format!("these and the device tree take {least}");
    let diagnostic = Diagnostic::new(memory.span, title, label);
    Some(diagnostic.help("give it more: the kernel also needs room to unpack the ramdisk, and to run"))
}

/// The error if the board has no room for all files, with a ramdisk of the driver domain of `ramdisk` bytes.
pub(super) fn modules_room(
    manifest: &Manifest,
    board: &Board,
    directory: &Path,
    ramdisk: u64,
) -> Option<Diagnostic> {
    let kernels = manifest.domains().map(|domain| &domain.kernel.value);
    let ramdisks = manifest.guests.iter().filter_map(|guest| guest.ramdisk.as_ref()).map(|file| &file.value);
    let files: BTreeSet<_> = kernels.chain(ramdisks).collect();
    let sizes =
        files.into_iter().map(|file| std::fs::metadata(directory.join(file)).map_or(0, |file| file.len()));
    // The device tree of each domain, and the policy.
    let others = std::iter::repeat_n(1, manifest.guests.len() + 2);
    let sizes = sizes.chain(others).chain([ramdisk]).map(|size| size.next_multiple_of(UNIT));
    let (size, room) = (Memory { bytes: sizes.sum() }, board.machine.modules.value.size);
    if size.bytes <= room {
        return None;
    }
    let title = format!("kernels, ramdisks, device trees and policy take {size}");
    let label = format!("this board has {} MiB for them: `modules`", room / MIB);
    let help = "let guests share kernels and ramdisks, or take smaller ones";
    Some(Diagnostic::new(manifest.board.span, title, label).help(help))
}
