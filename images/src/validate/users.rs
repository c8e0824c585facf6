// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Users of backends that the manifest names: none is that of another process.

use confinement::User;
use toml_span::{Span, Spanned};

use crate::diagnostics::Diagnostic;
use crate::manifest::Manifest;
use crate::plan::{RESERVED_USERS, guest_user, guests_with_domids};

pub(super) fn check(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let of_guests: Vec<u32> = guests_with_domids(manifest).map(|(_, domid)| guest_user(domid)).collect();
    let mut seen: Vec<&Spanned<User>> = Vec::new();
    let devices = manifest.guests.iter().flat_map(|guest| &guest.devices);
    for user in devices.filter_map(|device| device.device_type.user()) {
        let numbers = [user.value.uid(), user.value.gid()];
        if numbers.iter().any(|number| of_guests.contains(number) || RESERVED_USERS.contains(number)) {
            found.push(reserved(user));
        } else if let Some(first) = seen.iter().find(|other| shares_a_number(other.value, user.value)) {
            found.push(same(user, first.span));
        }
        seen.push(user);
    }
}

fn shares_a_number(one: User, other: User) -> bool {
    one.uid() == other.uid() || one.gid() == other.gid()
}

fn reserved(user: &Spanned<User>) -> Diagnostic {
    let title = format!("the user {} is taken", user.value);
    let label = "the builder gives this number to processes of a guest or to another backend";
    let help = format!(
        "write numbers beside {} to {} and those of guests (10000 and the domid), or leave `user` out",
        RESERVED_USERS.start(),
        RESERVED_USERS.end()
    );
    Diagnostic::new(user.span, title, label).help(help)
}

fn same(user: &Spanned<User>, first: Span) -> Diagnostic {
    let title = format!("the user {} has a number of another backend", user.value);
    Diagnostic::new(user.span, title, "each could stop the other")
        .related(first, "the other one")
        .help("give each backend numbers of its own, or leave `user` out")
}
