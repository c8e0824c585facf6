// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An image is complete or absent. The tests on Xen boot complete ones.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::{Path, PathBuf};

use images::build::Job;
use images::load::load;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo.toml")
}

/// The error of a build of the demo, and the files in the directory of its output.
fn build(directory: &Path, inputs: &[&str]) -> (String, Vec<String>) {
    let files = directory.join("files");
    for input in inputs {
        let path = files.join(input);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "content").unwrap();
    }
    let work = directory.join("work");
    let loaded = load(&demo()).unwrap();
    let plan = loaded.plan().unwrap();
    let host_dtb = Some(files.join("no-such.dtb"));
    let error =
        Job { loaded: &loaded, plan: &plan, files, output: work.join("image"), host_dtb }.run().unwrap_err();
    let left = std::fs::read_dir(&work).into_iter().flatten();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    (format!("{error:#}"), left)
}

#[test]
fn missing_inputs_are_reported_together() {
    let directory = tempfile::tempdir().unwrap();
    let (error, left) = build(directory.path(), &["xen", "Image", "bin/backend"]);
    for missing in ["busybox", "bin/xen-frontend-shim", "flask/access_vectors"] {
        assert!(error.contains(missing), "{error}");
    }
    assert!(!error.contains("Image") && !error.contains("bin/backend"), "{error}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn failed_build_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let flask = ["flask/security_classes", "flask/initial_sids", "flask/access_vectors"];
    let others = ["xen", "Image", "busybox", "bin/xen-frontend-shim", "bin/backend", "bin/agent"];
    let (_, left) = build(directory.path(), &[flask.as_slice(), &others].concat());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn output_directory_that_is_not_an_image_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let precious = directory.path().join("work/image/precious");
    std::fs::create_dir_all(precious.parent().unwrap()).unwrap();
    std::fs::write(&precious, "").unwrap();
    let flask = ["flask/security_classes", "flask/initial_sids", "flask/access_vectors"];
    let others = ["xen", "Image", "busybox", "bin/xen-frontend-shim", "bin/backend"];
    let (error, left) = build(directory.path(), &[flask.as_slice(), &others].concat());
    assert!(error.contains("is not an image"), "{error}");
    assert_eq!(left, ["image"]);
    assert!(precious.exists());
}

#[test]
fn missing_files_are_reported_at_their_place_in_the_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let error = load(&demo()).unwrap().require_files(directory.path()).unwrap_err().to_string();
    assert!(error.contains("^^^^^^^^^ no such file"), "{error}");
    assert!(error.contains("there is no file `bin/agent`"), "{error}");
    assert!(error.contains("there is no file `guest.cpio.gz`"), "{error}");
    assert!(error.contains("3 errors, nothing was written"), "{error}");
}

/// Xen panics with these files, and no domain starts.
#[test]
fn kernels_and_ramdisks_that_xen_does_not_start_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("manifest.toml");
    let text = std::fs::read_to_string(demo()).unwrap();
    let text = text.replacen("name = \"guest-b\"", "name = \"guest-b\"\nkernel = \"other\"", 1);
    std::fs::write(&manifest, text).unwrap();
    let write = |name: &str, content: &[u8], length: u64| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
    };
    let complaint =
        || load(&manifest).unwrap().require_files(directory.path()).map_err(|error| error.to_string());
    let mut image = [0; 64];
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    write("bin/agent", b"", 1);
    write("Image", &image, 8 << 20);
    write("other", b"MZ\0\0zimg", 8 << 20);
    // 96 MiB of memory, of which a kernel has 8 and a device tree 2.
    write("guest.cpio.gz", b"", 84 << 20);
    let error = complaint().unwrap_err();
    assert!(
        error.contains("Xen does not start a domain from `other`") && error.contains("^^^^^ this kernel"),
        "{error}"
    );
    assert!(error.contains("it is an EFI program that unpacks a kernel: give the kernel's"), "{error}");
    assert!(error.contains("one error"), "{error}");
    write("other", &image, 8 << 20);
    assert_eq!(complaint(), Ok(()));
    write("guest.cpio.gz", b"", (84 << 20) + 1);
    let error = complaint().unwrap_err();
    assert!(error.contains("96 MiB of memory are too little for kernel and ramdisk"), "{error}");
    assert!(error.contains("these and the device tree take 96 MiB") && error.contains("2 errors"), "{error}");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &image).unwrap();
    let packed = packed.finish().unwrap();
    write("guest.cpio.gz", b"", 1);
    write("other", &packed, packed.len() as u64);
    assert_eq!(complaint(), Ok(()));
    write("Image", &packed, packed.len() as u64);
    let error = complaint().unwrap_err();
    assert!(error.contains("the compressed kernel `Image` is that of two domains"), "{error}");
    write("Image", b"not a kernel", 8 << 20);
    let error = complaint().unwrap_err();
    assert!(error.contains("^^^^^^ the kernel of this domain"), "{error}");
}

/// The boot loader has only so much room for files.
#[test]
fn files_larger_than_the_room_of_the_board_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("manifest.toml");
    let text = std::fs::read_to_string(demo()).unwrap();
    std::fs::write(&manifest, text.replace("\"96 MiB\"", "\"512 MiB\"")).unwrap();
    let write = |name: &str, length: u64| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut image = [0; 64];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        std::fs::write(&path, image).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
    };
    write("bin/agent", 1);
    write("Image", 8 << 20);
    // 352 MiB: a kernel has 8, and 2 each have three device trees, the policy and the driver domain's
    // ramdisk.
    write("guest.cpio.gz", 334 << 20);
    let loaded = load(&manifest).unwrap();
    assert!(loaded.require_files(directory.path()).is_ok());
    assert!(loaded.require_room(directory.path(), 2 << 20).is_ok());
    let error = loaded.require_room(directory.path(), (2 << 20) + 1).unwrap_err().to_string();
    assert!(error.contains("kernels, ramdisks, device trees and policy take 354 MiB"), "{error}");
    assert!(error.contains("this board has 352 MiB for them"), "{error}");
    write("guest.cpio.gz", (334 << 20) + 1);
    assert!(loaded.require_files(directory.path()).is_err());
}

#[test]
fn ramdisk_larger_than_the_driver_domain_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = [0; 64];
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    std::fs::write(directory.path().join("Image"), image).unwrap();
    let loaded = load(&demo()).unwrap();
    // 64 MiB, of which kernel and device tree have 2 each.
    assert!(loaded.require_room(directory.path(), 58 << 20).is_ok());
    let error = loaded.require_room(directory.path(), (58 << 20) + 1).unwrap_err().to_string();
    assert!(error.contains("64 MiB of memory are too little"), "{error}");
}
