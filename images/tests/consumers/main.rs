// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that read an image accept what the builder accepts.
//!
//! ```text
//!   generate ─▶ manifest, board ─▶ mutate ─▶ TOML ─▶ load, build ─┬▶ refused, with a place
//!   (valid)                        (0 to 3 changes)               └▶ image ─┬▶ consumers  dtc, backend, shim
//!                                                                           └▶ rules      of Xen and Linux
//! ```
//!
//! The build runs m4 and checkpolicy. [`rules`] has what no program on the build machine can check.
//!
//! Environment:
//!
//! - `PROPTEST_CASES`: the number of manifests, 256 by default.
//! - `XBA_BACKEND`: the backend's program for this machine, with the feature `xen`. By default
//!   `target/debug/backend`.
//! - `XBA_REQUIRE_TOOLS=1`: a missing program or artefact fails the test. By default the test is skipped.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]
#![allow(clippy::panic, reason = "in a test a panic is the message")]

mod consumers;
mod generate;
mod inputs;
mod mutate;
mod rules;

use std::cell::Cell;
use std::path::Path;

use images::build::Job;
use images::error::Error;
use images::load::load;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use self::generate::Documents;
use self::inputs::Inputs;

/// At least one case in this number must be accepted: refusals alone show nothing.
const ONE_ACCEPTED_IN: u32 = 5;

#[test]
fn accepted_manifests_are_accepted_by_all_consumers() {
    let Some(inputs) = Inputs::new() else { return };
    // Not kept: a case that is found becomes a refusal in `tests/refused`.
    let config = Config { failure_persistence: None, ..Config::default() };
    let cases = config.cases;
    let accepted = Cell::new(0);
    let documents = (generate::documents(), mutate::mutations())
        .prop_map(|(documents, mutations)| mutate::apply(documents, &mutations));
    let outcome = TestRunner::new(config).run(&documents, |documents| {
        accepted.set(accepted.get() + u32::from(works(&documents, &inputs).map_err(TestCaseError::fail)?));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let accepted = accepted.get();
    assert!(accepted * ONE_ACCEPTED_IN >= cases, "only {accepted} of {cases} manifests were accepted");
}

/// Whether `documents` are accepted. Fails if a consumer refuses the image of accepted ones.
fn works(documents: &Documents, inputs: &Inputs) -> Result<bool, String> {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("image");
    let manifest = scratch.path().join("manifest.toml");
    std::fs::write(&manifest, toml::to_string(&documents.manifest).unwrap()).unwrap();
    std::fs::write(scratch.path().join("board.toml"), toml::to_string(&documents.board).unwrap()).unwrap();
    let loaded = match load(&manifest) {
        Ok(loaded) => loaded,
        Err(error) => return has_place(&error).map(|()| false),
    };
    if loaded.require_files(&inputs.files).is_err() {
        return Ok(false);
    }
    let plan = loaded.plan().map_err(|error| error.to_string())?;
    let job = Job {
        loaded: &loaded,
        plan: &plan,
        files: inputs.files.clone(),
        output: output.clone(),
        host_dtb: Some(inputs.host_dtb(scratch.path())),
    };
    match job.run() {
        Ok(()) => {}
        Err(Error::Refused(_)) => return Ok(false),
        Err(error) => return Err(format!("accepted, and then: {error:?}")),
    }
    consumers::accept(&plan, &output, inputs)?;
    rules::hold(&plan, &output)?;
    Ok(true)
}

/// Every refusal names a place.
fn has_place(error: &Error) -> Result<(), String> {
    let text = error.to_string();
    if text.contains("--> ") { Ok(()) } else { Err(format!("refused without a place: {text}")) }
}

/// The directory of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
