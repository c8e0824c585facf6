// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory and CPUs of the domains.

use std::collections::BTreeSet;

use toml_span::Spanned;

use super::words::is_plain_text;
use crate::board::{Board, PAGE};
use crate::diagnostics::Diagnostic;
use crate::emit::host_dt::{driver_bootargs, guest_bootargs};
use crate::manifest::{Domain, Manifest, Memory};
use crate::spanned::MIB;

/// The least memory with which a kernel and a ramdisk start.
const LEAST: Memory = Memory { bytes: 32 << 20 };

/// The largest number of CPUs of our kernel (`CONFIG_NR_CPUS`).
const MOST_VCPUS: u32 = 8;

/// The memory of Xen and its heap.
const XEN: u64 = 96 << 20;

/// The part of the RAM for Xen's frame table is below one in this number: 56 bytes for each page.
const FRAME_TABLE: u64 = 64;

pub(super) fn check(manifest: &Manifest, board: &Board, found: &mut Vec<Diagnostic>) {
    let driver_domain = &manifest.driver_domain.domain;
    domain(driver_domain, &driver_bootargs(driver_domain), found);
    for guest in &manifest.guests {
        domain(&guest.domain, &guest_bootargs(&guest.domain), found);
    }
    modules(manifest, found);
    let (memory, most) = (&driver_domain.memory, board.machine.static_memory.value.size);
    if memory.value.bytes > most {
        let most = Memory { bytes: most };
        found.push(too_much(memory, format!("the board sets {most} aside for the driver domain"), most));
    }
    sum_of_memory(manifest, board, found);
}

fn sum_of_memory(manifest: &Manifest, board: &Board, found: &mut Vec<Diagnostic>) {
    let driver_domain = &manifest.driver_domain.domain;
    let total = board.machine.ram_size();
    let used = [
        XEN,
        total / FRAME_TABLE,
        // The modules stay in memory until each domain has its copy.
        board.machine.modules.value.size,
        driver_domain.memory.value.bytes,
        page_tables(driver_domain),
    ];
    let mut free = used.iter().fold(total, |free, used| free.saturating_sub(*used));
    for guest in &manifest.guests {
        free = free.saturating_sub(page_tables(&guest.domain));
        let memory = &guest.domain.memory;
        if memory.value.bytes > free {
            let free = Memory { bytes: free };
            let label = format!("{free} are left beside Xen, the domains before it and all page tables");
            found.push(too_much(memory, label, free));
        } else {
            free -= memory.value.bytes;
        }
    }
}

/// The number of modules that Xen takes from the boot loader (`MAX_MODULES`). It ignores the rest.
const MODULES: usize = 32;

/// The number of characters of a kernel's command line that Xen passes on (`BOOTMOD_MAX_CMDLINE`).
const BOOTARGS: usize = 1023;

/// Counts the modules: Xen, the host's device tree, the policy, each domain's device tree, and kernels and
/// ramdisks, which domains can share.
fn modules(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    let driver_domain = &manifest.driver_domain.domain;
    let mut kernels = BTreeSet::from([driver_domain.kernel.value.as_str()]);
    let mut ramdisks = BTreeSet::new();
    // The first three, and the driver domain's device tree and ramdisk.
    let mut others = 5;
    for guest in &manifest.guests {
        kernels.insert(&guest.domain.kernel.value);
        ramdisks.extend(guest.ramdisk.as_ref().map(|ramdisk| ramdisk.value.as_str()));
        others += 1;
        if others + kernels.len() + ramdisks.len() > MODULES {
            let title = format!("the kernels, ramdisks and device trees are more than {MODULES}");
            let label = "Xen would ignore the kernel or the device tree of this guest";
            let help = "let guests share kernels and ramdisks, or have fewer guests";
            return found.push(Diagnostic::new(guest.name.span, title, label).help(help));
        }
    }
}

/// The memory that Xen sets aside for the page tables of a domain (`domain_p2m_pages()`).
fn page_tables(domain: &Domain) -> u64 {
    let pages = 256 * u64::from(domain.vcpus.value) + domain.memory.value.bytes / MIB + 128;
    (pages * PAGE).next_multiple_of(MIB)
}

/// Checks a domain, whose kernel gets the command line `line`.
fn domain(domain: &Domain, line: &str, found: &mut Vec<Diagnostic>) {
    let memory = &domain.memory;
    if memory.value < LEAST {
        let title = format!("{} of memory are too little", memory.value);
        let help = format!("write \"{LEAST}\" or more");
        found.push(Diagnostic::new(memory.span, title, "no kernel starts in this").help(help));
    }
    let vcpus = &domain.vcpus;
    if !(1..=MOST_VCPUS).contains(&vcpus.value) {
        let title = format!("a domain cannot have {} virtual CPUs", vcpus.value);
        let help = format!("write 1 to {MOST_VCPUS}");
        found.push(Diagnostic::new(vcpus.span, title, "out of range").help(help));
    }
    if let Some(bootargs) = &domain.bootargs {
        command_line(bootargs, line, found);
    }
}

fn command_line(written: &Spanned<String>, line: &str, found: &mut Vec<Diagnostic>) {
    let mut refuse = |title: String, label: &str, help: &str| {
        found.push(Diagnostic::new(written.span, title, label).help(help));
    };
    if !is_plain_text(&written.value) {
        let title = "a kernel's command line is one line of ASCII";
        refuse(title.into(), "other characters", "use the characters from space to `~`");
    }
    if line.len() > BOOTARGS {
        let title = format!("the kernel's command line would have {} characters", line.len());
        refuse(title, &format!("Xen cuts it off after {BOOTARGS}"), "leave something out");
    }
    if written.value.matches('"').count() % 2 == 1 {
        let title = "a quotation mark without a second one";
        let label = "the kernel would read all that follows it as one word";
        refuse(title.into(), label, "close the quotation");
    }
}

fn too_much(memory: &Spanned<Memory>, label: String, most: Memory) -> Diagnostic {
    let help = if most < LEAST {
        "give the other domains less".to_owned()
    } else {
        format!("write \"{most}\" or less")
    };
    Diagnostic::new(memory.span, format!("{} of memory are too much", memory.value), label).help(help)
}
