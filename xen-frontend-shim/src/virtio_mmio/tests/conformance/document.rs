// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `CONFORMANCE.md` names tests that exist, and every test of this module and every register is named there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::virtio_mmio::registers::TABLE;

const DOCUMENT: &str = include_str!("../../../../CONFORMANCE.md");

/// The names of all tests in the sources under `directory`.
fn tests_under(directory: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            names.extend(tests_under(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).expect("a source file");
            let attributes = source.split("#[test]").skip(1);
            let functions = attributes.filter_map(|after| after.split_once("fn ")?.1.split_once('('));
            names.extend(functions.map(|(name, _)| name.to_owned()));
        }
    }
    names
}

/// The tests that the document names: the last column of its tables.
fn named() -> BTreeSet<String> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with('|'));
    let columns = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit_once('|'));
    columns.flat_map(|(_, tests)| tests.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

fn sources() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

#[test]
fn every_test_that_the_document_names_exists() {
    let missing: Vec<_> = named().difference(&tests_under(sources())).cloned().collect();
    assert!(missing.is_empty(), "named in CONFORMANCE.md, but there is no such test: {missing:#?}");
    assert!(named().len() > 80, "the document has become short");
}

#[test]
fn every_test_of_a_clause_is_named_in_the_document() {
    let of_a_clause =
        |name: &String| name.starts_with('s') && name[1..].starts_with(|c: char| c.is_ascii_digit());
    let tests: BTreeSet<_> = tests_under(sources()).into_iter().filter(of_a_clause).collect();
    let missing: Vec<_> = tests.difference(&named()).cloned().collect();
    assert!(missing.is_empty(), "not named in CONFORMANCE.md: {missing:#?}");
}

#[test]
fn every_register_has_a_test_of_its_own() {
    let tests = tests_under(sources());
    for register in TABLE {
        let prefix = format!("s4_2_2_x{:03x}_", register.offset);
        assert!(tests.iter().any(|test| test.starts_with(&prefix)), "{prefix}: {}", register.name);
    }
}
