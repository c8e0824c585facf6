// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each manifest in `tests/refused` has errors, and beside it stands the builder's message.
//!
//! After a change of messages, `UPDATE_EXPECTED=1 cargo test -p images` writes them again, for review by `git
//! diff`.

use std::path::Path;

use images::load::load;

#[test]
fn manifests_with_errors_are_refused_with_the_expected_messages() {
    let root = format!("{}/tests/refused/", env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(&root).unwrap() {
        let manifest = entry.unwrap().path();
        if manifest.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let message = match load(&manifest) {
            Ok(_) => "accepted\n".to_owned(),
            Err(error) => format!("{error}\n").replace(&root, ""),
        };
        let expected = manifest.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, &message).unwrap();
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != message {
            wrong.push(format!("{}:\n{message}", manifest.display()));
        }
    }
    assert!(wrong.is_empty(), "unexpected messages:\n\n{}", wrong.join("\n"));
}

#[test]
fn demo_is_accepted() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo.toml");
    load(&demo).unwrap();
}
