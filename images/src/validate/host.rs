// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Contradictions between a board file and the board's own device tree.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use toml_span::Spanned;

use crate::board::{Hardware, LAST_SPI, Region};
use crate::diagnostics::{Diagnostic, nearest};
use crate::plan::Plan;

pub(super) fn check(plan: &Plan<'_>, host: &Fdt<'_>, found: &mut Vec<Diagnostic>) {
    let machine = &plan.board.machine;
    let (reserved, memory) = (reserved(host), memory(host));
    for (part, name) in [(&machine.modules, "modules"), (&machine.static_memory, "static-memory")] {
        found.extend(reserved.iter().find_map(|(region, owner)| overlap(part, name, *region, owner)));
        found.extend(outside(part, name, &memory));
    }
    let console = console(&plan.board.xen_bootargs.value, host);
    for hardware in &plan.hardware {
        let path = hardware.host_node.value.as_str();
        match node_at(host, path) {
            None => found.push(missing_node(hardware, host)),
            Some(_) if console == Some(path) => found.push(console_given_away(hardware, plan)),
            Some(node) => interrupts(hardware, &node, found),
        }
    }
    found.extend(domains(plan, host));
}

fn overlap(part: &Spanned<Region>, name: &str, reserved: Region, owner: &str) -> Option<Diagnostic> {
    if !part.value.overlaps(reserved) {
        return None;
    }
    let title = format!("`{name}` is in memory that the board's device tree reserves");
    let label = format!("{owner} has {:#x} to {:#x}", reserved.base, reserved.end().saturating_sub(1));
    Some(Diagnostic::new(part.span, title, label).help("write a range that has no address in common with it"))
}

/// The ranges that firmware, the secure world or another processor uses: `/reserved-memory` (Devicetree
/// Specification 0.4, 3.5) and the reservations in the header of the tree (5.3), each with a name for
/// messages.
///
/// Xen ignores a module in one of them, and stops before its console works if a domain's memory is there. It
/// does not look at `status`. A node without `reg` has no place yet, and Xen gives it none.
fn reserved(host: &Fdt<'_>) -> Vec<(Region, String)> {
    let nodes = host.find_node("/reserved-memory").into_iter().flat_map(|parent| parent.children());
    let nodes = nodes.flat_map(|node| {
        let name = format!("`/reserved-memory/{}`", node.name());
        regions(node).into_iter().map(move |region| (region, name.clone()))
    });
    let header = host.memory_reservations();
    let header = header.map(|range| {
        (Region { base: range.address(), size: range.size() }, "a reservation in its header".to_owned())
    });
    nodes.chain(header).collect()
}

/// The banks of memory of the tree, in the order of their addresses; none where the firmware fills them in.
fn memory(host: &Fdt<'_>) -> Vec<Region> {
    let nodes = host.root().children().filter(|node| text(node, "device_type") == Some("memory"));
    let mut banks: Vec<_> = nodes.flat_map(regions).filter(|bank| bank.size > 0).collect();
    banks.sort_by_key(|bank| bank.base);
    banks
}

/// Xen cannot give a domain what is not memory, and a boot loader cannot load files there.
fn outside(part: &Spanned<Region>, name: &str, banks: &[Region]) -> Option<Diagnostic> {
    let reached = banks.iter().fold(part.value.base, |reached, bank| {
        if bank.base <= reached { reached.max(bank.end()) } else { reached }
    });
    if banks.is_empty() || reached >= part.value.end() {
        return None;
    }
    let title = format!("`{name}` is not in the memory of the board's device tree");
    let listed = banks.iter().map(|bank| format!("{:#x} to {:#x}", bank.base, bank.end().saturating_sub(1)));
    let help = format!("that tree has {}", listed.collect::<Vec<_>>().join(", "));
    Some(Diagnostic::new(part.span, title, "not memory, or only in part").help(help))
}

/// The path of the node that Xen takes for its console: that of `dtuart`, or the tree's own choice.
fn console<'a>(bootargs: &'a str, host: &Fdt<'a>) -> Option<&'a str> {
    // Of an option that is given twice the last counts.
    let option = bootargs.split(' ').rev().find_map(|word| word.strip_prefix("dtuart="));
    let chosen = || text(&host.find_node("/chosen")?, "stdout-path");
    let name = option.filter(|option| !option.is_empty()).or_else(chosen)?.split(':').next()?;
    if name.starts_with('/') { Some(name) } else { text(&host.find_node("/aliases")?, name) }
}

fn console_given_away(hardware: &Hardware, plan: &Plan<'_>) -> Diagnostic {
    let title = format!("`{}` is the console of Xen", hardware.name.value);
    Diagnostic::new(hardware.host_node.span, title, "Xen does not use a device that a domain has")
        .related(plan.board.xen_bootargs.span, "`dtuart`, or `stdout-path` of the device tree, names it")
        .help("name another console with `dtuart`, or do not give this device to the driver domain")
}

/// Xen maps the interrupts of the host's node, and the driver domain's kernel requests those of the board
/// file. Interrupts of another controller than the GIC are not compared.
fn interrupts(hardware: &Hardware, node: &FdtNode<'_>, found: &mut Vec<Diagnostic>) {
    let cells = node.property("interrupts").and_then(|property| property.value_as::<Vec<u32>>().ok());
    let Some(cells) = cells else { return };
    let (specifiers, rest) = cells.as_chunks::<3>();
    let is_of_gic = |[kind, number, flags]: &[u32; 3]| {
        *kind <= 1 && *number <= LAST_SPI && [1, 2, 4, 8].contains(&(*flags & 0xf))
    };
    if specifiers.is_empty() || !rest.is_empty() || !specifiers.iter().all(is_of_gic) {
        return;
    }
    let spis: Vec<_> =
        specifiers.iter().filter(|[kind, ..]| *kind == 0).map(|[_, number, _]| *number).collect();
    for spi in hardware.interrupts.iter().map(|interrupt| interrupt.spi).filter(|spi| !spis.contains(spi)) {
        let listed: Vec<_> = spis.iter().map(u32::to_string).collect();
        let title = format!("`{}` does not have SPI {spi}", hardware.name.value);
        let label = format!("in the board's device tree this node has SPI {}", listed.join(", "));
        found.push(
            Diagnostic::new(hardware.host_node.span, title, label)
                .help("write the SPIs of this node in `interrupts`: Xen maps these to the domain"),
        );
    }
}

/// Xen would start domains that the tree has already, and all domids would differ from those of the plan.
fn domains(plan: &Plan<'_>, host: &Fdt<'_>) -> Option<Diagnostic> {
    let is_for_xen = |node: &FdtNode<'_>| {
        let mut names = node.compatible().into_iter().flatten();
        names.any(|name| ["xen,domain", "xen,multiboot-module", "multiboot,module"].contains(&name))
    };
    let node = host.find_node("/chosen")?.children().find(is_for_xen)?;
    let title = format!("the board's device tree already has `/chosen/{}`", node.name());
    let label = "Xen would use it beside the files that are placed here";
    let help = "give the device tree of the firmware, not one that was made for Xen";
    Some(Diagnostic::new(plan.board.machine.modules.span, title, label).help(help))
}

fn missing_node(hardware: &Hardware, host: &Fdt<'_>) -> Diagnostic {
    let path = &hardware.host_node;
    let mut paths = Vec::new();
    list_paths("", host.root(), &mut paths);
    let help = match nearest(&path.value, &paths) {
        Some(near) => format!("perhaps `{near}` is meant"),
        None => "write the path of a node of that tree".to_owned(),
    };
    let title = format!("the board's device tree has no node `{}`", path.value);
    let label = format!("which is to give `{}` to the driver domain", hardware.name.value);
    Diagnostic::new(path.span, title, label).help(help)
}

/// Adds the paths of all nodes below `node`, whose own path is `path`.
fn list_paths(path: &str, node: FdtNode<'_>, paths: &mut Vec<String>) {
    for child in node.children() {
        let path = format!("{path}/{}", child.name());
        list_paths(&path, child, paths);
        paths.push(path);
    }
}

/// The node at `path`. Xen compares whole names: `/soc/i2c` is not `/soc/i2c@7e804000`.
fn node_at<'a>(host: &Fdt<'a>, path: &str) -> Option<FdtNode<'a>> {
    let mut names = path.strip_prefix('/')?.split('/');
    names.try_fold(host.root(), |node, name| node.children().find(|child| child.name() == name))
}

fn text<'a>(node: &FdtNode<'a>, name: &str) -> Option<&'a str> {
    node.property(name)?.value_as().ok()
}

fn regions(node: FdtNode<'_>) -> Vec<Region> {
    let ranges = node.reg().ok().flatten().into_iter().flatten();
    let region = ranges.map(|range| Some(Region { base: range.address().ok()?, size: range.size().ok()? }));
    region.flatten().collect()
}

#[cfg(test)]
mod tests {
    use annotate_snippets::Renderer;
    use dtoolkit::ToPropertyValue;
    use dtoolkit::memreserve::MemoryReservation;
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

    use super::*;
    use crate::board::Board;
    use crate::diagnostics::{Source, render};
    use crate::emit::fdt::reg;
    use crate::manifest::Manifest;

    const BOARD: &str = include_str!("../../tests/emitted/raspberry-pi-4.toml");
    const MANIFEST: &str = include_str!("../../tests/emitted/pi.toml");
    const I2C: &str = "/soc/i2c@7e804000";
    const GPIO: &str = "/soc/gpio@7e200000";

    /// The node at `path`, which is added if it is missing.
    fn node<'a>(tree: &'a mut DeviceTree, path: &str) -> &'a mut DeviceTreeNode {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(&mut tree.root, |node, name| {
            if !node.children().any(|child| child.name() == name) {
                node.add_child(DeviceTreeNode::new_unchecked(name));
            }
            node.child_mut(name).unwrap()
        })
    }

    fn set(tree: &mut DeviceTree, path: &str, name: &str, value: impl ToPropertyValue) {
        node(tree, path).add_property(DeviceTreeProperty::new(name, value).unwrap());
    }

    /// The message about the board file if its device tree is changed by `change`; empty if it is accepted.
    fn refusal_of(bootargs: &str, change: impl Fn(&mut DeviceTree)) -> String {
        let (mut board, manifest) = (Board::parse(BOARD).unwrap(), Manifest::parse(MANIFEST).unwrap());
        bootargs.clone_into(&mut board.xen_bootargs.value);
        let mut tree = DeviceTree::new();
        for parent in ["/", "/reserved-memory"] {
            set(&mut tree, parent, "#address-cells", 2u32);
            set(&mut tree, parent, "#size-cells", 2u32);
        }
        for path in [I2C, GPIO] {
            node(&mut tree, path);
        }
        change(&mut tree);
        let dtb = tree.to_dtb();
        let mut found = Vec::new();
        check(&Plan::new(&manifest, &board).unwrap(), &Fdt::new(&dtb).unwrap(), &mut found);
        let source = Source { path: "raspberry-pi-4.toml".into(), text: BOARD.into() };
        render(&found, &source, &Renderer::plain()).trim().to_owned()
    }

    fn refusal(change: impl Fn(&mut DeviceTree)) -> String {
        refusal_of("", change)
    }

    fn assert_contains(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
    }

    #[test]
    fn memory_that_the_tree_reserves_is_refused() {
        let machine = Board::parse(BOARD).unwrap().machine;
        for (part, name) in [(&machine.modules, "modules"), (&machine.static_memory, "static-memory")] {
            let last = Region { base: part.value.end() - 1, size: 1 };
            let title = format!("error: `{name}` is in memory that the board's device tree reserves");
            let by_node = refusal(|tree| {
                set(tree, "/reserved-memory/optee@1", "reg", reg(last));
                set(tree, "/reserved-memory/linux,cma", "size", [0u32, 4096]);
            });
            assert_contains(&by_node, &[&title, "`/reserved-memory/optee@1`"]);
            let by_header =
                refusal(|tree| tree.memory_reservations.push(MemoryReservation::new(last.base, last.size)));
            assert_contains(&by_header, &[&title, "a reservation in its header"]);
        }
    }

    #[test]
    fn tree_that_agrees_with_the_board_file_is_accepted() {
        assert_eq!(refusal(|_| {}), "");
        let agrees = refusal(|tree| {
            let modules = Board::parse(BOARD).unwrap().machine.modules.value;
            let before = Region { base: modules.base - 0x1000, size: 0x1000 };
            set(tree, "/reserved-memory/before@0", "reg", reg(before));
            // The firmware fills in the first bank; `static-memory` reaches over two that are adjacent.
            for (name, base, size) in
                [("/memory@0", 0, 0x4800_0000), ("/memory@48000000", 0x4800_0000, 0x1_0000_0000)]
            {
                set(tree, name, "device_type", "memory");
                set(tree, name, "reg", reg(Region { base, size }));
            }
            set(tree, I2C, "interrupts", [0u32, 117, 4]);
            // Of another controller than the GIC.
            set(tree, GPIO, "interrupts", [2u32, 1]);
        });
        assert_eq!(agrees, "");
    }

    #[test]
    fn memory_that_the_tree_does_not_have_is_refused() {
        let text = refusal(|tree| {
            set(tree, "/memory@0", "device_type", "memory");
            set(tree, "/memory@0", "reg", reg(Region { base: 0, size: 0x3b40_0000 }));
        });
        let title = "error: `static-memory` is not in the memory of the board's device tree";
        assert_contains(&text, &[title, "help: that tree has 0x0 to 0x3b3fffff"]);
        assert!(!text.contains("`modules`"), "{text}");
        let filled_in_by_firmware = refusal(|tree| {
            set(tree, "/memory@0", "device_type", "memory");
            set(tree, "/memory@0", "reg", [0u32; 4]);
        });
        assert_eq!(filled_in_by_firmware, "");
    }

    #[test]
    fn interrupt_that_the_node_does_not_have_is_refused() {
        let text = refusal(|tree| set(tree, I2C, "interrupts", [0u32, 118, 4]));
        assert_contains(&text, &["error: `i2c1` does not have SPI 117", "this node has SPI 118"]);
    }

    #[test]
    fn console_of_xen_as_hardware_is_refused() {
        let alias = |tree: &mut DeviceTree| set(tree, "/aliases", "serial0", I2C);
        let text = "error: `i2c1` is the console of Xen";
        assert_contains(&refusal_of(&format!("dtuart={I2C}:115200n8"), |_| {}), &[text]);
        assert_contains(&refusal_of("dtuart=/other dtuart=serial0", alias), &[text]);
        assert_contains(&refusal(|tree| set(tree, "/chosen", "stdout-path", I2C)), &[text]);
        assert_eq!(refusal_of("dtuart=serial1", alias), "");
    }

    #[test]
    fn tree_that_was_made_for_xen_is_refused() {
        let text = refusal(|tree| set(tree, "/chosen/dom1", "compatible", "xen,domain"));
        assert_contains(&text, &["error: the board's device tree already has `/chosen/dom1`"]);
    }

    #[test]
    fn node_name_without_its_address_is_refused() {
        let text = refusal(|tree| {
            node(tree, "/soc").remove_child("i2c@7e804000").unwrap();
            node(tree, "/soc/i2c@7e804000,old");
        });
        assert_contains(
            &text,
            &["has no node `/soc/i2c@7e804000`", "perhaps `/soc/i2c@7e804000,old` is meant"],
        );
    }
}
