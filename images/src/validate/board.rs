// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A board file by itself: memory, command lines and hardware.

mod hardware;

use toml_span::Spanned;

use super::words::is_plain_text;
use crate::board::{Board, Machine, PAGE, Region};
use crate::diagnostics::Diagnostic;
use crate::emit::host_dt::xen_bootargs;
use crate::kernel::UNIT;

/// The end of the physical addresses that Xen reaches (`PADDR_BITS` without 52-bit addresses).
const ADDRESSES: u64 = 1 << 48;

/// The characters of its command line that Xen keeps (`saved_cmdline`). `flask=enforcing` stands at the end.
const XEN_BOOTARGS: usize = 1023;

/// The characters of one option that Xen reads (`MAX_PARAM_SIZE`).
const XEN_OPTION: usize = 127;

/// The guest physical addresses of a domain's grant table (`GUEST_GNTTAB_BASE` and `_SIZE` in Xen's public
/// header `arch-arm.h`). Xen 4.20 uses them for a domain with `direct-map`, too (`prepare_dtb_domU()`).
const GRANT_TABLE: Region = Region { base: 0x3800_0000, size: 0x0100_0000 };

/// Where QEMU loads Xen: at 2 MiB from the start of RAM (`hw/arm/boot.c`), in at most the 8 MiB that Xen maps
/// of itself (`XEN_VIRT_SIZE`). A small program of QEMU's is at the start.
const QEMU_XEN: u64 = 10 << 20;

/// Where QEMU puts the device tree, from the start of RAM: here, or in the middle of a smaller RAM.
const QEMU_DEVICE_TREE: u64 = 128 << 20;

pub(super) fn check(board: &Board, found: &mut Vec<Diagnostic>) {
    machine(&board.machine, found);
    command_line(board, found);
    if board.qemu.is_some() {
        qemu_places(&board.machine, found);
    }
    qemu_words(board, found);
    hardware::check(board, found);
}

fn machine(machine: &Machine, found: &mut Vec<Diagnostic>) {
    if machine.cpus.value == 0 {
        found.push(
            Diagnostic::new(machine.cpus.span, "a board without CPUs", "at least one is needed")
                .help("write 1 or more"),
        );
    }
    banks(machine, found);
    let parts = [(&machine.modules, "modules"), (&machine.static_memory, "static-memory")];
    for (part, name) in parts {
        let banks = &machine.ram.value;
        let is_in_a_bank = banks.iter().any(|bank| part.value.is_within(bank.value));
        if is_range(part, PAGE, found) && !is_in_a_bank && !banks.is_empty() {
            let title = format!("`{name}` is not in the board's memory");
            found.push(
                Diagnostic::new(part.span, title, "in no bank, or not all of it in one")
                    .related(machine.ram.span, "the banks")
                    .help("write a range that is part of one bank"),
            );
        }
    }
    apart(&machine.static_memory, "`static-memory`", [(&machine.modules, "`modules`")], found);
    static_memory(&machine.static_memory, found);
}

fn banks(machine: &Machine, found: &mut Vec<Diagnostic>) {
    let banks = &machine.ram.value;
    if banks.is_empty() {
        found.push(
            Diagnostic::new(machine.ram.span, "a board without memory", "no bank is given")
                .help("write a table for each bank: `ram = [{ base = 0x4000_0000, size = 0x4000_0000 }]`"),
        );
    }
    let mut seen: Vec<&Spanned<Region>> = Vec::new();
    for bank in banks {
        if is_range(bank, PAGE, found) {
            apart(bank, "bank of memory", seen.iter().map(|other| (*other, "bank of memory")), found);
            seen.push(bank);
        }
    }
}

/// Checks the place of the driver domain's memory, which has the same addresses in the domain as on the bus.
fn static_memory(region: &Spanned<Region>, found: &mut Vec<Diagnostic>) {
    if !region.value.base.is_multiple_of(UNIT) {
        let title = "`static-memory` does not begin where Linux can be loaded";
        let help = format!("write a multiple of {UNIT:#x} as `base`");
        found.push(Diagnostic::new(region.span, title, "not a multiple of 2 MiB").help(help));
    }
    if region.value.overlaps(GRANT_TABLE) {
        let title = "`static-memory` is where Xen puts the grant table of a domain";
        let label = "the driver domain's memory would have the same addresses";
        let help = format!("leave out {:#x} to {:#x}", GRANT_TABLE.base, GRANT_TABLE.end() - 1);
        found.push(Diagnostic::new(region.span, title, label).help(help));
    }
}

/// Whether `region` is a valid range of addresses in units of `unit` bytes.
fn is_range(region: &Spanned<Region>, unit: u64, found: &mut Vec<Diagnostic>) -> bool {
    let Region { base, size } = region.value;
    let (label, help) = if size == 0 {
        ("no bytes", "write a size".to_owned())
    } else if base.checked_add(size).is_none_or(|end| end > ADDRESSES) {
        ("it ends beyond the last address of 48 bits", "write a smaller base or size".to_owned())
    } else if base % unit != 0 || size % unit != 0 {
        ("not whole pages", format!("write multiples of {unit:#x}"))
    } else {
        return true;
    };
    let title = format!("{size:#x} bytes at {base:#x} are not a valid range of addresses");
    found.push(Diagnostic::new(region.span, title, label).help(help));
    false
}

fn apart<'a>(
    region: &Spanned<Region>,
    what: &str,
    others: impl IntoIterator<Item = (&'a Spanned<Region>, &'a str)>,
    found: &mut Vec<Diagnostic>,
) {
    for (other, name) in others {
        if region.value.overlaps(other.value) {
            let title = format!("a {what} overlaps a {name}").replace("a `", "`");
            found.push(
                Diagnostic::new(region.span, title, "this one")
                    .related(other.span, "and this one")
                    .help("write ranges that have no address in common"),
            );
        }
    }
}

fn command_line(board: &Board, found: &mut Vec<Diagnostic>) {
    let bootargs = &board.xen_bootargs;
    if !is_plain_text(&bootargs.value) {
        found.push(
            Diagnostic::new(bootargs.span, "Xen's command line is one line of ASCII", "other characters")
                .help("use the characters from space to `~`"),
        );
    }
    let line = xen_bootargs(board);
    if line.len() > XEN_BOOTARGS {
        let title = format!("Xen's command line would have {} characters", line.len());
        let label = format!("Xen cuts it off after {XEN_BOOTARGS}, and with it `flask=enforcing`");
        found.push(Diagnostic::new(bootargs.span, title, label).help("leave something out"));
    }
    if let Some(option) = line.split(' ').find(|option| option.len() > XEN_OPTION) {
        let title = format!("an option of Xen with {} characters", option.len());
        let label = format!("Xen reads the first {XEN_OPTION} of each");
        found.push(Diagnostic::new(bootargs.span, title, label).help("shorten it"));
    }
}

/// QEMU does not start if a file overlaps Xen or the device tree.
fn qemu_places(machine: &Machine, found: &mut Vec<Diagnostic>) {
    let Some(start) = machine.ram.value.iter().map(|bank| bank.value.base).min() else { return };
    let device_tree = start.saturating_add(QEMU_DEVICE_TREE.min(machine.ram_size() / 2));
    let places = [
        (Region { base: start, size: QEMU_XEN }, "Xen"),
        (Region { base: device_tree, size: UNIT }, "the device tree"),
    ];
    for (part, name) in [(&machine.modules, "modules"), (&machine.static_memory, "static-memory")] {
        for (place, what) in places.iter().filter(|(place, _)| place.overlaps(part.value)) {
            let title = format!("`{name}` is where QEMU puts {what}");
            let label = format!("QEMU uses {:#x} to {:#x} for it", place.base, place.end().saturating_sub(1));
            let help = "write a range that has no address in common with that";
            found.push(Diagnostic::new(part.span, title, label).help(help));
        }
    }
}

/// Checks the words of QEMU's command line.
fn qemu_words(board: &Board, found: &mut Vec<Diagnostic>) {
    let own = board.qemu.iter().flat_map(|Spanned { value: qemu, span }| {
        let words = qemu.args.iter().chain([&qemu.program, &qemu.machine]);
        words.map(move |word| (word, *span))
    });
    let devices =
        board.hardware.iter().filter_map(|hardware| Some((hardware.qemu.as_ref()?, hardware.name.span)));
    let devices = devices.flat_map(|(device, span)| [(&device.vhost_user, span), (&device.bus, span)]);
    for (word, span) in own.chain(devices).filter(|(word, _)| !is_plain_text(word) || word.is_empty()) {
        let title = format!("{word:?} cannot be a word of QEMU's command line");
        found.push(
            Diagnostic::new(span, title, "a word is empty, or has other characters than printable ASCII")
                .help("use the characters from space to `~`"),
        );
    }
}
