// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's device tree as Xen reads it: the board's own, plus the domains, minus the hardware that is given away.
//!
//! The nodes and properties are those of Xen's `docs/misc/arm/device-tree/booting.txt`. There is no node for a dom0, so
//! Xen makes none.

use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode};

use super::fdt::{Build, FLAG, reg, wide};
use super::policy::DRIVER_TYPE;
use crate::board::{Board, Region};
use crate::manifest::Domain;
use crate::plan::{GuestPlan, INTERRUPTS, Plan};

/// Where the files of one domain are.
#[derive(Clone, Copy, Debug)]
pub struct DomainFiles {
    /// The kernel.
    pub kernel: Region,
    /// The ramdisk.
    pub ramdisk: Option<Region>,
    /// The partial device tree.
    pub device_tree: Region,
}

/// Where all files are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The policy.
    pub policy: Region,
    /// The driver domain's.
    pub driver_domain: DomainFiles,
    /// The guests', in their order.
    pub guests: Vec<DomainFiles>,
}

/// What every domain's kernel is told: Xen gives each domain an emulated PL011.
const BOOTARGS: &str = "console=ttyAMA0";

/// The driver domain has no xenstore in which Xen's tools would have written whom it may serve, and without that
/// entry Linux refuses hypercalls to its programs (XSA-482). What they may do is the policy's to say.
const DRIVER_BOOTARGS: &str = "xen_privcmd.unrestricted=1";

/// The interrupts that a guest's GIC has: a multiple of 32 that covers what Xen reserves for virtio-mmio.
const GUEST_SPIS: u32 = (INTERRUPTS.last + 1 - 32).next_multiple_of(32);

/// Edits `host`, the board's device tree, with which [`crate::validate::host`] finds nothing wrong.
///
/// # Errors
///
/// The manifest or the board file has a name that no node or property can have.
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
        // Memory at fixed addresses, and at the same in the domain as on the bus: devices do DMA into it.
        .set("#xen,static-mem-address-cells", 2u32)?
        .set("#xen,static-mem-size-cells", 2u32)?
        .set("xen,static-mem", reg(memory))?
        .set("direct-map", FLAG)?;
    Ok(node)
}

/// Where the driver domain's memory is.
fn static_memory(board: &Board, domain: &Domain) -> Region {
    Region { base: board.machine.static_memory.value.base, size: domain.memory.value.bytes }
}

fn guest(guest: &GuestPlan<'_>, files: &DomainFiles) -> Result<DeviceTreeNode, ModelError> {
    domain(&guest.guest.name.value, &guest.guest.domain, files, guest_bootargs(&guest.guest.domain))?
        .set("security-id", label(&guest.policy_type()))?
        .set("nr_spis", GUEST_SPIS)?
        // Until its devices answer: an access that nobody handles is an abort. The shim starts it.
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
        // Grants and event channels, but no xenstore: nobody here would serve it.
        .set("xen,enhanced", "no-xenstore")?
        .with(kernel);
    if let Some(ramdisk) = files.ramdisk {
        node.add_child(module("multiboot,ramdisk", ramdisk)?);
    }
    Ok(node.with(module("multiboot,device-tree", files.device_tree)?))
}

/// Xen's command line. Of an option that is given twice the last counts, and no board may turn FLASK off.
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
