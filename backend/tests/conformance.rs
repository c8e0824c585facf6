// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the tables of CONFORMANCE.md: every row names tests, and every test that it names exists.

#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

/// Returns the rows of the tables, without their heads.
fn rows(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| line.starts_with("| ")).filter(|line| !line.ends_with("| Test |"))
}

/// Returns the tests of a row: FILE and FUNCTION of each `FILE: FUNCTION`.
fn tests(row: &str) -> Vec<(&str, &str)> {
    row.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once(": ")).collect()
}

/// Whether `source` has a test of this name that is not ignored. A test of proptest has its arguments on
/// separate lines.
fn has_test(source: &str, name: &str) -> bool {
    let heads = [format!("fn {name}() {{"), format!("fn {name}(")];
    source.lines().zip(source.lines().skip(1)).any(|(attribute, line)| {
        attribute.trim() == "#[test]" && heads.iter().any(|head| line.trim() == head)
    })
}

#[test]
fn every_row_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("CONFORMANCE.md")).expect("the table");
    let mut missing = Vec::new();
    for row in rows(&table) {
        let named = tests(row);
        if named.is_empty() {
            missing.push(format!("no test: {row}"));
        }
        for (file, test) in named {
            let source = fs::read_to_string(root.join(file)).unwrap_or_default();
            if !has_test(&source, test) {
                missing.push(format!("{file} has no test {test}"));
            }
        }
    }
    assert!(rows(&table).count() > 70, "the tables were read");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn an_ignored_test_does_not_count() {
    assert!(has_test("    #[test]\n    fn a() {\n", "a"));
    assert!(has_test("    #[test]\n    fn a(\n", "a"));
    assert!(!has_test("    #[test]\n    #[ignore = \"slow\"]\n    fn a() {\n", "a"));
    assert!(!has_test("    #[test]\n    fn ab() {\n", "a"));
    assert!(!has_test("fn a() {\n", "a"));
}
