// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver domain's partial device tree, with the hardware that it owns.

use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode};

use super::fdt::{Build, FIRST_FREE_PHANDLE, FLAG, GIC, partial, reg, spi, wide};
use crate::board::{Clock, Hardware};
use crate::plan::Plan;

/// The prefix of the names of clock nodes.
pub const CLOCK_PREFIX: &str = "clock-";

/// Makes the tree.
///
/// # Errors
///
/// The board file has an invalid name of a node or a property.
pub fn driver_dt(plan: &Plan<'_>) -> Result<DeviceTree, ModelError> {
    let mut nodes = Vec::new();
    let mut phandles = FIRST_FREE_PHANDLE..;
    for hardware in &plan.hardware {
        let mut node = device(hardware)?;
        if !hardware.clocks.is_empty() {
            let clocks: Vec<_> = hardware.clocks.iter().zip(phandles.by_ref()).collect();
            let names: Vec<_> = clocks.iter().map(|(clock, _)| &clock.name.value).collect();
            let handles: Vec<_> = clocks.iter().map(|(_, phandle)| *phandle).collect();
            node = node.set_strings("clock-names", &names)?.set("clocks", handles)?;
            for (clock, phandle) in clocks {
                nodes.push(fixed_clock(hardware, clock, phandle)?);
            }
        }
        nodes.push(node);
    }
    partial(nodes)
}

fn device(hardware: &Hardware) -> Result<DeviceTreeNode, ModelError> {
    let registers: Vec<_> = hardware.reg.value.iter().flat_map(|region| reg(region.value)).collect();
    // `xen,reg` has the address, the size and the address in the domain of each range of pages.
    let pages: Vec<_> = hardware.pages().flat_map(|page| wide(&[page.base, page.size, page.base])).collect();
    let interrupts: Vec<_> =
        hardware.interrupts.iter().flat_map(|interrupt| spi(interrupt.spi, interrupt.flags)).collect();
    let mut node = DeviceTreeNode::new(&hardware.node.value)?
        .set_strings("compatible", &hardware.compatible)?
        .set("reg", registers)?
        .set("interrupt-parent", GIC)?
        .set("interrupts", interrupts)?
        .set("xen,reg", pages)?
        .set("xen,path", hardware.host_node.value.as_str())?
        // The domain's memory is mapped one to one, so DMA works without an IOMMU, and reaches all memory of
        // the board.
        .set("xen,force-assign-without-iommu", FLAG)?;
    for (name, value) in &hardware.properties {
        node = node.set_written(&name.value, value)?;
    }
    Ok(node)
}

/// A clock of the host keeps the rate that the firmware has set; in the driver domain it is a fixed clock.
fn fixed_clock(hardware: &Hardware, clock: &Clock, phandle: u32) -> Result<DeviceTreeNode, ModelError> {
    // A node's name has at most 31 characters (Devicetree Specification 0.4, 2.2.1).
    DeviceTreeNode::new(format!("{CLOCK_PREFIX}{phandle}"))?
        .set("compatible", "fixed-clock")?
        .set("#clock-cells", 0u32)?
        .set("clock-frequency", clock.frequency)?
        .set("clock-output-names", format!("{}-{}", hardware.name.value, clock.name.value))?
        .set("phandle", phandle)
}
