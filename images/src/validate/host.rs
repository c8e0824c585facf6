// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a board file says of memory, beside what the board's own device tree keeps for others.

use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use toml_span::Spanned;

use crate::board::{Board, Region};
use crate::diagnostics::Diagnostic;

/// Ranges that firmware, secure world or another processor has: `/reserved-memory` (Devicetree Specification 0.4, 3.5), and
/// the reservations in the header of the tree (5.3). Xen ignores a module in one of them, and stops before its console is
/// up if the memory of a domain is there.
pub(super) fn reserved_memory(board: &Board, host: &Fdt<'_>) -> Vec<Diagnostic> {
    let reserved = reserved(host);
    let parts = [(&board.machine.modules, "modules"), (&board.machine.static_memory, "static-memory")];
    let mut found = Vec::new();
    for (part, name) in parts {
        found.extend(reserved.iter().find_map(|(region, owner)| overlap(part, name, *region, owner)));
    }
    found
}

fn overlap(part: &Spanned<Region>, name: &str, reserved: Region, owner: &str) -> Option<Diagnostic> {
    if !part.value.overlaps(reserved) {
        return None;
    }
    let title = format!("`{name}` is in memory that the board's device tree reserves");
    let label = format!("{owner} has {:#x} to {:#x}", reserved.base, reserved.end().saturating_sub(1));
    Some(Diagnostic::new(part.span, title, label).help("write a range that has no address in common with it"))
}

/// All ranges with the names of their nodes. A node without `reg` has no place yet: Xen gives it none.
fn reserved(host: &Fdt<'_>) -> Vec<(Region, String)> {
    let mut all = Vec::new();
    for node in host.reserved_memory().into_iter().flatten() {
        let ranges = node.reg().ok().flatten().into_iter().flatten();
        for range in ranges {
            if let (Ok(base), Ok(size)) = (range.address::<u64>(), range.size::<u64>()) {
                all.push((Region { base, size }, format!("`/reserved-memory/{}`", node.name())));
            }
        }
    }
    let header = host.memory_reservations();
    all.extend(header.map(|range| {
        (Region { base: range.address(), size: range.size() }, "a reservation in its header".to_owned())
    }));
    all
}

#[cfg(test)]
mod tests {
    use annotate_snippets::Renderer;
    use dtoolkit::memreserve::MemoryReservation;
    use dtoolkit::model::{DeviceTree, DeviceTreeNode};

    use super::*;
    use crate::diagnostics::{Source, render};
    use crate::emit::fdt::{Build, reg};

    const TEXT: &str = include_str!("../../boards/qemu-virt.toml");

    fn complaints(reserved: Region, in_header: bool) -> String {
        let mut tree = DeviceTree::new();
        tree.root = tree.root.cells(2, 2).unwrap();
        if in_header {
            tree.memory_reservations.push(MemoryReservation::new(reserved.base, reserved.size));
        } else {
            let node = DeviceTreeNode::new("optee@1").unwrap().set("reg", reg(reserved)).unwrap();
            let parent = DeviceTreeNode::new("reserved-memory").unwrap().cells(2, 2).unwrap();
            let dynamic = DeviceTreeNode::new("linux,cma").unwrap().set("size", [0u32, 4096]).unwrap();
            tree.root.add_child(parent.with(dynamic).with(node));
        }
        let dtb = tree.to_dtb();
        let found = reserved_memory(&Board::parse(TEXT).unwrap(), &Fdt::new(&dtb).unwrap());
        let source = Source { path: "qemu-virt.toml".into(), text: TEXT.into() };
        render(&found, &source, &Renderer::plain())
    }

    #[test]
    fn memory_that_is_reserved_is_not_used() {
        let machine = Board::parse(TEXT).unwrap().machine;
        for in_header in [false, true] {
            for (part, name) in [(&machine.modules, "modules"), (&machine.static_memory, "static-memory")] {
                let last = Region { base: part.value.end() - 1, size: 1 };
                let said = complaints(last, in_header);
                let expected = format!("error: `{name}` is in memory that the board's device tree reserves");
                assert!(said.starts_with(&expected), "{said}");
                let owner =
                    if in_header { "a reservation in its header" } else { "`/reserved-memory/optee@1`" };
                assert!(said.contains(owner), "{said}");
            }
            let before = Region { base: machine.modules.value.base - 0x1000, size: 0x1000 };
            assert_eq!(complaints(before, in_header).trim(), "");
        }
    }
}
