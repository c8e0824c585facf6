// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's partial device tree, with its virtio-mmio devices and the targets on their buses.

use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode};

use super::fdt::{Build, FIRST_FREE_PHANDLE, FLAG, GIC, partial, reg, spi};
use crate::board::Region;
use crate::manifest::Target;
use crate::plan::{DRIVER_DOMID, DevicePlan, Function, GuestPlan, WINDOW_SIZE};

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
    let grant_dma = DeviceTreeNode::new("grant-dma")?
        .set("compatible", "xen,grant-dma")?
        .set("#iommu-cells", 1u32)?
        .set("phandle", GRANT_DMA)?;
    let mut nodes = vec![grant_dma];
    for device in &guest.devices {
        nodes.push(virtio_mmio(device)?);
    }
    partial(nodes)
}

fn virtio_mmio(device: &DevicePlan<'_>) -> Result<DeviceTreeNode, ModelError> {
    let node = DeviceTreeNode::new(format!("virtio@{:x}", device.base))?
        .set("compatible", "virtio,mmio")?
        .set("reg", reg(Region { base: device.base, size: WINDOW_SIZE }))?
        .set("interrupt-parent", GIC)?
        .set("interrupts", spi(device.irq - FIRST_SPI, EDGE_RISING))?
        .set("iommus", [GRANT_DMA, u32::from(DRIVER_DOMID)])?
        .set("dma-coherent", FLAG)?;
    Ok(node.with(function(&device.function)?))
}

/// The node of the device. Linux finds it by `virtio,device` with the device ID in hexadecimal, and the
/// targets below it (`virtio/virtio-device.yaml`).
fn function(function: &Function<'_>) -> Result<DeviceTreeNode, ModelError> {
    let compatible = format!("virtio,device{:x}", function.device_id());
    match function {
        Function::I2c { targets, .. } => {
            let mut node = DeviceTreeNode::new("i2c")?.set("compatible", compatible)?.cells(1, 0)?;
            for target in *targets {
                if let Some(drivers) = &target.compatible {
                    node.add_child(i2c_target(target, drivers)?);
                }
            }
            Ok(node)
        }
        Function::Gpio { .. } => DeviceTreeNode::new("gpio")?
            .set("compatible", compatible)?
            .set("gpio-controller", FLAG)?
            .set("#gpio-cells", 2u32)?
            .set("interrupt-controller", FLAG)?
            .set("#interrupt-cells", 2u32),
    }
}

fn i2c_target(target: &Target, drivers: &[String]) -> Result<DeviceTreeNode, ModelError> {
    // The validation limits the address to seven bits.
    let address = u32::try_from(target.address.value).unwrap_or(u32::MAX);
    let mut node = DeviceTreeNode::new(format!("target@{address:x}"))?
        .set_strings("compatible", drivers)?
        .set("reg", address)?;
    for (name, value) in &target.properties {
        node = node.set_written(&name.value, value)?;
    }
    Ok(node)
}
