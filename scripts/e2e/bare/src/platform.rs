// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The hardware, as described by the device tree from Xen.

use alloc::vec::Vec;
use core::ops::Range;

use anyhow::{Context, Result};
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property, ToCellInt};
use spin::Once;

use crate::machine;

/// The number of the first shared peripheral interrupt.
const FIRST_SHARED: u32 = 32;

/// The addresses of the devices that a driver domain serves (Xen's public header arch-arm.h:
/// GUEST_VIRTIO_MMIO_BASE, GUEST_VIRTIO_MMIO_SIZE).
const SERVED: Range<u64> = 0x0200_0000..0x0210_0000;

/// Addresses and interrupts of the hardware that every domain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The console, an emulated PL011.
    pub console: u64,
    /// Its interrupt.
    pub console_interrupt: usize,
    /// The distributor of the interrupt controller.
    pub distributor: u64,
    /// The first redistributor.
    pub redistributors: u64,
}

/// The values in a guest (Xen's public header arch-arm.h: GUEST_PL011_BASE, GUEST_VPL011_SPI,
/// GUEST_GICV3_GICD_BASE, GUEST_GICV3_GICR0_BASE).
const GUEST: Places = Places {
    console: 0x2200_0000,
    console_interrupt: 32,
    distributor: 0x0300_1000,
    redistributors: 0x0302_0000,
};

/// Returns the values of the device tree. In a direct-mapped domain they are those of the physical machine.
pub fn places() -> Places {
    static PLACES: Once<Places> = Once::new();
    *PLACES.call_once(|| tree().map_or(GUEST, |tree| find_places(&tree)))
}

fn find_places(tree: &Fdt<'static>) -> Places {
    let mut found = GUEST;
    visit(&tree.root(), &mut |node| {
        if is_compatible(node, "arm,sbsa-uart") {
            found.console = address(node, 0).unwrap_or(found.console);
            found.console_interrupt = interrupt(node).unwrap_or(found.console_interrupt);
        } else if is_compatible(node, "arm,gic-v3") {
            found.distributor = address(node, 0).unwrap_or(found.distributor);
            found.redistributors = address(node, 1).unwrap_or(found.redistributors);
        }
    });
    found
}

fn visit(node: &FdtNode<'static>, see: &mut impl FnMut(&FdtNode<'static>)) {
    see(node);
    for child in node.children() {
        visit(&child, see);
    }
}

fn is_compatible(node: &FdtNode<'static>, name: &str) -> bool {
    node.compatible().is_some_and(|mut names| names.any(|other| other == name))
}

/// Returns the start of register range `index` of a node.
fn address(node: &FdtNode<'static>, index: usize) -> Option<u64> {
    node.reg().ok()??.nth(index)?.address::<u64>().ok()
}

/// Returns the first interrupt of a node, a shared one.
fn interrupt(node: &FdtNode<'static>) -> Option<usize> {
    let mut interrupts = node.property("interrupts")?.as_prop_encoded_array([1, 1, 1]).ok()?;
    let [_, number, _] = interrupts.next()?;
    let number: u32 = number.to_int().ok()?;
    usize::try_from(number + FIRST_SHARED).ok()
}

fn tree() -> Result<Fdt<'static>> {
    Fdt::new(machine::device_tree()).ok().context("there is no valid device tree")
}

/// Returns the number of CPUs.
#[must_use]
pub fn cpus() -> usize {
    let count = tree().ok().and_then(|tree| tree.cpus().ok().map(|cpus| cpus.cpus().count()));
    count.unwrap_or(1)
}

/// Returns the guest's `bootargs` of the manifest.
///
/// # Errors
/// Returns an error if there is no device tree.
pub fn bootargs() -> Result<&'static str> {
    let chosen = tree()?.find_node("/chosen").context("the device tree has no /chosen")?;
    Ok(chosen.property("bootargs").and_then(|property| property.value_as::<&str>().ok()).unwrap_or_default())
}

/// Returns whether the guest has to grant pages to its devices: the device tree has an IOMMU for them. A
/// domain that no driver domain serves has grants: a driver domain owns virtio devices of the board.
pub fn has_grants() -> bool {
    static HAS_GRANTS: Once<bool> = Once::new();
    *HAS_GRANTS.call_once(|| {
        let (mut devices, mut with_iommu) = (0_usize, 0_usize);
        if let Ok(tree) = tree() {
            visit(&tree.root(), &mut |node| {
                let is_served = address(node, 0).is_some_and(|address| SERVED.contains(&address));
                if is_served && is_compatible(node, "virtio,mmio") {
                    devices += 1;
                    with_iommu += usize::from(node.property("iommus").is_some());
                }
            });
        }
        devices == 0 || with_iommu > 0
    })
}

/// Returns base address and interrupt of each virtio-mmio device, in the order of the tree.
///
/// # Errors
/// Returns an error if there is no device tree.
pub fn virtio_devices() -> Result<Vec<(u64, usize)>> {
    let mut devices = Vec::new();
    visit(&tree()?.root(), &mut |node| {
        if is_compatible(node, "virtio,mmio") {
            devices.extend(address(node, 0).zip(interrupt(node)));
        }
    });
    Ok(devices)
}
