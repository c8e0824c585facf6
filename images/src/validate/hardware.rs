// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver domain's hardware: the board has it, and Xen can assign it alone.

use toml_span::Spanned;

use crate::board::{Board, Hardware, Kind};
use crate::diagnostics::{Diagnostic, listed, nearest};
use crate::manifest::Manifest;

pub(super) fn check(manifest: &Manifest, board: &Board, found: &mut Vec<Diagnostic>) {
    let mut owned: Vec<(&Spanned<String>, &Hardware)> = Vec::new();
    for name in &manifest.driver_domain.hardware {
        let Some(hardware) = board.hardware(&name.value) else {
            found.push(unknown(name, board, board.hardware.iter()));
            continue;
        };
        if let Some((first, _)) = owned.iter().find(|(_, other)| other.name.value == hardware.name.value) {
            let title = format!("`{}` is listed twice", name.value);
            let diagnostic = Diagnostic::new(name.span, title, "again");
            found.push(diagnostic.related(first.span, "the first time").help("list it once"));
            continue;
        }
        if let Some((other, _)) = owned.iter().find(|(_, other)| share_pages(hardware, other)) {
            found.push(same_page(name, other));
        }
        owned.push((name, hardware));
    }
}

fn same_page(name: &Spanned<String>, other: &Spanned<String>) -> Diagnostic {
    let title = format!("`{}` and `{}` have registers in the same page", name.value, other.value);
    Diagnostic::new(name.span, title, "Xen assigns whole pages, each for one device")
        .related(other.span, "the other one")
        .help("use hardware of different pages, or describe both as one in the board file")
}

fn share_pages(a: &Hardware, b: &Hardware) -> bool {
    a.pages().any(|a| b.pages().any(|b| a.overlaps(b)))
}

/// The hardware called `name` behind a guest's device, if it is of the kind `kind`. Without one every kind is
/// right.
pub(crate) fn owned<'a>(
    name: &Spanned<String>,
    kind: Option<Kind>,
    manifest: &Manifest,
    board: &'a Board,
    found: &mut Vec<Diagnostic>,
) -> Option<&'a Hardware> {
    let of_kind = board.hardware.iter().filter(|hardware| kind.is_none_or(|kind| hardware.kind == kind));
    let Some(hardware) = board.hardware(&name.value) else {
        found.push(unknown(name, board, of_kind));
        return None;
    };
    if let Some(kind) = kind.filter(|kind| hardware.kind != *kind) {
        let names = listed(of_kind.map(|hardware| &hardware.name.value));
        let title = format!("`{}` is not {}", name.value, kind.name());
        let help = format!("write one of {names}");
        found.push(Diagnostic::new(name.span, title, "hardware of another kind").help(help));
        return None;
    }
    if !manifest.driver_domain.hardware.iter().any(|listed| listed.value == name.value) {
        let title = format!("the driver domain does not own `{}`", name.value);
        let help = format!("add \"{}\" to `hardware` of [driver-domain]", name.value);
        found.push(Diagnostic::new(name.span, title, "its backend could not open it").help(help));
    }
    Some(hardware)
}

fn unknown<'a>(
    name: &Spanned<String>,
    board: &'a Board,
    candidates: impl Iterator<Item = &'a Hardware>,
) -> Diagnostic {
    let names: Vec<_> = candidates.map(|hardware| &hardware.name.value).collect();
    let all = listed(board.hardware.iter().map(|hardware| &hardware.name.value));
    let help = match nearest(&name.value, names.iter().copied()) {
        Some(near) => format!("write `{near}`; the board has {all}"),
        None => format!("the board has {all}"),
    };
    Diagnostic::new(name.span, format!("the board has no hardware `{}`", name.value), "unknown hardware")
        .help(help)
}
