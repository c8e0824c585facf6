// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drivers in the guests are unbound and bound again: the devices work each time, and no grant stays mapped.

use anyhow::{Context, Result, bail, ensure};
use e2e::host::channel::Channel;
use e2e::host::console::Console;
use e2e::host::grants;
use e2e::host::machine::{GUEST_A, GUEST_B, Machine};
use e2e::host::process::wait_until;
use serde_json::json;

use crate::LIMIT;
use crate::i2c::is_about;
use crate::quiet::kernel_reports_no_fault;

/// How often each driver is unbound and bound again.
const TIMES: usize = 10;
const EEPROM: u16 = 0x50;
const SENSOR: u16 = 0x48;
/// How often the driver is unbound while a request is in flight.
const ROUNDS: u64 = 10;
/// By how much the duration of the request increases in each round.
const STEP_MILLISECONDS: u64 = 100;
const DRIVERS: &str = "/sys/bus/virtio/drivers";

/// Returns the bound virtio devices of a guest, with their drivers: `i2c_virtio` and `virtio0`.
pub(crate) fn devices(guest: &Channel) -> Result<Vec<(String, String)>> {
    let listed = guest.check(&["sh", "-c", &format!("cd {DRIVERS} && ls -d */virtio*")], LIMIT)?;
    let pairs = listed.lines().filter_map(|line| line.split_once('/'));
    Ok(pairs.map(|(driver, device)| (driver.to_owned(), device.to_owned())).collect())
}

/// Returns the number of mapped grants of a domain.
pub(crate) fn mapped(console: &Console, domain: u16) -> Result<usize> {
    Ok(grants::mapped(console)?.get(&domain).copied().unwrap_or(0))
}

/// Writes the devices to the file `bind` or `unbind` of their drivers.
pub(crate) fn tell(guest: &Channel, devices: &[(String, String)], what: &str) -> Result<()> {
    for (driver, device) in devices {
        guest.check(&["sh", "-c", &format!("echo {device} >{DRIVERS}/{driver}/{what}")], LIMIT)?;
    }
    Ok(())
}

pub(crate) fn rebinding_leaves_no_grant_mapped(machine: &Machine) -> Result<()> {
    rebind(machine, &machine.guest_a, GUEST_A, &["w0x50:00", "r0x50:1"])?;
    rebind(machine, &machine.guest_b, GUEST_B, &["w0x68:08", "r0x68:1"])
}

fn rebind(machine: &Machine, guest: &Channel, domain: u16, transfer: &[&str]) -> Result<()> {
    let devices = devices(guest)?;
    ensure!(devices.len() == 2, "domain {domain} has the devices {devices:?}");
    let before = mapped(&machine.console, domain)?;
    ensure!(before > 0, "the drivers are bound, but no ring of domain {domain} is mapped");
    for round in 1..=TIMES {
        tell(guest, &devices, "unbind")?;
        let left = mapped(&machine.console, domain)?;
        ensure!(left == 0, "round {round}: {left} grants of domain {domain} are still mapped");
        tell(guest, &devices, "bind")?;
        let bound = mapped(&machine.console, domain)?;
        ensure!(bound == before, "round {round}: {bound} grants are mapped, {before} before");
        guest.check(&[&["agent", "i2c", "0"], transfer].concat(), LIMIT)?;
        guest.check(&["agent", "gpio-get", "gpiochip0", "1"], LIMIT)?;
    }
    Ok(())
}

/// Kills a process during its transfer and unbinds the driver: before the device returns the request, after
/// that, and at about the same time. The interrupt is handled on the first CPU, and the driver is unbound on
/// the last, so both overlap with XBA_VCPUS=2 only.
pub(crate) fn request_completes_while_its_driver_is_unbound(machine: &Machine) -> Result<()> {
    let guest = &machine.guest_a;
    let mut adapters = devices(guest)?;
    adapters.retain(|(driver, _)| driver == "i2c_virtio");
    let [(driver, device)] = adapters.as_slice() else { bail!("guest-a has the I2C devices {adapters:?}") };
    let unbind = format!("echo {device} >{DRIVERS}/{driver}/unbind");
    // lm75 writes to its sensor when it is unbound, and would wait for the request.
    let without_lm75 = format!("echo 0-{SENSOR:04x} >/sys/bus/i2c/drivers/lm75/unbind");
    let kill_and_unbind =
        format!("killall -9 i2ctransfer; taskset $(printf %x $((1 << $(nproc) - 1))) sh -c '{unbind}'");
    for round in 1..=ROUNDS {
        guest.check(&["sh", "-c", &without_lm75], LIMIT)?;
        let mark = machine.i2c.mark()?;
        let late = json!({ "late-ms": STEP_MILLISECONDS * (round + 1) });
        machine.i2c.control(&json!({ "inject": { "address": EEPROM, "fault": late, "count": 1 } }))?;
        let write = guest.start(&["i2ctransfer", "-y", "-f", "0", "w2@0x50", "0x20", "0x11"])?;
        wait_until("the write is on the bus", LIMIT, || {
            Ok(machine.i2c.since(mark)?.iter().any(|entry| is_about(entry, EEPROM)).then_some(()))
        })?;
        guest.check(&["sh", "-c", &kill_and_unbind], LIMIT).context("unbind")?;
        drop(write);
        tell(guest, &adapters, "bind").context("bind")?;
        guest.check(&["agent", "i2c", "0", "w0x50:20", "r0x50:1"], LIMIT)?;
        kernel_reports_no_fault(guest).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}
