// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names: of guests, of their devices, of GPIO lines. They become file names, types of the policy, words of a command
//! line and names in a device tree, so they are plain, and each is given once.

use std::collections::HashMap;

use toml_span::{Span, Spanned};

use shim_config::LOCK_FILE;

use crate::diagnostics::Diagnostic;
use crate::emit::policy;
use crate::manifest::Manifest;
use crate::plan::policy_type;

/// Names that something else has: `driver-domain.dtb` and `host.dtb` among the output files, a user of the driver domain, a
/// file of the shim's state directory. The policy's types are asked for their names.
const TAKEN: [&str; 4] = ["driver-domain", "host", "root", LOCK_FILE];

/// The longest name: a file name, a log line's prefix and a policy's type stay legible.
const LONGEST: usize = 31;

pub(super) fn check(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let mut guests = Once::new("guest");
    for guest in &manifest.guests {
        guest_name(&guest.name, found);
        guests.see(&guest.name.value, guest.name.span, found);

        let mut devices = Once::new("device of this guest");
        let i2c = guest.i2c.iter().map(|device| (&device.name, device.span));
        let gpio = guest.gpio.iter().map(|device| (&device.name, device.span));
        for (name, span) in i2c.chain(gpio) {
            let span = if name.span.is_empty() { span } else { name.span };
            word(name, "device", found);
            devices.see(&name.value, span, found);
        }
        for device in &guest.gpio {
            let mut lines = Once::new("line of this controller");
            for name in device.lines.iter().filter_map(|line| line.name.as_ref()) {
                line_name(name, found);
                lines.see(&name.value, name.span, found);
            }
        }
    }
}

fn guest_name(name: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    let text = name.value.as_str();
    let plain = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-')
        && !text.ends_with('-')
        && text.len() <= LONGEST;
    if !plain {
        let title = format!("`{text}` cannot name a guest");
        found.push(Diagnostic::new(name.span, title, "not a plain name").help(format!(
            "start with a letter, then use lower-case letters, digits and hyphens, at most {LONGEST} in all"
        )));
    } else if TAKEN.contains(&text) || policy::is_taken(&policy_type(text)) {
        let title = format!("the name `{text}` is taken");
        found.push(
            Diagnostic::new(name.span, title, "a file, a user or a type of the policy has it")
                .help("choose another name, such as one with a number at its end"),
        );
    }
}

/// Virtio 1.3, 5.18.6.1: a name is 7-bit ASCII, and a zero ends it. Linux's character device has room for 31 characters.
fn line_name(name: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    let text = name.value.as_str();
    let is_ascii = text.bytes().all(|byte| (1..=0x7f).contains(&byte));
    if text.is_empty() || text.len() > LONGEST || !is_ascii {
        let title = format!("{text:?} cannot name a line");
        let help = format!(
            "use 1 to {LONGEST} characters of 7-bit ASCII, or leave `name` out for a line without a name"
        );
        found.push(Diagnostic::new(name.span, title, "not a name that a GPIO device can have").help(help));
    }
}

/// A name that goes into a command line or a device tree, where a guest or a user reads it.
fn word(name: &Spanned<String>, what: &str, found: &mut Vec<Diagnostic>) {
    let text = name.value.as_str();
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    if text.is_empty() || text.len() > LONGEST || text.starts_with('.') || !text.chars().all(plain) {
        let title = format!("`{text}` cannot name a {what}");
        found.push(Diagnostic::new(name.span, title, "not a plain name").help(format!(
            "use letters, digits, `-`, `_` and, but for the first, `.`: 1 to {LONGEST} in all"
        )));
    }
}

/// Sees to it that each name is given once.
struct Once<'a> {
    what: &'static str,
    seen: HashMap<&'a str, Span>,
}

impl<'a> Once<'a> {
    fn new(what: &'static str) -> Self {
        Self { what, seen: HashMap::new() }
    }

    fn see(&mut self, name: &'a str, span: Span, found: &mut Vec<Diagnostic>) {
        let Some(first) = self.seen.insert(name, span) else { return };
        let title = format!("a second {} is called `{name}`", self.what);
        found.push(
            Diagnostic::new(span, title, "the same name again")
                .related(first, "the first one")
                .help("give it a `name` of its own"),
        );
    }
}
