// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What there is, by the device tree that Xen made.

use alloc::vec::Vec;

use anyhow::{Context, Result};
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property, ToCellInt};

use crate::machine;
use crate::virtio::window::Window;

/// The first interrupt that is not of one CPU.
const FIRST_SHARED: u32 = 32;

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
    collect(&tree()?.root(), &mut windows);
    Ok(windows)
}

fn collect(node: &dtoolkit::fdt::FdtNode<'static>, windows: &mut Vec<Window>) {
    if node.compatible().is_some_and(|mut names| names.any(|name| name == "virtio,mmio")) {
        windows.extend(window(node));
    }
    for child in node.children() {
        collect(&child, windows);
    }
}

fn window(node: &dtoolkit::fdt::FdtNode<'static>) -> Option<Window> {
    let base = node.reg().ok()??.next()?.address::<u64>().ok()?;
    let mut interrupts = node.property("interrupts")?.as_prop_encoded_array([1, 1, 1]).ok()?;
    let [_, number, _] = interrupts.next()?;
    let number: u32 = number.to_int().ok()?;
    Some(Window { base, interrupt: usize::try_from(number + FIRST_SHARED).ok()? })
}
