// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files that are made from a manifest, as texts for review: `tests/emitted/MANIFEST/…`.
//!
//! After a change, `UPDATE_EXPECTED=1 cargo test -p images` writes them again, for review by `git diff`.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::{Path, PathBuf};

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode};
use images::board::Region;
use images::emit::host_dt::{DomainFiles, Files, host_dt};
use images::emit::{accounts, driver_dt::driver_dt, guest_dt::guest_dt, policy, shim::shim};
use images::explain::explain;
use images::load::load;
use images::plan::Plan;
use shim_config::{Backend, Device, Guest};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emitted")
}

/// A device tree with the host nodes of the driver domain's hardware only.
fn host(plan: &Plan<'_>) -> DeviceTree {
    let mut tree = DeviceTree::new();
    for hardware in &plan.hardware {
        let mut node = &mut tree.root;
        for name in hardware.host_node.value.trim_start_matches('/').split('/') {
            node = node.add_child_mut(DeviceTreeNode::new_unchecked(name));
        }
    }
    tree
}

/// The places of files of 1 MiB each.
fn files(plan: &Plan<'_>) -> Files {
    let mut places = (1u64..).map(|number| Region { base: number << 20, size: 1 << 20 });
    let mut domain = |ramdisk: bool| DomainFiles {
        kernel: places.next().unwrap(),
        ramdisk: ramdisk.then(|| places.next().unwrap()),
        device_tree: places.next().unwrap(),
    };
    let driver_domain = domain(true);
    let guests = plan.guests.iter().map(|guest| domain(guest.guest.ramdisk.is_some())).collect();
    Files { policy: places.next().unwrap(), driver_domain, guests }
}

fn emitted(plan: &Plan<'_>) -> Vec<(String, String)> {
    let host = host_dt(plan, host(plan), &files(plan)).unwrap();
    let mut texts = vec![
        ("host.dts".to_owned(), host.to_string()),
        ("driver-domain.dts".to_owned(), driver_dt(plan).unwrap().to_string()),
        ("domains.te".to_owned(), policy::domains(plan)),
        ("passwd".to_owned(), accounts::passwd(plan)),
        ("group".to_owned(), accounts::group(plan)),
        ("shim.toml".to_owned(), toml::to_string(&shim(plan)).unwrap()),
        ("explained".to_owned(), explain(plan)),
    ];
    for guest in &plan.guests {
        let name = format!("{}.dts", guest.guest.name.value);
        texts.push((name, guest_dt(guest).unwrap().to_string()));
    }
    texts
}

fn compare(manifest: &Path, name: &str) {
    let loaded = load(manifest).unwrap();
    let plan = loaded.plan().unwrap();
    let directory = directory().join(name);
    for (file, text) in emitted(&plan) {
        let path = directory.join(file);
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, expected, "{} is not what was expected", path.display());
    }
}

#[test]
fn files_of_the_demo_are_as_expected() {
    compare(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo.toml"), "demo");
}

#[test]
fn files_of_a_guest_with_fixed_places_on_a_board_beside_the_manifest_are_as_expected() {
    compare(&directory().join("pi.toml"), "pi");
}

#[test]
fn files_of_guests_with_other_backends_and_without_grants_are_as_expected() {
    compare(&directory().join("devices.toml"), "devices");
}

#[test]
fn memory_that_is_reached_without_a_grant_gives_a_warning_with_its_place() {
    let loaded = load(&directory().join("devices.toml")).unwrap();
    let text = loaded.warnings().unwrap();
    assert!(text.starts_with("warning: the driver domain reaches all memory of `rtos`"), "{text}");
    assert!(text.contains("devices.toml:49:18"), "{text}");
    assert!(load(&directory().join("pi.toml")).unwrap().warnings().is_none());
}

/// The backends of several adapters of a guest take turns together, by a lock.
#[test]
fn guest_with_several_adapters_has_one_turn_at_a_bus() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo.toml");
    let another = "[[guest.i2c]]\nadapter = \"i2c0\"\nname = \"another\"\ntargets = [{ address = 0x20 }]\n\n";
    let text = std::fs::read_to_string(demo).unwrap();
    let text = text.replacen("[[guest.gpio]]", &format!("{another}[[guest.gpio]]"), 1);
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("manifest.toml");
    std::fs::write(&manifest, text).unwrap();
    let loaded = load(&manifest).unwrap();
    let config = shim(&loaded.plan().unwrap());
    let turns = |device: &Device| match &device.backend {
        Backend::Program(program) => {
            program.command.iter().find_map(|word| word.strip_prefix("--turns=")).map(str::to_owned)
        }
        Backend::Socket(_) => None,
    };
    let of_guest = |guest: &Guest| guest.device.iter().map(turns).collect::<Vec<_>>();
    let turn = || Some("/run/i2c-turns/guest-a".to_owned());
    let turns: Vec<_> = config.guest.iter().map(of_guest).collect();
    assert_eq!(turns, [vec![turn(), turn(), None], vec![None, None]]);
}

#[test]
fn flattened_device_tree_reads_back_equal() {
    let loaded = load(&directory().join("pi.toml")).unwrap();
    let plan = loaded.plan().unwrap();
    let tree = driver_dt(&plan).unwrap();
    let dtb = tree.to_dtb();
    assert_eq!(DeviceTree::from_fdt(&Fdt::new(&dtb).unwrap()), tree);
}

/// Xen stops at such a node.
#[test]
fn host_node_missing_in_the_device_tree_is_reported_in_the_board_file() {
    let loaded = load(&directory().join("pi.toml")).unwrap();
    let plan = loaded.plan().unwrap();
    let mut tree = host(&plan);
    tree.root.child_mut("soc").unwrap().remove_child("i2c@7e804000").unwrap();
    let error = loaded.host(&plan, &tree.to_dtb()).unwrap_err().to_string();
    assert!(error.contains("raspberry-pi-4.toml:"), "{error}");
    assert!(error.contains("has no node `/soc/i2c@7e804000`"), "{error}");
    assert!(error.contains("perhaps `/soc/gpio@7e200000` is meant"), "{error}");
    assert!(!error.contains("has no node `/soc/gpio@7e200000`"), "{error}");
}
