// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table of devices in README.md beside this file: made of what the tests run, with the versions that
//! scripts/upstream builds.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{DEVICES, Device};

const HEAD: &str = "\
| Device | Daemon | What is run; with `XBA_LONG=1` also after the daemon was killed | Limits of the daemon |
|---|---|---|---|
";

/// Fails if the table in README.md is another one.
pub(crate) fn is_current() -> Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| {
        let path = package.join(path);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let table = table(&read("../upstream")?)?;
    ensure!(read("tests/devices/README.md")?.contains(&table), "README.md lacks this table:\n{table}");
    Ok(())
}

fn table(script: &str) -> Result<String> {
    let mut table = HEAD.to_owned();
    for Device { daemon, used, limits, .. } in &DEVICES {
        let version = version(script, daemon.program)?;
        let (device, program) = (daemon.device, daemon.program);
        writeln!(table, "| {device} | {program} {version} | {used} | {limits} |")?;
    }
    Ok(table)
}

/// The version of a daemon in the script that builds it: a line `[NAME]=VERSION`.
fn version<'a>(script: &'a str, program: &str) -> Result<&'a str> {
    let head = format!("[{program}]=");
    let line = script.lines().find_map(|line| line.trim().strip_prefix(&head));
    line.with_context(|| format!("scripts/upstream has no version of {program}"))
}
