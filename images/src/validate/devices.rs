// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guests' devices: I2C targets and GPIO lines, each of which has one owner unless sharing is meant.

use std::collections::HashMap;

use shim_config::DeviceKind;
use toml_span::Spanned;

use super::hardware::owned;
use super::words;
use crate::board::{Board, Kind};
use crate::diagnostics::Diagnostic;
use crate::manifest::{Gpio, I2c, Line, Manifest, Target};
use crate::plan::GPIO;

/// The 7-bit addresses that are not reserved (I2C-bus specification, UM10204, table 4).
const ADDRESSES: std::ops::RangeInclusive<i64> = 0x08..=0x77;

/// For how many microseconds a backend may look for the next request: it takes no more.
const BUSY_POLL: std::ops::RangeInclusive<i64> = 0..=1000;

/// For how many microseconds a backend may wait for an input to keep its level: it takes no more.
const DEBOUNCE: std::ops::RangeInclusive<i64> = 1..=1_000_000;

/// What the builder writes itself into the node of a target.
const OWN_PROPERTIES: [&str; 5] = ["compatible", "reg", "phandle", "linux,phandle", "name"];

pub(super) fn check(manifest: &Manifest, board: &Board, found: &mut Vec<Diagnostic>) {
    let mut addresses = HashMap::new();
    let mut lines = HashMap::new();
    for guest in &manifest.guests {
        let guest_name = guest.name.value.as_str();
        for device in &guest.i2c {
            owned(&device.adapter, Kind::I2c, manifest, board, found);
            busy_poll(device.busy_poll.as_ref(), manifest, found);
            if device.targets.is_empty() {
                found.push(
                    Diagnostic::new(
                        device.span,
                        "an I2C adapter without targets",
                        "nothing can be reached by it",
                    )
                    .help("list what the guest may reach: `targets = [{ address = 0x48 }]`"),
                );
            }
            for target in &device.targets {
                target_itself(target, found);
                target_owner(guest_name, device, target, &mut addresses, found);
            }
        }
        for device in &guest.gpio {
            busy_poll(device.busy_poll.as_ref(), manifest, found);
            if device.lines.is_empty() {
                found.push(
                    Diagnostic::new(
                        device.span,
                        "a GPIO controller without lines",
                        "nothing can be done by it",
                    )
                    .help("list its lines: `lines = [{ chip = \"…\", line = 0, name = \"…\" }]`"),
                );
            }
            number_of_lines(device, found);
            for line in &device.lines {
                line_itself(line, manifest, board, found);
                line_owner(guest_name, line, &mut lines, found);
            }
        }
    }
}

fn busy_poll(microseconds: Option<&Spanned<i64>>, manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let Some(Spanned { value, span }) = microseconds else { return };
    if !BUSY_POLL.contains(value) {
        let title = format!("a backend does not look for requests for {value} microseconds");
        let help = format!(
            "write up to {}, or leave `busy-poll-us` out: then the guest's kick wakes the backend",
            BUSY_POLL.end()
        );
        found.push(Diagnostic::new(*span, title, "this time").help(help));
    } else if *value > 0 && manifest.driver_domain.domain.vcpus.value < 2 {
        let title = "a backend that polls keeps the driver domain's only vCPU from everybody else";
        found.push(
            Diagnostic::new(*span, title, "each request would take longer, not shorter")
                .help("write `vcpus = 2` in [driver-domain], or leave `busy-poll-us` out"),
        );
    }
}

fn target_itself(target: &Target, found: &mut Vec<Diagnostic>) {
    let address = &target.address;
    if !ADDRESSES.contains(&address.value) {
        let title = format!("{:#x} is not the address of an I2C target", address.value);
        let shifted = address.value >> 1;
        let help = if address.value > 0x7f && ADDRESSES.contains(&shifted) {
            format!("write the seven bits without the read/write bit: perhaps {shifted:#x}")
        } else {
            format!("write an address from {:#04x} to {:#04x}", ADDRESSES.start(), ADDRESSES.end())
        };
        found.push(Diagnostic::new(address.span, title, "out of the 7-bit range, or reserved").help(help));
    }
    words::properties(
        &target.properties,
        &OWN_PROPERTIES,
        "use the target's `compatible` and `address`",
        found,
    );
    if let (None, Some((name, _))) = (&target.compatible, target.properties.first()) {
        found.push(
            Diagnostic::new(
                name.span,
                "properties of a target without a driver",
                "no driver would read them",
            )
            .help("add `compatible = \"…\"` to the target, or leave its properties out"),
        );
    }
}

/// Who has been given a thing, and whether they agreed to share it.
struct Owner<'a> {
    guest: &'a str,
    shared: bool,
    span: toml_span::Span,
}

fn target_owner<'a>(
    guest: &'a str,
    device: &'a I2c,
    target: &'a Target,
    owners: &mut HashMap<(&'a str, i64), Owner<'a>>,
    found: &mut Vec<Diagnostic>,
) {
    let (address, span, shared) = (target.address.value, target.address.span, target.shared);
    let adapter = device.adapter.value.as_str();
    let Some(first) = owners.insert((adapter, address), Owner { guest, shared, span }) else { return };
    if first.guest == guest {
        let title = format!("`{guest}` has address {address:#04x} of `{adapter}` twice");
        found.push(
            Diagnostic::new(span, title, "again").related(first.span, "the first time").help("list it once"),
        );
    } else if !(shared && first.shared) {
        let title = format!("address {address:#04x} of `{adapter}` is given to two guests");
        let label = format!("here to `{guest}`");
        found.push(
            Diagnostic::new(span, title, label)
                .related(first.span, format!("here to `{}`", first.guest))
                .help(
                    "give it to one of them, or write `shared = true` at both if they may disturb each other",
                ),
        );
    }
}

/// A driver that waits for interrupts of all lines has a buffer of two descriptors for each in the event queue (virtio 1.3,
/// 5.18.7), and Linux's asks for no more lines than that.
fn number_of_lines(device: &Gpio, found: &mut Vec<Diagnostic>) {
    let most = usize::from(DeviceKind::of(GPIO).queue_size_max / 2);
    if device.lines.len() > most {
        let title = format!("a GPIO controller with {} lines", device.lines.len());
        let label = format!("its queue has room for the interrupts of {most} lines");
        found.push(Diagnostic::new(device.span, title, label).help("make two controllers of it"));
    }
}

fn line_itself(line: &Line, manifest: &Manifest, board: &Board, found: &mut Vec<Diagnostic>) {
    let Some(hardware) = owned(&line.chip, Kind::Gpio, manifest, board, found) else { return };
    let count = hardware.lines.as_ref().map_or(u32::MAX, |lines| lines.value);
    if !(0..i64::from(count)).contains(&line.line.value) {
        let title = format!("`{}` has no line {}", line.chip.value, line.line.value);
        let help = format!("write a line from 0 to {}", count.saturating_sub(1));
        found.push(Diagnostic::new(line.line.span, title, "out of range").help(help));
    }
    if let Some(Spanned { value, span }) = line.debounce
        && !DEBOUNCE.contains(&value)
    {
        let title = format!("a line is not debounced for {value} microseconds");
        let help =
            format!("write from {} to {}, or leave `debounce-us` out", DEBOUNCE.start(), DEBOUNCE.end());
        found.push(Diagnostic::new(span, title, "this time").help(help));
    }
    if let Some(Spanned { value: true, span }) = line.shared {
        found.push(
            Diagnostic::new(span, "a GPIO line cannot be shared", "no backend serves one line to two guests")
                .help("give the line to one guest"),
        );
    }
}

fn line_owner<'a>(
    guest: &'a str,
    line: &'a Line,
    owners: &mut HashMap<(&'a str, i64), (&'a str, toml_span::Span)>,
    found: &mut Vec<Diagnostic>,
) {
    let (chip, number, span) = (line.chip.value.as_str(), line.line.value, line.line.span);
    let Some((first, first_span)) = owners.insert((chip, number), (guest, span)) else { return };
    let (title, label, other) = if first == guest {
        (format!("`{guest}` has line {number} of `{chip}` twice"), "again".into(), "the first time".into())
    } else {
        let title = format!("line {number} of `{chip}` is given to two guests");
        (title, format!("here to `{guest}`"), format!("here to `{first}`"))
    };
    found.push(Diagnostic::new(span, title, label).related(first_span, other).help("give it once"));
}
