// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where a guest's devices are: within what Xen reserves for virtio-mmio, each in a place of its own.

use toml_span::Span;

use crate::diagnostics::Diagnostic;
use crate::manifest::{Guest, Manifest, Placement};
use crate::plan::{INTERRUPTS, WINDOW_SIZE, WINDOWS};

pub(super) fn check(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    for guest in &manifest.guests {
        let devices = devices(guest);
        let most = INTERRUPTS.count();
        if let Some((_, span)) = devices.get(most) {
            let title = format!("`{}` has {} devices", guest.name.value, devices.len());
            let label = format!("Xen reserves interrupts for {most} virtio-mmio devices of a guest");
            found.push(
                Diagnostic::new(*span, title, label)
                    .help("put targets of one adapter, and lines of all chips, into one device each"),
            );
        }
        windows(&devices, found);
        interrupts(&devices, found);
    }
}

/// All devices of `guest`, in the order in which they are placed.
fn devices(guest: &Guest) -> Vec<(&Placement, Span)> {
    let i2c = guest.i2c.iter().map(|device| (&device.placement, device.span));
    let gpio = guest.gpio.iter().map(|device| (&device.placement, device.span));
    i2c.chain(gpio).collect()
}

fn windows(devices: &[(&Placement, Span)], found: &mut Vec<Diagnostic>) {
    let mut taken: Vec<(i64, Span)> = Vec::new();
    for base in devices.iter().filter_map(|(placement, _)| placement.base.as_ref()) {
        let value = u64::try_from(base.value).unwrap_or(u64::MAX);
        let inside = WINDOWS.base <= value && value <= WINDOWS.end() - WINDOW_SIZE;
        if !inside || value % WINDOW_SIZE != 0 {
            let title = format!("there cannot be a register window at {:#x}", base.value);
            let label = if inside { "not aligned" } else { "outside what Xen reserves for virtio-mmio" };
            found.push(Diagnostic::new(base.span, title, label).help(format!(
                "write a multiple of {WINDOW_SIZE:#x} from {:#x} to {:#x}, or leave `base` out",
                WINDOWS.base,
                WINDOWS.end() - WINDOW_SIZE
            )));
        }
        if let Some((_, first)) = taken.iter().find(|(other, _)| base.value.abs_diff(*other) < WINDOW_SIZE) {
            found.push(
                Diagnostic::new(base.span, "two register windows overlap", "this one")
                    .related(*first, "and this one")
                    .help(format!("place them {WINDOW_SIZE:#x} bytes apart, or leave `base` out")),
            );
        }
        taken.push((base.value, base.span));
    }
}

fn interrupts(devices: &[(&Placement, Span)], found: &mut Vec<Diagnostic>) {
    let mut taken: Vec<(i64, Span)> = Vec::new();
    let (first, last) = (INTERRUPTS.first, INTERRUPTS.last);
    for irq in devices.iter().filter_map(|(placement, _)| placement.irq.as_ref()) {
        if !(i64::from(first)..=i64::from(last)).contains(&irq.value) {
            let title = format!("a virtio-mmio device cannot have interrupt {}", irq.value);
            found.push(Diagnostic::new(irq.span, title, "outside what Xen reserves for virtio-mmio").help(
                format!(
                    "write {first} to {last} (the number at the GIC: the SPI plus 32), or leave `irq` out"
                ),
            ));
        }
        if let Some((_, first)) = taken.iter().find(|(other, _)| irq.value == *other) {
            let title = format!("two devices have interrupt {}", irq.value);
            found.push(
                Diagnostic::new(irq.span, title, "this one")
                    .related(*first, "and this one")
                    .help("give each its own, or leave `irq` out"),
            );
        }
        taken.push((irq.value, irq.span));
    }
}
