// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory and CPUs of the domains.

use toml_span::Spanned;

use crate::board::Board;
use crate::diagnostics::Diagnostic;
use crate::manifest::{Domain, Manifest, Memory};

/// Less than this and a kernel with its ramdisk does not start.
const LEAST: Memory = Memory { bytes: 32 << 20 };

/// What the project's kernel is built for (`CONFIG_NR_CPUS`).
const MOST_VCPUS: u32 = 8;

/// What Xen needs for itself: its heap, the frame table, the domains' page tables.
const XEN: Memory = Memory { bytes: 128 << 20 };

pub(super) fn check(manifest: &Manifest, board: &Board, found: &mut Vec<Diagnostic>) {
    each(&manifest.driver_domain.domain, found);
    let memory = &manifest.driver_domain.domain.memory;
    let most = Memory { bytes: board.machine.static_memory.size };
    if memory.value > most {
        found.push(too_much(memory, format!("the board sets {most} aside for the driver domain"), most));
    }

    // The modules stay in memory until each domain has its copy of them.
    let total: u64 = board.machine.ram.iter().map(|bank| bank.size).sum();
    let spoken_for = [XEN.bytes, board.machine.modules.size, memory.value.bytes];
    let mut free = Memory { bytes: spoken_for.iter().fold(total, |free, used| free.saturating_sub(*used)) };
    for guest in &manifest.guests {
        each(&guest.domain, found);
        let memory = &guest.domain.memory;
        if memory.value > free {
            let label = format!("{free} are left when Xen and the domains before it have theirs");
            found.push(too_much(memory, label, free));
        } else {
            free.bytes -= memory.value.bytes;
        }
    }
}

fn each(domain: &Domain, found: &mut Vec<Diagnostic>) {
    let memory = &domain.memory;
    if memory.value < LEAST {
        let title = format!("{} of memory are too little", memory.value);
        found.push(
            Diagnostic::new(memory.span, title, "no kernel starts in this")
                .help(format!("write \"{LEAST}\" or more")),
        );
    }
    let vcpus = &domain.vcpus;
    if !(1..=MOST_VCPUS).contains(&vcpus.value) {
        let title = format!("a domain cannot have {} virtual CPUs", vcpus.value);
        found.push(
            Diagnostic::new(vcpus.span, title, "out of range").help(format!("write 1 to {MOST_VCPUS}")),
        );
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
