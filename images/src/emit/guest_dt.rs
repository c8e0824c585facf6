// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's partial device tree, with its virtio-mmio devices.

use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode};

use super::fdt::{Build, FIRST_FREE_PHANDLE, FLAG, GIC, partial, reg, spi};
use crate::board::Region;
use crate::manifest::MemoryAccess;
use crate::plan::{DRIVER_DOMID, DevicePlan, GuestPlan, WINDOW_SIZE};

/// The phandle of the IOMMU by which the guest's kernel grants pages to a device.
const GRANT_DMA: u32 = FIRST_FREE_PHANDLE;

/// A rising edge in the GIC's binding: the shim raises each interrupt of virtio-mmio once.
const EDGE_RISING: u32 = 1;

/// The INTID of the first SPI.
const FIRST_SPI: u32 = 32;

/// Makes the tree.
///
/// # Errors
///
/// The manifest has an invalid name of a property.
pub fn guest_dt(guest: &GuestPlan<'_>) -> Result<DeviceTree, ModelError> {
    let is_granted = guest.guest.memory_access.value == MemoryAccess::Granted;
    let mut nodes = Vec::new();
    if is_granted {
        let grant_dma = DeviceTreeNode::new("grant-dma")?
            .set("compatible", "xen,grant-dma")?
            .set("#iommu-cells", 1u32)?
            .set("phandle", GRANT_DMA)?;
        nodes.push(grant_dma);
    }
    for device in &guest.devices {
        nodes.push(virtio_mmio(device, is_granted)?);
    }
    partial(nodes)
}

fn virtio_mmio(device: &DevicePlan<'_>, is_granted: bool) -> Result<DeviceTreeNode, ModelError> {
    let shim_config::Device { base, irq, .. } = device.configuration;
    let mut node = DeviceTreeNode::new(format!("virtio@{base:x}"))?
        .set("compatible", "virtio,mmio")?
        .set("reg", reg(Region { base, size: WINDOW_SIZE }))?
        .set("interrupt-parent", GIC)?
        .set("interrupts", spi(irq - FIRST_SPI, EDGE_RISING))?;
    if is_granted {
        node = node.set("iommus", [GRANT_DMA, u32::from(DRIVER_DOMID)])?;
    }
    node = node.set("dma-coherent", FLAG)?;
    if let Some(own) = device.device.device_type.node()? {
        node.add_child(own);
    }
    Ok(node)
}
