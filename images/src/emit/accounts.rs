// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver domain's users: root, one for each guest, and one for each program that serves a device.
//! Programs use the numbers; the names are for listings.

use std::fmt::Write;

use confinement::User;
use shim_config::{Backend, Program};

use crate::plan::Plan;

/// The path of the list of users.
pub const PASSWD: &str = "/etc/passwd";

/// The path of the list of groups.
pub const GROUP: &str = "/etc/group";

/// Makes `/etc/passwd`. No user has a password.
pub fn passwd(plan: &Plan<'_>) -> String {
    let mut text = "root:*:0:0:root:/:/bin/sh\n".to_owned();
    for (name, what, user) in users(plan) {
        let _ = writeln!(text, "{name}:*:{}:{}:{what}:/:/bin/false", user.uid(), user.gid());
    }
    text
}

/// Makes `/etc/group`.
pub fn group(plan: &Plan<'_>) -> String {
    let mut text = "root:*:0:\n".to_owned();
    for (name, _, user) in users(plan) {
        let _ = writeln!(text, "{name}:*:{}:", user.gid());
    }
    text
}

/// The names, the descriptions and the numbers of all users but root. A name with a dot is that of a device.
fn users(plan: &Plan<'_>) -> Vec<(String, String, User)> {
    let mut users = Vec::new();
    for guest in &plan.guests {
        let name = &guest.guest.name.value;
        users.push((name.clone(), format!("processes of {name}"), guest.user));
        for device in &guest.devices {
            if let Backend::Program(Program { user: Some(user), .. }) = &device.configuration.backend {
                let device = &device.configuration.name;
                users.push((format!("{name}.{device}"), format!("backend of {name} {device}"), *user));
            }
        }
    }
    users
}
