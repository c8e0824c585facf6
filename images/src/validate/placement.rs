// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Register windows and interrupts that the manifest fixes: within what Xen reserves for virtio-mmio, and
//! apart.

use toml_span::Spanned;

use crate::diagnostics::Diagnostic;
use crate::manifest::{Device, Manifest};
use crate::plan::{INTERRUPTS, WINDOW_SIZE, WINDOWS};

pub(super) fn check(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    for guest in &manifest.guests {
        let most = INTERRUPTS.count();
        if let Some(device) = guest.devices.get(most) {
            let title = format!("`{}` has {} devices", guest.name.value, guest.devices.len());
            let label = format!("Xen reserves interrupts for {most} virtio-mmio devices of a guest");
            let help = "put targets of one adapter, and lines of all chips, into one device each";
            found.push(Diagnostic::new(device.span, title, label).help(help));
        }
        windows(&guest.devices, found);
        interrupts(&guest.devices, found);
    }
}

fn windows(devices: &[Device], found: &mut Vec<Diagnostic>) {
    let bases: Vec<_> = devices.iter().filter_map(|device| device.base.as_ref()).collect();
    for (place, base) in bases.iter().enumerate() {
        let value = u64::try_from(base.value).unwrap_or(u64::MAX);
        let inside = WINDOWS.base <= value && value <= WINDOWS.end() - WINDOW_SIZE;
        if !inside || value % WINDOW_SIZE != 0 {
            let title = format!("there cannot be a register window at {:#x}", base.value);
            let label = if inside { "not aligned" } else { "outside what Xen reserves for virtio-mmio" };
            let help = format!(
                "write a multiple of {WINDOW_SIZE:#x} from {:#x} to {:#x}, or leave `base` out",
                WINDOWS.base,
                WINDOWS.end() - WINDOW_SIZE
            );
            found.push(Diagnostic::new(base.span, title, label).help(help));
        }
        let overlaps = |other: &&&Spanned<i64>| base.value.abs_diff(other.value) < WINDOW_SIZE;
        if let Some(first) = bases.iter().take(place).find(overlaps) {
            found.push(
                Diagnostic::new(base.span, "two register windows overlap", "this one")
                    .related(first.span, "and this one")
                    .help(format!("place them {WINDOW_SIZE:#x} bytes apart, or leave `base` out")),
            );
        }
    }
}

fn interrupts(devices: &[Device], found: &mut Vec<Diagnostic>) {
    let irqs: Vec<_> = devices.iter().filter_map(|device| device.irq.as_ref()).collect();
    let (first, last) = (INTERRUPTS.first, INTERRUPTS.last);
    for (place, irq) in irqs.iter().enumerate() {
        if !(i64::from(first)..=i64::from(last)).contains(&irq.value) {
            let title = format!("a virtio-mmio device cannot have interrupt {}", irq.value);
            let help = format!("write {first} to {last} (the INTID: the SPI plus 32), or leave `irq` out");
            found.push(
                Diagnostic::new(irq.span, title, "outside what Xen reserves for virtio-mmio").help(help),
            );
        }
        if let Some(first) = irqs.iter().take(place).find(|other| other.value == irq.value) {
            found.push(
                Diagnostic::new(irq.span, format!("two devices have interrupt {}", irq.value), "this one")
                    .related(first.span, "and this one")
                    .help("give each its own, or leave `irq` out"),
            );
        }
    }
}
