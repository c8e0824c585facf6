// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The size of the driver domain: ramdisk, memory, and memory of each daemon.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::host::machine::{Machine, Place};
use toml::Table;

use crate::LIMIT;

const KIB: u64 = 1024;
const DOMAIN_KIB: u64 = 64 * KIB;
const DAEMON_KIB: u64 = 4 * KIB;
const RAMDISK_BYTES: u64 = 3 * KIB * KIB;

pub(crate) fn driver_domain_is_small(machine: &Machine) -> Result<()> {
    let ramdisk = products_ramdisk(&Place::in_checkout(""))?;
    eprintln!("driver domain's ramdisk without the agent: {} KiB", ramdisk / KIB);
    ensure!(ramdisk < RAMDISK_BYTES, "the driver domain's ramdisk has {ramdisk} bytes");

    // The shell has busybox's programs built in. There are no links to them.
    let memory = machine.driver_domain.check(&["sh", "-c", "cat /proc/meminfo"], LIMIT)?;
    let total = field(&memory, "MemTotal:").context("no MemTotal")?;
    let free = field(&memory, "MemAvailable:").context("no MemAvailable")?;
    eprintln!("driver domain: {total} KiB of memory, {free} KiB available");
    ensure!(total <= DOMAIN_KIB, "the driver domain has {total} KiB");

    let statuses = "for status in /proc/[0-9]*/status; do cat $status 2>/dev/null; done";
    let statuses = machine.driver_domain.check(&["sh", "-c", statuses], LIMIT)?;
    let daemons = daemons(&statuses);
    // Two guests with two devices each: four backends, two workers, the supervisor.
    ensure!(daemons.len() >= 7, "only these daemons run: {daemons:?}");
    for (name, resident) in daemons {
        eprintln!("{name}: {resident} KiB resident");
        ensure!(resident <= DAEMON_KIB, "{name} has {resident} KiB resident");
    }
    Ok(())
}

/// Builds the driver domain's ramdisk without the agent, which only the demo and the tests use, and returns
/// its size.
fn products_ramdisk(place: &Place) -> Result<u64> {
    let manifest = fs::read_to_string(&place.manifest)?;
    let mut manifest: Table = manifest.parse()?;
    let domain = manifest.get_mut("driver-domain").and_then(|domain| domain.as_table_mut());
    let domain = domain.context("the manifest has no driver domain")?;
    for key in ["console", "files"] {
        domain
            .remove(key)
            .with_context(|| format!("the manifest has no `{key}`, by which the agent was added"))?;
    }
    let directory = tempfile::tempdir()?;
    let (path, image) = (directory.path().join("product.toml"), directory.path().join("image"));
    fs::write(&path, manifest.to_string())?;
    build(place, &path, &image)?;
    Ok(fs::metadata(image.join("driver-domain.cpio.gz"))?.len())
}

fn build(place: &Place, manifest: &Path, image: &Path) -> Result<()> {
    let mut command = Command::new(&place.builder);
    command.arg("build").arg(manifest).arg("--files").arg(&place.files).arg("--output").arg(image);
    let output = command.output().with_context(|| format!("cannot run {}", place.builder.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the image without the agent was not built: {errors}");
    Ok(())
}

/// Returns the number after a name, in the format of files in /proc.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Returns names and resident memory of the appliance's daemons. The kernel cuts names at 15 characters. The
/// name of a worker is `exe`, since it is started by /proc/self/exe.
fn daemons(statuses: &str) -> Vec<(String, u64)> {
    let processes = statuses.split("Name:").filter_map(|status| {
        let name = status.lines().next()?.trim();
        Some((name.to_owned(), field(status, "VmRSS:")?))
    });
    processes.filter(|(name, _)| ["backend", "exe", "xen-frontend-sh"].contains(&name.as_str())).collect()
}
