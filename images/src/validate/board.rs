// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A board file by itself: its memory, and its hardware as the driver domain would see it.

use std::collections::HashMap;

use toml_span::{Span, Spanned};

use super::words::{self, is_node_name, is_node_path, is_plain_text, is_word};
use crate::board::{Board, Hardware, Kind, Machine, PAGE, Region};
use crate::diagnostics::Diagnostic;
use crate::emit::host_dt::xen_bootargs;

/// What the builder writes itself into the node of a piece of hardware.
const OWN_PROPERTIES: [&str; 12] = [
    "compatible",
    "reg",
    "interrupt-parent",
    "interrupts",
    "clocks",
    "clock-names",
    "phandle",
    "linux,phandle",
    "xen,reg",
    "xen,path",
    "xen,force-assign-without-iommu",
    "name",
];

/// Xen reaches no more physical addresses (`PADDR_BITS` without 52-bit addresses).
const ADDRESSES: u64 = 1 << 48;

/// Xen cuts its command line off here (`COMMAND_LINE_SIZE` of its saved copy), and `flask=enforcing` stands last.
const XEN_BOOTARGS: usize = 1023;

pub(super) fn check(board: &Board, found: &mut Vec<Diagnostic>) {
    machine(&board.machine, found);
    command_line(board, found);
    qemu(board, found);
    let mut once = Once::default();
    for hardware in &board.hardware {
        words(hardware, found);
        registers(hardware, &board.machine, found);
        once.see("name of hardware", &hardware.name, found);
        once.see("host node", &hardware.host_node, found);
        nodes(hardware, &mut once, found);
    }
}

fn machine(machine: &Machine, found: &mut Vec<Diagnostic>) {
    if machine.cpus.value == 0 {
        found.push(
            Diagnostic::new(machine.cpus.span, "a board without CPUs", "nothing runs")
                .help("write 1 or more"),
        );
    }
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
    let parts = [(&machine.modules, "modules"), (&machine.static_memory, "static-memory")];
    for (part, name) in parts {
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
}

/// Whether `region` is a range of addresses in units of `unit` bytes.
fn is_range(region: &Spanned<Region>, unit: u64, found: &mut Vec<Diagnostic>) -> bool {
    let Region { base, size } = region.value;
    let (label, help) = if size == 0 {
        ("no byte is in it", "write a size".to_owned())
    } else if base.checked_add(size).is_none_or(|end| end > ADDRESSES) {
        ("it ends beyond the last address of 48 bits", "write a smaller base or size".to_owned())
    } else if base % unit != 0 || size % unit != 0 {
        ("not whole pages", format!("write multiples of {unit:#x}"))
    } else {
        return true;
    };
    let title = format!("{size:#x} bytes at {base:#x} are no range of addresses that can be used");
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
    let length = xen_bootargs(board).len();
    if length > XEN_BOOTARGS {
        let title = format!("Xen's command line would have {length} characters");
        let label = format!("Xen cuts it off after {XEN_BOOTARGS}, and with it `flask=enforcing`");
        found.push(Diagnostic::new(bootargs.span, title, label).help("leave something out"));
    }
}

/// The words of QEMU's command line, in which a zero ends a word.
fn qemu(board: &Board, found: &mut Vec<Diagnostic>) {
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
            Diagnostic::new(span, title, "here is a word with other characters than ASCII, or an empty one")
                .help("use the characters from space to `~`"),
        );
    }
}

/// The words by which hardware is known.
fn words(hardware: &Hardware, found: &mut Vec<Diagnostic>) {
    let clocks = hardware.clocks.iter().map(|clock| (&clock.name, "a clock"));
    for (name, what) in [(&hardware.name, "hardware")].into_iter().chain(clocks) {
        if !is_word(&name.value) {
            let title = format!("{:?} cannot name {what}", name.value);
            found.push(
                Diagnostic::new(name.span, title, "not a plain name")
                    .help("start with a letter, then use letters, digits, `-` and `_`, at most 31 in all"),
            );
        }
    }
    if !is_node_path(&hardware.host_node.value) {
        let title = format!("{:?} is no path in a device tree", hardware.host_node.value);
        found.push(
            Diagnostic::new(hardware.host_node.span, title, "no node can have it")
                .help("write it from the root, as in \"/soc@0/i2c@30a20000\""),
        );
    }
    if let (Kind::I2c, Some(lines)) = (hardware.kind, &hardware.lines) {
        let title = format!("`{}` is an I2C adapter, and has no lines", hardware.name.value);
        found.push(Diagnostic::new(lines.span, title, "of GPIO controllers only").help("leave `lines` out"));
    }
    if let Some(Spanned { value: 0, span }) = &hardware.lines {
        let title = format!("`{}` has no line", hardware.name.value);
        found
            .push(Diagnostic::new(*span, title, "no guest can have one of it").help("write how many it has"));
    }
    words::properties(
        &hardware.properties,
        &OWN_PROPERTIES,
        "use the hardware's own keys: `compatible`, `reg`, `interrupts`, `clocks`",
        found,
    );
}

fn registers(hardware: &Hardware, machine: &Machine, found: &mut Vec<Diagnostic>) {
    if hardware.reg.value.is_empty() {
        let title = format!("`{}` has no registers", hardware.name.value);
        found.push(
            Diagnostic::new(hardware.reg.span, title, "there is nothing that Xen could assign")
                .help("list its registers: `reg = [{ base = 0x0903_0000, size = 0x1000 }]`"),
        );
    }
    for region in &hardware.reg.value {
        if !is_range(region, 1, found) {
            continue;
        }
        if let Some(bank) = machine.ram.value.iter().find(|bank| bank.value.overlaps(region.value)) {
            let title = format!("registers of `{}` are in the board's memory", hardware.name.value);
            found.push(
                Diagnostic::new(region.span, title, "these")
                    .related(bank.span, "this bank")
                    .help("write their physical addresses, as the board's device tree has them"),
            );
        }
    }
}

/// The nodes of the driver domain's tree, of which two with one name are one.
fn nodes<'a>(hardware: &'a Hardware, once: &mut Once<'a>, found: &mut Vec<Diagnostic>) {
    if !is_node_name(&hardware.node.value) {
        let title = format!("{:?} cannot name a node", hardware.node.value);
        found.push(
            Diagnostic::new(hardware.node.span, title, "not a name that a device tree can have")
                .help("write NAME or NAME@ADDRESS, as in \"gpio@9030000\""),
        );
    }
    once.see("node of the driver domain", &hardware.node, found);
    for clock in &hardware.clocks {
        once.see_text("node of the driver domain", clock.node(hardware), clock.name.span, found);
    }
}

/// Sees to it that each text is given once for what it is given.
#[derive(Default)]
struct Once<'a> {
    seen: HashMap<(&'a str, String), Span>,
}

impl<'a> Once<'a> {
    fn see(&mut self, what: &'a str, text: &Spanned<String>, found: &mut Vec<Diagnostic>) {
        self.see_text(what, text.value.clone(), text.span, found);
    }

    fn see_text(&mut self, what: &'a str, text: String, span: Span, found: &mut Vec<Diagnostic>) {
        let title = format!("a second {what} is `{text}`");
        if let Some(first) = self.seen.insert((what, text), span) {
            found.push(
                Diagnostic::new(span, title, "the same again")
                    .related(first, "the first one")
                    .help("give each its own: of two nodes with one name a device tree has one"),
            );
        }
    }
}
