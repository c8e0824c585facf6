// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requirements of Xen, Linux and QEMU, which cannot run here.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::io::Read;
use std::path::Path;

use cpio::newc::Reader;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode};
use dtoolkit::{Node, Property};
use flate2::read::GzDecoder;
use images::board::Region;
use images::manifest::{Domain, MemoryAccess};
use images::plan::Plan;
use shim_config::Backend;

/// The size of Xen's buffer for its command line, with the NUL (`saved_cmdline`).
const XEN_BOOTARGS: usize = 1024;

/// The size of Linux's (`COMMAND_LINE_SIZE` of arm64).
const KERNEL_BOOTARGS: usize = 2048;

/// The unit of memory that is assigned to a domain.
const PAGE: u64 = 4096;

/// A domain's grant table (`GUEST_GNTTAB_BASE`), also where the domain's memory has the addresses of the bus.
const GRANT_TABLE: Region = Region { base: 0x3800_0000, size: 0x0100_0000 };

/// The number of lines whose interrupts fit into one queue.
const LINES: usize = 128;

/// Checks all of them for the image in `output`.
pub(crate) fn hold(plan: &Plan<'_>, output: &Path) -> Result<(), String> {
    let dtb = std::fs::read(output.join("host.dtb")).unwrap();
    let host = DeviceTree::from_fdt(&Fdt::new(&dtb).map_err(|error| error.to_string())?);
    let chosen = host.root.child("chosen").ok_or("no /chosen")?;
    command_lines(chosen)?;
    memory(plan, chosen)?;
    names(plan)?;
    devices(plan)?;
    hardware(plan, &std::fs::read(output.join("driver-domain.dtb")).unwrap())?;
    reached_memory(plan)?;
    let files = ramdisk(&output.join("driver-domain.cpio.gz"))?;
    programs(plan, &files)
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn once<T: Eq + Hash + Debug>(what: &str, values: impl IntoIterator<Item = T>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for value in values {
        let text = format!("{value:?}");
        ensure(seen.insert(value), || format!("{what} {text} is there twice"))?;
    }
    Ok(())
}

/// A command line fits, and is one line of text.
fn command_lines(chosen: &DeviceTreeNode) -> Result<(), String> {
    let text = |node: &DeviceTreeNode, name: &str| {
        let property = node.property(name).ok_or_else(|| format!("no {name}"))?;
        str::from_utf8(property.value())
            .map(|text| text.trim_end_matches('\0').to_owned())
            .map_err(|error| format!("{name}: {error}"))
    };
    let fits = |line: String, room: usize| {
        ensure(line.len() < room, || {
            format!("a command line of {} bytes, with room for {room}", line.len())
        })?;
        ensure(!line.contains(char::is_control), || format!("a command line of several lines: {line:?}"))
    };
    fits(text(chosen, "xen,xen-bootargs")?, XEN_BOOTARGS)?;
    for module in chosen.children().flat_map(Node::children) {
        if module.property("bootargs").is_some() {
            fits(text(module, "bootargs")?, KERNEL_BOOTARGS)?;
        }
    }
    Ok(())
}

/// Modules and the driver domain's memory are in RAM, in whole pages and apart; the guests' memory fits into
/// the rest.
fn memory(plan: &Plan<'_>, chosen: &DeviceTreeNode) -> Result<(), String> {
    let machine = &plan.board.machine;
    let driver = Region {
        base: machine.static_memory.value.base,
        size: plan.manifest.driver_domain.domain.memory.value.bytes,
    };
    let ram: Vec<Region> = machine.ram.value.iter().map(|bank| bank.value).collect();
    let mut taken = vec![("the driver domain's memory", driver)];
    let modules = chosen.children().chain(chosen.children().flat_map(Node::children));
    let mut modules: Vec<_> = modules.filter(|node| node.name().starts_with("module@")).map(reg).collect();
    // A kernel of several domains is one module, named by each.
    modules.sort_by_key(|region| (region.base, region.size));
    modules.dedup();
    taken.extend(modules.into_iter().map(|region| ("a module", region)));
    for (number, (what, region)) in taken.iter().enumerate() {
        let end = region
            .base
            .checked_add(region.size)
            .ok_or_else(|| format!("{what} at {region:x?} has no end"))?;
        let inside = |bank: &Region| bank.base <= region.base && end <= bank.end();
        ensure(ram.iter().any(inside), || format!("{what} at {region:x?} is not in RAM"))?;
        ensure(region.base.is_multiple_of(PAGE), || format!("{what} at {region:x?} begins within a page"))?;
        for (other_what, other) in taken.iter().take(number) {
            ensure(!region.overlaps(*other), || {
                format!("{what} and {other_what} overlap: {region:x?}, {other:x?}")
            })?;
        }
    }
    for (number, bank) in ram.iter().enumerate() {
        let apart = ram.iter().take(number).all(|other| !bank.overlaps(*other));
        ensure(apart && bank.size > 0, || format!("the bank {bank:x?} of RAM is empty or there twice"))?;
    }
    let used: u64 = taken.iter().map(|(_, region)| region.size).sum();
    let page_tables = |domain: &Domain| {
        PAGE * (256 * u64::from(domain.vcpus.value) + (domain.memory.value.bytes >> 20) + 128)
    };
    let page_tables: u64 = plan.manifest.domains().map(page_tables).sum();
    let guests: u64 = plan.guests.iter().map(|guest| guest.guest.domain.memory.value.bytes).sum();
    let wanted = guests + page_tables;
    let all: u64 = ram.iter().map(|bank| bank.size).sum();
    ensure(used + wanted <= all, || format!("{wanted} bytes for the guests, of {all} with {used} taken"))?;
    ensure(driver.base.is_multiple_of(2 << 20), || format!("no kernel can be loaded at {driver:x?}"))?;
    let devices = plan.hardware.iter().flat_map(|hardware| hardware.pages());
    for page in devices {
        let apart = ram.iter().all(|bank| !bank.overlaps(page));
        ensure(apart && page.size > 0, || format!("registers at {page:x?} are memory, or none"))?;
        ensure(!page.overlaps(GRANT_TABLE), || format!("registers at {page:x?} are a grant table"))?;
    }
    ensure(!driver.overlaps(GRANT_TABLE), || format!("the driver domain's memory at {driver:x?}"))?;
    Ok(())
}

fn reg(module: &DeviceTreeNode) -> Region {
    let property = module.property("reg").unwrap();
    let (base, size) = property.value().split_at(size_of::<u64>());
    let wide = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    Region { base: wide(base), size: wide(size) }
}

/// Each name is unique among the files, the users, the directories of the shim's state, and the types.
fn names(plan: &Plan<'_>) -> Result<(), String> {
    let guests = || plan.guests.iter().map(|guest| guest.guest.name.value.as_str());
    once("the guest", guests())?;
    once("the file", guests().chain(["host", "driver-domain"]))?;
    once("the entry of the shim's state", guests().chain(["lock"]))?;
    once("the user", guests().chain(["root", "nobody"]))?;
    let own =
        ["driver", "xen", "xenboot", "domxen", "domio", "unlabeled", "security", "irq", "iomem", "ioport"];
    let types = plan.guests.iter().map(|guest| guest.policy_type());
    once("the type", types.chain(own.iter().chain(&["device", "nobody"]).map(|name| format!("{name}_t"))))?;
    once("the node", plan.hardware.iter().map(|hardware| hardware.node.value.as_str()))?;
    once("the host's node", plan.hardware.iter().map(|hardware| hardware.host_node.value.as_str()))?;
    let ramdisks = plan.guests.iter().filter_map(|guest| guest.guest.ramdisk.as_ref());
    for ramdisk in ramdisks {
        let is_kernel = plan.manifest.domains().any(|domain| domain.kernel.value == ramdisk.value);
        ensure(!is_kernel, || format!("{ramdisk:?} is a kernel"))?;
    }
    let qemu = plan
        .board
        .qemu
        .iter()
        .flat_map(|qemu| qemu.value.args.iter().chain([&qemu.value.program, &qemu.value.machine]));
    for word in qemu {
        ensure(!word.contains('\0'), || format!("{word:?} cannot be a word of a command line"))?;
    }
    for hardware in plan.hardware.iter().filter(|hardware| hardware.qemu.is_some()) {
        let name = &hardware.name.value;
        let plain = |char: char| char.is_ascii_alphanumeric() || "-._".contains(char);
        let is_id = name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.chars().all(plain);
        ensure(is_id, || format!("{name:?} is no identifier of QEMU"))?;
    }
    Ok(())
}

fn devices(plan: &Plan<'_>) -> Result<(), String> {
    for guest in &plan.guests {
        once("the device", guest.devices.iter().map(|device| &device.configuration.name))?;
        once("the window", guest.devices.iter().map(|device| device.configuration.base))?;
        once("the interrupt", guest.devices.iter().map(|device| device.configuration.irq))?;
        for device in &guest.devices {
            if device.device.table == "gpio" {
                let lines = device.device.device_type.parts().len();
                ensure((1..=LINES).contains(&lines), || format!("{lines} lines"))?;
            }
        }
    }
    Ok(())
}

/// The shim has the RAM of each guest without grants, and of no other.
fn reached_memory(plan: &Plan<'_>) -> Result<(), String> {
    for guest in &plan.guests {
        let size: u64 = guest.reached_memory().iter().map(|bank| bank.size).sum();
        let all = guest.guest.memory_access.value == MemoryAccess::All;
        let expected = if all { guest.guest.domain.memory.value.bytes } else { 0 };
        ensure(size == expected, || format!("{size} bytes of {expected} are reached"))?;
    }
    Ok(())
}

/// The programs of backends are in the ramdisk, and no process has the user of another.
fn programs(plan: &Plan<'_>, files: &HashMap<String, u32>) -> Result<(), String> {
    let mut users: Vec<_> = plan.guests.iter().map(|guest| guest.user).collect();
    for device in plan.guests.iter().flat_map(|guest| &guest.devices) {
        let Backend::Program(program) = &device.configuration.backend else { continue };
        let path = program.command.first().ok_or("an empty command")?;
        let mode = files.get(path.trim_start_matches('/'));
        ensure(mode.is_some_and(|mode| mode & 0o111 != 0), || format!("{path} is no program"))?;
        if program.confine.is_some() {
            users.push(program.user.ok_or_else(|| format!("{path} would be root"))?);
        }
    }
    once("the user", users.iter().map(|user| user.uid()))?;
    once("the group", users.iter().map(|user| user.gid()))
}

/// The driver domain's tree has all hardware, with the registers and the host nodes that Xen assigns.
fn hardware(plan: &Plan<'_>, dtb: &[u8]) -> Result<(), String> {
    let tree = DeviceTree::from_fdt(&Fdt::new(dtb).map_err(|error| error.to_string())?);
    for hardware in &plan.hardware {
        let name = &hardware.node.value;
        let node = tree.root.child("passthrough").and_then(|parent| parent.child(name));
        let node = node.ok_or_else(|| format!("no node {name}"))?;
        let holds = |property: &str, expected: Vec<u8>| {
            let is_there = node.property(property).is_some_and(|property| property.value() == expected);
            ensure(is_there, || format!("{property} of {name} is something else"))
        };
        let wide =
            |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>();
        holds(
            "reg",
            hardware.reg.value.iter().flat_map(|reg| wide(&[reg.value.base, reg.value.size])).collect(),
        )?;
        let pages = hardware.pages().flat_map(|page| wide(&[page.base, page.size, page.base]));
        holds("xen,reg", pages.collect())?;
        holds("xen,path", [hardware.host_node.value.as_bytes(), &[0]].concat())?;
        holds(
            "compatible",
            hardware.compatible.iter().flat_map(|name| [name.as_bytes(), &[0]].concat()).collect(),
        )?;
    }
    Ok(())
}

/// The kernel unpacks entry by entry: each file comes after its directory, once.
fn ramdisk(path: &Path) -> Result<HashMap<String, u32>, String> {
    let mut archive = Vec::new();
    GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_end(&mut archive)
        .map_err(|error| error.to_string())?;
    let mut modes = HashMap::new();
    let mut rest = archive.as_slice();
    loop {
        let reader = Reader::new(rest).map_err(|error| format!("the ramdisk: {error}"))?;
        let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
        if reader.entry().is_trailer() {
            return Ok(modes);
        }
        let parent = name.rsplit_once('/').map(|(parent, _)| parent);
        let in_directory =
            parent.is_none_or(|parent| modes.get(parent).is_some_and(|mode| mode & 0o170_000 == 0o040_000));
        ensure(in_directory, || format!("the ramdisk has no directory for {name}"))?;
        ensure(modes.insert(name.clone(), mode).is_none(), || format!("the ramdisk has {name} twice"))?;
        rest = reader.finish().map_err(|error| error.to_string())?;
    }
}
