// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How small it is.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::host::machine::{Machine, Place};

use crate::LIMIT;

const KIB: u64 = 1024;
const DOMAIN_KIB: u64 = 64 * KIB;
const DAEMON_KIB: u64 = 4 * KIB;
const RAMDISK_BYTES: u64 = 3 * KIB * KIB;

pub(crate) fn driver_domain_is_small(machine: &Machine) -> Result<()> {
    let ramdisk = fs::metadata(Place::in_checkout("").image.join("driver-domain.cpio.gz"))?.len();
    eprintln!("driver domain's ramdisk: {} KiB", ramdisk / KIB);
    ensure!(ramdisk < RAMDISK_BYTES, "the driver domain's ramdisk has {ramdisk} bytes");

    // Its shell has busybox's programs built in; links to them it does not need.
    let memory = machine.driver_domain.check(&["sh", "-c", "cat /proc/meminfo"], LIMIT)?;
    let total = field(&memory, "MemTotal:").context("no MemTotal")?;
    let free = field(&memory, "MemAvailable:").context("no MemAvailable")?;
    eprintln!("driver domain: {total} KiB in all, {free} KiB available");
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

/// The number after a name, in the form of files in /proc.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Names and resident memory of the appliance's daemons. The kernel cuts names at 15 characters, and calls a worker of
/// the shim `exe`, after /proc/self/exe, by which it is started.
fn daemons(statuses: &str) -> Vec<(String, u64)> {
    let processes = statuses.split("Name:").filter_map(|status| {
        let name = status.lines().next()?.trim();
        Some((name.to_owned(), field(status, "VmRSS:")?))
    });
    processes.filter(|(name, _)| ["backend", "exe", "xen-frontend-sh"].contains(&name.as_str())).collect()
}
