// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Hardware of a board file, as the driver domain's device tree describes it.

use toml_span::Spanned;

use super::{GRANT_TABLE, is_range};
use crate::board::{Board, Hardware, Kind, Machine, Region};
use crate::diagnostics::Diagnostic;
use crate::emit::driver_dt::CLOCK_PREFIX;
use crate::validate::once::Once;
use crate::validate::words::{self, is_node_name, is_node_path, is_word};

/// The properties that the builder writes into the node of hardware.
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

pub(super) fn check(board: &Board, found: &mut Vec<Diagnostic>) {
    let mut once = Once::default();
    for hardware in &board.hardware {
        once.see("piece of hardware", &hardware.name, found);
        once.see("host node", &hardware.host_node, found);
        once.see("node of the driver domain", &hardware.node, found);
        let mut clocks = Once::default();
        for clock in &hardware.clocks {
            clocks.see("clock of this hardware", &clock.name, found);
        }
        names(hardware, found);
        node(&hardware.node, found);
        host_node(&hardware.host_node, found);
        lines(hardware, found);
        registers(hardware, &board.machine, found);
        let help = "use the hardware's own keys: `compatible`, `reg`, `interrupts`, `clocks`";
        words::properties(&hardware.properties, &OWN_PROPERTIES, help, found);
    }
}

/// Checks the names in manifests, in names of sockets and in properties.
fn names(hardware: &Hardware, found: &mut Vec<Diagnostic>) {
    let clocks = hardware.clocks.iter().map(|clock| (&clock.name, "a clock"));
    let names = [(&hardware.name, "hardware")].into_iter().chain(clocks);
    for (name, what) in names.filter(|(name, _)| !is_word(&name.value)) {
        let title = format!("{:?} cannot name {what}", name.value);
        found.push(
            Diagnostic::new(name.span, title, "not a plain name")
                .help("start with a letter, then use letters, digits, `-` and `_`, at most 31 in all"),
        );
    }
}

fn node(node: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    if !is_node_name(&node.value) {
        let title = format!("{:?} cannot name a node", node.value);
        found.push(
            Diagnostic::new(node.span, title, "not a name that a device tree can have")
                .help("write NAME or NAME@ADDRESS, as in \"gpio@9030000\""),
        );
    } else if node.value.starts_with(CLOCK_PREFIX) {
        let title = format!("`{}` can be the node of a clock", node.value);
        let label = format!("the builder names the nodes of clocks `{CLOCK_PREFIX}N`");
        found.push(Diagnostic::new(node.span, title, label).help("write another name"));
    }
}

fn host_node(path: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    if !is_node_path(&path.value) {
        let title = format!("{:?} is not a path in a device tree", path.value);
        found.push(
            Diagnostic::new(path.span, title, "not a path of valid names")
                .help("write it from the root, as in \"/soc@0/i2c@30a20000\""),
        );
    }
}

fn lines(hardware: &Hardware, found: &mut Vec<Diagnostic>) {
    let name = &hardware.name.value;
    match (hardware.kind, &hardware.lines) {
        (Kind::I2c | Kind::Other, Some(lines)) => {
            let title = format!("`{name}` is {}, and has no lines", hardware.kind.name());
            found.push(
                Diagnostic::new(lines.span, title, "of GPIO controllers only").help("leave `lines` out"),
            );
        }
        (Kind::Gpio, None) => {
            let title = format!("`{name}` is a GPIO controller without `lines`");
            let label = "a line that it does not have could not be refused";
            found.push(Diagnostic::new(hardware.name.span, title, label).help("write how many lines it has"));
        }
        // Linux counts the lines of a chip in 16 bits (`struct gpio_chip`).
        (Kind::Gpio, Some(lines)) if !(1..=u32::from(u16::MAX)).contains(&lines.value) => {
            let title = format!("`{name}` cannot have {} lines", lines.value);
            found.push(Diagnostic::new(lines.span, title, "out of range").help("write 1 to 65535"));
        }
        _ => {}
    }
}

fn registers(hardware: &Hardware, machine: &Machine, found: &mut Vec<Diagnostic>) {
    let name = &hardware.name.value;
    if hardware.reg.value.is_empty() {
        let title = format!("`{name}` has no registers");
        found.push(
            Diagnostic::new(hardware.reg.span, title, "Xen has nothing to assign")
                .help("list its registers: `reg = [{ base = 0x0903_0000, size = 0x1000 }]`"),
        );
    }
    for region in &hardware.reg.value {
        if is_range(region, 1, found) {
            found.extend(misplaced(name, region, machine));
        }
    }
}

/// The error if registers of the hardware called `name` cannot be where `region` is.
fn misplaced(name: &str, region: &Spanned<Region>, machine: &Machine) -> Option<Diagnostic> {
    if let Some(bank) = machine.ram.value.iter().find(|bank| bank.value.overlaps(region.value)) {
        let title = format!("registers of `{name}` are in the board's memory");
        let help = "write their physical addresses, as the board's device tree has them";
        let diagnostic = Diagnostic::new(region.span, title, "these");
        return Some(diagnostic.related(bank.span, "this bank").help(help));
    }
    GRANT_TABLE.overlaps(region.value).then(|| {
        let title = format!("registers of `{name}` are where Xen puts the grant table of a domain");
        let label = "the driver domain has them at the same address";
        let help = "this hardware cannot be given to a domain: remove it from the board file";
        Diagnostic::new(region.span, title, label).help(help)
    })
}
