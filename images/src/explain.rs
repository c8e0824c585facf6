// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who reaches what, as text: the domains, their memory, their devices and what is behind these.

use std::fmt::Write;

use shim_config::Backend;

use crate::diagnostics::counted;
use crate::manifest::{Domain, MemoryAccess};
use crate::plan::{DRIVER_DOMID, DevicePlan, GuestPlan, Plan};

/// The text about all domains of `plan`.
pub fn explain(plan: &Plan<'_>) -> String {
    let driver_domain = &plan.manifest.driver_domain;
    let mut text = format!("board {}\n", plan.manifest.board.value);
    let hardware: Vec<_> = plan.hardware.iter().map(|hardware| hardware.name.value.as_str()).collect();
    let size = size(&driver_domain.domain);
    // Writing to a string does not fail.
    let _ = writeln!(text, "driver domain: domain {DRIVER_DOMID}, {size}");
    let _ = writeln!(text, "  owns      {}", hardware.join(", "));
    for guest in &plan.guests {
        guest_text(&mut text, guest);
    }
    text
}

fn size(domain: &Domain) -> String {
    format!("{}, {}", domain.memory.value, counted(domain.vcpus.value as usize, "vCPU"))
}

fn guest_text(text: &mut String, guest: &GuestPlan<'_>) {
    let (name, domid) = (&guest.guest.name.value, guest.domid);
    let _ = writeln!(text, "{name}: domain {domid}, {}", size(&guest.guest.domain));
    let _ = writeln!(text, "  memory    the driver domain reaches {}", memory(guest));
    let _ = writeln!(text, "  worker    user {}", guest.user);
    for device in &guest.devices {
        device_text(text, device);
    }
}

fn memory(guest: &GuestPlan<'_>) -> String {
    match guest.guest.memory_access.value {
        MemoryAccess::Granted => "the pages that the guest grants, while it grants them".into(),
        MemoryAccess::All => {
            let banks = guest.reached_memory();
            let bank = |bank: &shim_config::MemoryBank| {
                format!("{:#x} to {:#x}", bank.base, bank.base + (bank.size - 1))
            };
            let banks: Vec<_> = banks.iter().map(bank).collect();
            format!("all of it, at any time: {}", banks.join(", "))
        }
    }
}

fn device_text(text: &mut String, device: &DevicePlan<'_>) {
    let shim_config::Device { name, base, irq, queues, optional, .. } = &device.configuration;
    let _ = writeln!(text, "  device    {name}: {}", device.device.device_type.summary());
    let last = base + (shim_config::WINDOW_SIZE - 1);
    let _ = writeln!(text, "    window    {base:#x} to {last:#x}, interrupt {irq}, queues: {queues}");
    let absent = if *optional { "; the guest starts without it" } else { "" };
    let _ = writeln!(text, "    backend   {}{absent}", backend(device));
    for line in device.device.device_type.reaches() {
        let _ = writeln!(text, "    reaches   {line}");
    }
}

fn backend(device: &DevicePlan<'_>) -> String {
    match &device.configuration.backend {
        Backend::Socket(path) => format!("the program that listens at {}", path.display()),
        Backend::Program(program) => {
            let name = program.command.first().map_or("", String::as_str);
            match (program.user, &program.confine) {
                (Some(user), Some(_)) => format!("{name}, user {user}, confined by the shim"),
                (Some(user), None) => format!("{name}, user {user}"),
                (None, _) => format!("{name}, the worker's user, confined by itself"),
            }
        }
    }
}
