// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What there is, by the device tree that Xen made.

use alloc::vec::Vec;

use anyhow::{Context, Result};
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property, ToCellInt};
use spin::Once;

use crate::machine;
use crate::virtio::window::Window;

/// The first interrupt that is not of one CPU.
const FIRST_SHARED: u32 = 32;

/// What the guest needs before it knows anything else.
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

/// Where Xen puts them in a guest (Xen's public header arch-arm.h: GUEST_PL011_BASE, GUEST_VPL011_SPI,
/// GUEST_GICV3_GICD_BASE, GUEST_GICV3_GICR0_BASE).
const USUAL: Places = Places {
    console: 0x2200_0000,
    console_interrupt: 32,
    distributor: 0x0300_1000,
    redistributors: 0x0302_0000,
};

/// Where they are. In a domain whose memory is where the machine has it, they are where the machine has them, too.
pub fn places() -> Places {
    static PLACES: Once<Places> = Once::new();
    *PLACES.call_once(|| tree().map_or(USUAL, |tree| find_places(&tree)))
}

fn find_places(tree: &Fdt<'static>) -> Places {
    let mut found = USUAL;
    visit(&tree.root(), &mut |node| {
        let is = |name: &str| node.compatible().is_some_and(|mut names| names.any(|other| other == name));
        if is("arm,sbsa-uart") {
            found.console = address(node, 0).unwrap_or(found.console);
            found.console_interrupt = interrupt(node).unwrap_or(found.console_interrupt);
        } else if is("arm,gic-v3") {
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

/// The beginning of a node's range of registers.
fn address(node: &FdtNode<'static>, index: usize) -> Option<u64> {
    node.reg().ok()??.nth(index)?.address::<u64>().ok()
}

/// A node's first interrupt, one that all CPUs share.
fn interrupt(node: &FdtNode<'static>) -> Option<usize> {
    let mut interrupts = node.property("interrupts")?.as_prop_encoded_array([1, 1, 1]).ok()?;
    let [_, number, _] = interrupts.next()?;
    let number: u32 = number.to_int().ok()?;
    usize::try_from(number + FIRST_SHARED).ok()
}

fn tree() -> Result<Fdt<'static>> {
    Fdt::new(machine::device_tree()).ok().context("no device tree")
}

/// How many CPUs the guest has.
#[must_use]
pub fn cpus() -> usize {
    let count = tree().ok().and_then(|tree| tree.cpus().ok().map(|cpus| cpus.cpus().count()));
    count.unwrap_or(1)
}

/// What somebody wrote for this guest in the manifest.
///
/// # Errors
/// There is no device tree.
pub fn bootargs() -> Result<&'static str> {
    let chosen = tree()?.find_node("/chosen").context("no /chosen")?;
    Ok(chosen.property("bootargs").and_then(|property| property.value_as::<&str>().ok()).unwrap_or_default())
}

/// The virtio devices, in the order of the tree.
///
/// # Errors
/// There is no device tree.
pub fn windows() -> Result<Vec<Window>> {
    let mut windows = Vec::new();
    visit(&tree()?.root(), &mut |node| {
        if node.compatible().is_some_and(|mut names| names.any(|name| name == "virtio,mmio")) {
            windows.extend(window(node));
        }
    });
    Ok(windows)
}

fn window(node: &FdtNode<'static>) -> Option<Window> {
    Some(Window { base: address(node, 0)?, interrupt: interrupt(node)? })
}
