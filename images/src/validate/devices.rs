// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guests' devices: the rules of each type, and the hardware, each part of which belongs to one guest
//! unless all of its guests share it.

use std::collections::HashMap;

use crate::board::Board;
use crate::device::{Checks, Part};
use crate::diagnostics::Diagnostic;
use crate::manifest::Manifest;

pub(super) fn check(manifest: &Manifest, board: &Board, found: &mut Vec<Diagnostic>) {
    let mut owners = Owners::default();
    for guest in &manifest.guests {
        for device in &guest.devices {
            device.device_type.check(device, &mut Checks { manifest, board, found });
            for part in device.device_type.parts() {
                found.extend(owners.add(Owner { guest: &guest.name.value, part }));
            }
        }
    }
}

/// The guest that has a part of hardware.
struct Owner<'a> {
    guest: &'a str,
    part: Part<'a>,
}

/// The owners by hardware and part, the last of each.
#[derive(Default)]
struct Owners<'a> {
    by_hardware: HashMap<&'a str, HashMap<Option<String>, Owner<'a>>>,
}

impl<'a> Owners<'a> {
    /// Adds an owner. Returns an error if the part has another one.
    fn add(&mut self, owner: Owner<'a>) -> Option<Diagnostic> {
        let parts = self.by_hardware.entry(owner.part.hardware).or_default();
        let first = match &owner.part.part {
            // All of it: the owner of any part is in the way.
            None => parts.values().min_by_key(|other| other.part.span.start),
            Some(_) => parts.get(&owner.part.part).or_else(|| parts.get(&None)),
        };
        let found = first.and_then(|first| conflict(first, &owner));
        parts.insert(owner.part.part.clone(), owner);
        found
    }
}

/// The error if `first` and `second` cannot both have a part.
fn conflict(first: &Owner<'_>, second: &Owner<'_>) -> Option<Diagnostic> {
    let (guest, span) = (second.guest, second.part.span);
    let what = second.part.to_string();
    if first.guest == guest {
        let title = format!("`{guest}` has {what} twice");
        let diagnostic = Diagnostic::new(span, title, "again").related(first.part.span, "the first time");
        return Some(diagnostic.help("list it once"));
    }
    let help = match (first.part.shared, second.part.shared) {
        (Some(true), Some(true)) => return None,
        (Some(_), Some(_)) => {
            "give it to one of them, or write `shared = true` at both if they may disturb each other"
        }
        _ => "give it to one of them",
    };
    let title = format!("{what} is given to two guests");
    let diagnostic = Diagnostic::new(span, title, format!("here to `{guest}`"))
        .related(first.part.span, format!("here to `{}`", first.guest));
    Some(diagnostic.help(help))
}
