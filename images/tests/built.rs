// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An image is complete or absent. (That a complete one boots is for the end-to-end tests: it takes the artefacts.)

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::{Path, PathBuf};

use images::build::Job;
use images::load::load;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo.toml")
}

/// What a build of the demo says, and what it leaves in the directory of its output.
fn build(directory: &Path, inputs: &[&str]) -> (String, Vec<String>) {
    let files = directory.join("files");
    for input in inputs {
        let path = files.join(input);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "not what it says").unwrap();
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
fn all_inputs_that_are_missing_are_named_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (error, left) = build(directory.path(), &["xen", "Image", "bin/backend"]);
    for missing in ["busybox", "bin/xen-frontend-shim", "flask/access_vectors"] {
        assert!(error.contains(missing), "{error}");
    }
    assert!(!error.contains("Image") && !error.contains("bin/backend"), "{error}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_build_that_fails_half_way_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let flask = ["flask/security_classes", "flask/initial_sids", "flask/access_vectors"];
    let others = ["xen", "Image", "busybox", "bin/xen-frontend-shim", "bin/backend", "bin/agent"];
    let (_, left) = build(directory.path(), &[flask.as_slice(), &others].concat());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_directory_that_is_no_image_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let precious = directory.path().join("work/image/precious");
    std::fs::create_dir_all(precious.parent().unwrap()).unwrap();
    std::fs::write(&precious, "").unwrap();
    let flask = ["flask/security_classes", "flask/initial_sids", "flask/access_vectors"];
    let others = ["xen", "Image", "busybox", "bin/xen-frontend-shim", "bin/backend"];
    let (error, left) = build(directory.path(), &[flask.as_slice(), &others].concat());
    assert!(error.contains("is no image"), "{error}");
    assert_eq!(left, ["image"]);
    assert!(precious.exists());
}

#[test]
fn files_that_the_manifest_names_are_pointed_at_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let error = load(&demo()).unwrap().require_files(directory.path()).unwrap_err().to_string();
    assert!(error.contains("^^^^^^^^^ no such file"), "{error}");
    assert!(error.contains("there is no file `bin/agent`"), "{error}");
    assert!(error.contains("there is no file `guest.cpio.gz`"), "{error}");
    assert!(error.contains("3 mistakes, nothing was written"), "{error}");
}
