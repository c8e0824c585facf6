// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Prints the domains and their devices as a tree, from the manifest.

use std::path::Path;

use anyhow::{Context, Result};
use images::load::load;
use images::plan::{DRIVER_DOMID, GuestPlan, Plan};

/// Prints the tree of the demo's manifest.
pub(crate) fn print() -> Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/examples/demo.toml");
    let loaded = load(&manifest)?;
    let plan = Plan::new(&loaded.manifest, &loaded.board).context("the demo's manifest has no plan")?;
    println!("\nWho owns what (images/examples/demo.toml)\n");
    println!("  board {}", loaded.manifest.board.value);
    let domain = &loaded.manifest.driver_domain;
    let memory = domain.domain.memory.value.mib();
    println!("  └─ driver domain    domain {DRIVER_DOMID}, {memory} MiB, owns the hardware");
    for hardware in &domain.hardware {
        println!("     │    {}", hardware.value);
    }
    let last = plan.guests.len().saturating_sub(1);
    for (place, guest) in plan.guests.iter().enumerate() {
        print_guest(guest, place == last);
    }
    println!();
    Ok(())
}

fn print_guest(plan: &GuestPlan<'_>, last: bool) {
    let (branch, stem) = if last { ("└─", "  ") } else { ("├─", "│ ") };
    let (name, memory) = (&plan.guest.name.value, plan.guest.domain.memory.value.mib());
    println!("     {branch} {name:<13} domain {}, {memory} MiB, reaches no more than", plan.domid);
    for device in &plan.devices {
        for thing in device.device.device_type.reaches() {
            println!("     {stem}   {thing}");
        }
    }
}
