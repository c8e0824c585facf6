// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guests' devices: I2C targets and GPIO lines, each of one guest unless all of its guests share it.

use std::collections::HashMap;

use shim_config::DeviceKind;
use toml_span::{Span, Spanned};

use super::hardware::owned;
use super::words;
use crate::board::{Board, Kind};
use crate::diagnostics::Diagnostic;
use crate::manifest::{DeviceType, I2c, Line, Manifest, Target};
use crate::plan::GPIO;

/// The 7-bit addresses that are not reserved (I2C-bus specification, UM10204, table 4).
const ADDRESSES: std::ops::RangeInclusive<i64> = 0x08..=0x77;

/// The microseconds of polling that a backend accepts.
const BUSY_POLL: std::ops::RangeInclusive<i64> = 0..=1000;

/// The microseconds of debouncing that a backend accepts.
const DEBOUNCE: std::ops::RangeInclusive<i64> = 1..=1_000_000;

/// The properties that the builder writes into the node of a target.
const OWN_PROPERTIES: [&str; 5] = ["compatible", "reg", "phandle", "linux,phandle", "name"];

pub(super) fn check(manifest: &Manifest, board: &Board, found: &mut Vec<Diagnostic>) {
    let mut owners = Owners::default();
    for guest in &manifest.guests {
        let name = guest.name.value.as_str();
        for device in &guest.devices {
            busy_poll(device.busy_poll.as_ref(), manifest, found);
            match &device.device_type {
                DeviceType::I2c(i2c) => {
                    owned(&i2c.adapter, Kind::I2c, manifest, board, found);
                    targets(name, device.span, i2c, &mut owners, found);
                }
                DeviceType::Gpio(lines) => {
                    number_of_lines(device.span, lines, found);
                    for line in lines {
                        check_line(line, manifest, board, found);
                        line_owner(name, line, &mut owners, found);
                    }
                }
            }
        }
    }
}

fn busy_poll(microseconds: Option<&Spanned<i64>>, manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let Some(Spanned { value, span }) = microseconds else { return };
    if !BUSY_POLL.contains(value) {
        let title = format!("a backend cannot poll for {value} microseconds");
        let help = format!(
            "write up to {}, or leave `busy-poll-us` out: then the guest's kick wakes the backend",
            BUSY_POLL.end()
        );
        found.push(Diagnostic::new(*span, title, "out of range").help(help));
    } else if *value > 0 && manifest.driver_domain.domain.vcpus.value < 2 {
        let title = "a backend that polls occupies the only vCPU of the driver domain";
        found.push(
            Diagnostic::new(*span, title, "each request would take longer")
                .help("write `vcpus = 2` in [driver-domain], or leave `busy-poll-us` out"),
        );
    }
}

fn targets<'a>(
    guest: &'a str,
    device: Span,
    i2c: &'a I2c,
    owners: &mut Owners<'a>,
    found: &mut Vec<Diagnostic>,
) {
    if i2c.targets.is_empty() {
        let (title, label) = ("an I2C adapter without targets", "the guest reaches nothing by it");
        let help = "list what the guest may reach: `targets = [{ address = 0x48 }]`";
        found.push(Diagnostic::new(device, title, label).help(help));
    }
    for target in &i2c.targets {
        check_target(target, found);
        target_owner(guest, i2c, target, owners, found);
    }
}

/// A driver that waits for interrupts of all lines has a buffer of two descriptors for each in the event
/// queue (virtio 1.3, 5.18.7), and Linux asks for no more lines than fit.
fn number_of_lines(device: Span, lines: &[Line], found: &mut Vec<Diagnostic>) {
    let most = usize::from(DeviceKind::of(GPIO).queue_size_max / 2);
    if lines.is_empty() {
        let help = "list its lines: `lines = [{ chip = \"…\", line = 0, name = \"…\" }]`";
        let (title, label) = ("a GPIO controller without lines", "the guest can do nothing by it");
        found.push(Diagnostic::new(device, title, label).help(help));
    } else if lines.len() > most {
        let title = format!("a GPIO controller with {} lines", lines.len());
        let label = format!("its event queue has room for {most} lines");
        found.push(Diagnostic::new(device, title, label).help("divide it into two controllers"));
    }
}

fn check_target(target: &Target, found: &mut Vec<Diagnostic>) {
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
        let help = "add `compatible = \"…\"` to the target, or leave its properties out";
        found.push(
            Diagnostic::new(name.span, "properties of a target without a driver", "no driver reads them")
                .help(help),
        );
    }
}

fn check_line(line: &Line, manifest: &Manifest, board: &Board, found: &mut Vec<Diagnostic>) {
    let Some(hardware) = owned(&line.chip, Kind::Gpio, manifest, board, found) else { return };
    let count = hardware.lines.as_ref().map_or(0, |lines| lines.value);
    if !(0..i64::from(count)).contains(&line.line.value) {
        let title = format!("`{}` has no line {}", line.chip.value, line.line.value);
        let help = format!("write a line from 0 to {}", count.saturating_sub(1));
        found.push(Diagnostic::new(line.line.span, title, "out of range").help(help));
    }
    if let Some(Spanned { value, span }) = line.debounce
        && !DEBOUNCE.contains(&value)
    {
        let title = format!("a line cannot be debounced for {value} microseconds");
        let help =
            format!("write from {} to {}, or leave `debounce-us` out", DEBOUNCE.start(), DEBOUNCE.end());
        found.push(Diagnostic::new(span, title, "out of range").help(help));
    }
    if let Some(Spanned { value: true, span }) = line.shared {
        let title = "a GPIO line cannot be shared";
        found.push(
            Diagnostic::new(span, title, "no backend serves a line to two guests")
                .help("give the line to one guest"),
        );
    }
}

/// The guest that has a target or a line.
struct Owner<'a> {
    guest: &'a str,
    shared: bool,
    span: Span,
}

/// The owners of addresses by adapter, and of lines by chip.
#[derive(Default)]
struct Owners<'a> {
    targets: HashMap<(&'a str, i64), Owner<'a>>,
    lines: HashMap<(&'a str, i64), Owner<'a>>,
}

fn target_owner<'a>(
    guest: &'a str,
    device: &'a I2c,
    target: &'a Target,
    owners: &mut Owners<'a>,
    found: &mut Vec<Diagnostic>,
) {
    let (adapter, address) = (device.adapter.value.as_str(), target.address.value);
    let owner = Owner { guest, shared: target.shared, span: target.address.span };
    let Some(first) = owners.targets.insert((adapter, address), owner) else { return };
    if first.guest == guest {
        let title = format!("`{guest}` has address {address:#04x} of `{adapter}` twice");
        found.push(twice(&first, target.address.span, title).help("list it once"));
    } else if !(target.shared && first.shared) {
        let title = format!("address {address:#04x} of `{adapter}` is given to two guests");
        let help = "give it to one of them, or write `shared = true` at both if they may disturb each other";
        found.push(two_guests(&first, guest, target.address.span, title).help(help));
    }
}

fn line_owner<'a>(guest: &'a str, line: &'a Line, owners: &mut Owners<'a>, found: &mut Vec<Diagnostic>) {
    let (chip, number, span) = (line.chip.value.as_str(), line.line.value, line.line.span);
    let owner = Owner { guest, shared: false, span };
    let Some(first) = owners.lines.insert((chip, number), owner) else { return };
    let diagnostic = if first.guest == guest {
        twice(&first, span, format!("`{guest}` has line {number} of `{chip}` twice"))
    } else {
        two_guests(&first, guest, span, format!("line {number} of `{chip}` is given to two guests"))
    };
    found.push(diagnostic.help("give it once"));
}

fn twice(first: &Owner<'_>, span: Span, title: String) -> Diagnostic {
    Diagnostic::new(span, title, "again").related(first.span, "the first time")
}

fn two_guests(first: &Owner<'_>, guest: &str, span: Span, title: String) -> Diagnostic {
    Diagnostic::new(span, title, format!("here to `{guest}`"))
        .related(first.span, format!("here to `{}`", first.guest))
}
