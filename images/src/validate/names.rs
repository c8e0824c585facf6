// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names of guests and devices. They become names of files, types of the policy, words of command
//! lines and names in device trees.

use shim_config::LOCK_FILE;
use toml_span::Spanned;

use super::once::Once;
use crate::diagnostics::Diagnostic;
use crate::emit::policy;
use crate::manifest::Manifest;
use crate::plan::policy_type;

/// Names in use besides the policy's types: output files (`driver-domain.dtb`, `host.dtb`), a user of the
/// driver domain, a file in the shim's state directory.
const TAKEN: [&str; 4] = ["driver-domain", "host", "root", LOCK_FILE];

/// The length of the longest name. Linux's character device has room for as many characters of a line's name.
pub(crate) const LONGEST: usize = 31;

pub(super) fn check(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let mut guests = Once::default();
    for guest in &manifest.guests {
        guest_name(&guest.name, found);
        guests.see("guest", &guest.name, found);
        let mut devices = Once::default();
        for device in &guest.devices {
            device_name(&device.name, found);
            devices.see("device of this guest", &device.name, found);
        }
    }
}

fn guest_name(name: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    let text = name.value.as_str();
    let is_plain = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-')
        && !text.ends_with('-')
        && text.len() <= LONGEST;
    if !is_plain {
        let title = format!("`{text}` cannot name a guest");
        let help = format!(
            "start with a letter, then use lower-case letters, digits and hyphens, at most {LONGEST} in all"
        );
        found.push(Diagnostic::new(name.span, title, "not a plain name").help(help));
    } else if TAKEN.contains(&text) || policy::is_taken(&policy_type(text)) {
        let title = format!("the name `{text}` is taken");
        let label = "a file, a user or a type of the policy has it";
        let help = "choose another name, such as one with a number at its end";
        found.push(Diagnostic::new(name.span, title, label).help(help));
    }
}

/// The shim has files of this name in its state directory.
fn device_name(name: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    let text = name.value.as_str();
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    if text.is_empty() || text.len() > LONGEST || text.starts_with('.') || !text.chars().all(is_plain) {
        let title = format!("`{text}` cannot name a device");
        let help =
            format!("use letters, digits, `-`, `_` and, but for the first, `.`: 1 to {LONGEST} in all");
        found.push(Diagnostic::new(name.span, title, "not a plain name").help(help));
    }
}
