// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The inputs of the builds: files with the headers of kernels and ramdisks, a host device tree, and
//! programs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use images::emit::policy::FROM_XEN;

use crate::generate::{self, KERNELS, PROGRAMS, RAMDISKS};
use crate::workspace;

/// Programs of the system.
const PROGRAMS_NEEDED: [&str; 3] = ["dtc", "m4", "checkpolicy"];

/// The offsets of an arm64 kernel's size and magic number (Linux, `Documentation/arch/arm64/booting.rst`).
const IMAGE_SIZE: u64 = 16;
const MAGIC: u64 = 56;

/// The handle of the interrupt controller in the host's device tree.
const GIC: u32 = 1;

/// The inputs that do not depend on the manifest.
pub(crate) struct Inputs {
    /// The directory of input files.
    pub(crate) files: PathBuf,
    /// The backend's program.
    pub(crate) backend: PathBuf,
    host: DeviceTree,
    _directory: tempfile::TempDir,
}

impl Inputs {
    /// Prepares them. Returns none if a program is missing and the test is to be skipped.
    pub(crate) fn new() -> Option<Self> {
        let backend = std::env::var_os("XBA_BACKEND")
            .map_or_else(|| workspace().join("target/debug/backend"), PathBuf::from);
        let artefacts = workspace().join("target/artefacts");
        let missing = missing(&backend, &artefacts);
        if !missing.is_empty() {
            let required = std::env::var_os("XBA_REQUIRE_TOOLS").is_some_and(|value| value == "1");
            assert!(!required, "missing: {}", missing.join(", "));
            // The test harness captures `eprintln`.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: accepted manifests and their consumers, without {}",
                missing.join(", ")
            );
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().to_owned();
        fill(&files, &artefacts);
        Some(Self { files, backend, host: host(), _directory: directory })
    }

    /// The host's device tree, as a file in `directory`.
    pub(crate) fn host_dtb(&self, directory: &Path) -> PathBuf {
        let path = directory.join("board.dtb");
        std::fs::write(&path, self.host.to_dtb()).unwrap();
        path
    }
}

fn missing(backend: &Path, artefacts: &Path) -> Vec<String> {
    let programs =
        PROGRAMS_NEEDED.into_iter().filter(|program| Command::new(program).arg("-V").output().is_err());
    let programs = programs.map(|program| format!("{program} (scripts/setup installs it)"));
    let xen = FROM_XEN.iter().map(|name| artefacts.join(name)).filter(|path| !path.is_file());
    let xen = xen.map(|path| format!("{} (scripts/artefacts xen makes it)", path.display()));
    let backend = (!backend.is_file()).then(|| {
        format!("{} (cargo build -p backend --features xen makes it, or set XBA_BACKEND)", backend.display())
    });
    programs.chain(xen).chain(backend).collect()
}

fn fill(files: &Path, artefacts: &Path) {
    std::fs::create_dir(files.join("bin")).unwrap();
    std::os::unix::fs::symlink(artefacts.join("flask"), files.join("flask")).unwrap();
    for program in ["xen", "busybox", "bin/xen-frontend-shim", "bin/backend"].iter().chain(&PROGRAMS) {
        std::fs::write(files.join(program), "a program").unwrap();
    }
    for (name, mib) in KERNELS {
        let size = mib << 20;
        let file = File::create(files.join(name)).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&size.to_le_bytes(), IMAGE_SIZE).unwrap();
        file.write_all_at(b"ARM\x64", MAGIC).unwrap();
    }
    for (name, mib) in RAMDISKS {
        let file = File::create(files.join(name)).unwrap();
        file.set_len(mib << 20).unwrap();
        file.write_all_at(&[0x1f, 0x8b, 8], 0).unwrap();
    }
}

/// A tree with the host nodes of all generated hardware.
fn host() -> DeviceTree {
    let property = |name, value: &[u32]| DeviceTreeProperty::new(name, value).unwrap();
    let cells = |mut node: DeviceTreeNode| {
        node.add_property(property("#address-cells", &[2]));
        node.add_property(property("#size-cells", &[2]));
        node
    };
    let mut tree = DeviceTree::new();
    tree.root = cells(std::mem::take(&mut tree.root));
    tree.root.add_property(property("interrupt-parent", &[GIC]));
    let mut gic = DeviceTreeNode::new("gic").unwrap();
    gic.add_property(DeviceTreeProperty::new("interrupt-controller", [0_u8; 0]).unwrap());
    gic.add_property(property("#interrupt-cells", &[3]));
    gic.add_property(property("phandle", &[GIC]));
    tree.root.add_child(gic);
    let mut soc = cells(DeviceTreeNode::new("soc").unwrap());
    soc.add_property(DeviceTreeProperty::new("ranges", [0_u8; 0]).unwrap());
    for place in 0..generate::MOST_HARDWARE {
        let (parent, name) = generate::host_node(place);
        let mut node = DeviceTreeNode::new(name).unwrap();
        let base = u32::try_from(generate::base(place)).unwrap();
        node.add_property(property("reg", &[0, base, 0, 0x1000]));
        let interrupts: Vec<_> = generate::spis(place).flat_map(|spi| [0, spi, 4]).collect();
        node.add_property(property("interrupts", &interrupts));
        if parent == "/" {
            tree.root.add_child(node)
        } else {
            soc.add_child(node)
        };
    }
    tree.root.add_child(soc);
    tree
}
