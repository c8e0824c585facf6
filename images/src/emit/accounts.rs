// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver domain's users: root, and one for each guest. Programs use the numbers; the names are for
//! listings.

use std::fmt::Write;

use crate::plan::Plan;

/// The path of the list of users.
pub const PASSWD: &str = "/etc/passwd";

/// The path of the list of groups.
pub const GROUP: &str = "/etc/group";

/// Makes `/etc/passwd`. No user has a password.
pub fn passwd(plan: &Plan<'_>) -> String {
    let mut text = "root:*:0:0:root:/:/bin/sh\n".to_owned();
    for guest in &plan.guests {
        let (name, user) = (&guest.guest.name.value, guest.user);
        let _ = writeln!(text, "{name}:*:{}:{}:processes of {name}:/:/bin/false", user.uid(), user.gid());
    }
    text
}

/// Makes `/etc/group`.
pub fn group(plan: &Plan<'_>) -> String {
    let mut text = "root:*:0:\n".to_owned();
    for guest in &plan.guests {
        let _ = writeln!(text, "{}:*:{}:", guest.guest.name.value, guest.user.gid());
    }
    text
}
