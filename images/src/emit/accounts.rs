// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver domain's users: root, and one for each guest. The programs go by numbers; the names are for who looks.

use std::fmt::Write;

use crate::plan::Plan;

/// Where users are named.
pub const PASSWD: &str = "/etc/passwd";

/// Where groups are named.
pub const GROUP: &str = "/etc/group";

/// `/etc/passwd`. Nobody logs in.
pub fn passwd(plan: &Plan<'_>) -> String {
    let mut text = "root:*:0:0:root:/:/bin/sh\n".to_owned();
    for guest in &plan.guests {
        let (name, user) = (&guest.guest.name.value, guest.user);
        let _ = writeln!(text, "{name}:*:{}:{}:processes of {name}:/:/bin/false", user.uid(), user.gid());
    }
    text
}

/// `/etc/group`.
pub fn group(plan: &Plan<'_>) -> String {
    let mut text = "root:*:0:\n".to_owned();
    for guest in &plan.guests {
        let _ = writeln!(text, "{}:*:{}:", guest.guest.name.value, guest.user.gid());
    }
    text
}
