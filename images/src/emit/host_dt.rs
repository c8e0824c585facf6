// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's device tree for Xen: the board's own, with the domains, and with the driver domain's hardware
//! marked.
//!
//! The nodes and properties are those of Xen's `docs/misc/arm/device-tree/booting.txt`. Without a node for a
//! dom0 Xen creates none.

use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode};

use super::fdt::{Build, FLAG, reg, wide};
use super::policy::DRIVER_TYPE;
use crate::board::{Board, Region};
use crate::manifest::Domain;
use crate::plan::{GuestPlan, INTERRUPTS, Plan};

/// The places of a domain's files.
#[derive(Clone, Copy, Debug)]
pub struct DomainFiles {
    /// The kernel.
    pub kernel: Region,
    /// The ramdisk.
    pub ramdisk: Option<Region>,
    /// The partial device tree.
    pub device_tree: Region,
}

/// The places of all files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The policy.
    pub policy: Region,
    /// The driver domain's.
    pub driver_domain: DomainFiles,
    /// The guests', in the order of the manifest.
    pub guests: Vec<DomainFiles>,
}

/// The command line of every domain's kernel. Xen emulates a PL011 for each domain.
const BOOTARGS: &str = "console=ttyAMA0";

/// Linux refuses hypercalls of programs in a domain without an entry in xenstore for the domain that it
/// serves (XSA-482). There is no xenstore here, and the policy limits the hypercalls.
const DRIVER_BOOTARGS: &str = "xen_privcmd.unrestricted=1";

/// The number of SPIs of a guest's GIC: a multiple of 32 that covers those of virtio-mmio.
const GUEST_SPIS: u32 = (INTERRUPTS.last + 1 - 32).next_multiple_of(32);

/// Edits `host`, the board's device tree, with which [`crate::validate::host`] finds nothing wrong.
///
/// # Errors
///
/// The manifest or the board file has an invalid name of a node or a property.
pub fn host_dt(plan: &Plan<'_>, mut host: DeviceTree, files: &Files) -> Result<DeviceTree, ModelError> {
    for hardware in &plan.hardware {
        if let Some(node) = host.find_node_mut(&hardware.host_node.value) {
            *node = std::mem::take(node).set("xen,passthrough", FLAG)?;
        }
    }
    let chosen = host.root.add_child_mut(DeviceTreeNode::new("chosen")?);
    fill_chosen(chosen, plan, files)?;
    Ok(host)
}

fn fill_chosen(chosen: &mut DeviceTreeNode, plan: &Plan<'_>, files: &Files) -> Result<(), ModelError> {
    let policy = module("xen,xsm-policy", files.policy)?;
    let mut node = std::mem::take(chosen)
        .cells(2, 2)?
        .set("xen,xen-bootargs", xen_bootargs(plan.board))?
        .with(policy)
        .with(driver_domain(plan, &files.driver_domain)?);
    for (guest, files) in plan.guests.iter().zip(&files.guests) {
        node.add_child(self::guest(guest, files)?);
    }
    *chosen = node;
    Ok(())
}

fn driver_domain(plan: &Plan<'_>, files: &DomainFiles) -> Result<DeviceTreeNode, ModelError> {
    let written = &plan.manifest.driver_domain.domain;
    let memory = static_memory(plan.board, written);
    let node = domain("driver-domain", written, files, driver_bootargs(written))?
        .set("security-id", label(DRIVER_TYPE))?
        // Memory at fixed addresses, the same in the domain as on the bus, for DMA.
        .set("#xen,static-mem-address-cells", 2u32)?
        .set("#xen,static-mem-size-cells", 2u32)?
        .set("xen,static-mem", reg(memory))?
        .set("direct-map", FLAG)?;
    Ok(node)
}

/// The place of the driver domain's memory.
fn static_memory(board: &Board, domain: &Domain) -> Region {
    Region { base: board.machine.static_memory.value.base, size: domain.memory.value.bytes }
}

fn guest(guest: &GuestPlan<'_>, files: &DomainFiles) -> Result<DeviceTreeNode, ModelError> {
    domain(&guest.guest.name.value, &guest.guest.domain, files, guest_bootargs(&guest.guest.domain))?
        .set("security-id", label(&guest.policy_type()))?
        .set("nr_spis", GUEST_SPIS)?
        // The shim unpauses the guest when its devices answer: an access without an ioreq server is an abort.
        .set("start-paused", FLAG)
}

fn domain(
    name: &str,
    written: &Domain,
    files: &DomainFiles,
    bootargs: String,
) -> Result<DeviceTreeNode, ModelError> {
    let kernel = module("multiboot,kernel", files.kernel)?.set("bootargs", bootargs)?;
    let mut node = DeviceTreeNode::new(name)?
        .set("compatible", "xen,domain")?
        .cells(2, 2)?
        .set("memory", wide(&[written.memory.value.bytes >> 10]))?
        .set("cpus", written.vcpus.value)?
        .set("vpl011", FLAG)?
        // Grants and event channels without xenstore.
        .set("xen,enhanced", "no-xenstore")?
        .with(kernel);
    if let Some(ramdisk) = files.ramdisk {
        node.add_child(module("multiboot,ramdisk", ramdisk)?);
    }
    Ok(node.with(module("multiboot,device-tree", files.device_tree)?))
}

/// Xen's command line. The last of an option's values counts, so no board turns FLASK off.
pub fn xen_bootargs(board: &Board) -> String {
    format!("{} flask=enforcing", board.xen_bootargs.value)
}

/// The command line of the driver domain's kernel.
pub fn driver_bootargs(domain: &Domain) -> String {
    bootargs(&[BOOTARGS, DRIVER_BOOTARGS], domain)
}

/// The command line of a guest's kernel.
pub fn guest_bootargs(domain: &Domain) -> String {
    bootargs(&[BOOTARGS], domain)
}

fn bootargs(own: &[&str], domain: &Domain) -> String {
    let words = own.iter().copied().chain(domain.bootargs.as_ref().map(|written| written.value.as_str()));
    words.collect::<Vec<_>>().join(" ")
}

fn module(kind: &str, region: Region) -> Result<DeviceTreeNode, ModelError> {
    DeviceTreeNode::new(format!("module@{:x}", region.base))?
        .set_strings("compatible", &[kind, "multiboot,module"])?
        .set("reg", reg(region))
}

fn label(policy_type: &str) -> String {
    format!("system_u:system_r:{policy_type}")
}
