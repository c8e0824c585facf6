// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drivers come and go in the guests: each time the devices work, and no grant stays mapped.

use anyhow::{Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::console::Console;
use e2e::host::grants;
use e2e::host::machine::{GUEST_A, GUEST_B, Machine};

use crate::LIMIT;

const TIMES: usize = 10;
const DRIVERS: &str = "/sys/bus/virtio/drivers";

/// The guests' virtio devices, with the drivers that have them: `i2c_virtio/virtio0`.
pub(crate) fn devices(guest: &Channel) -> Result<Vec<(String, String)>> {
    let listed = guest.check(&["sh", "-c", &format!("cd {DRIVERS} && ls -d */virtio*")], LIMIT)?;
    let pairs = listed.lines().filter_map(|line| line.split_once('/'));
    Ok(pairs.map(|(driver, device)| (driver.to_owned(), device.to_owned())).collect())
}

/// How many grants of a domain are mapped.
pub(crate) fn mapped(console: &Console, domain: u16) -> Result<usize> {
    Ok(grants::mapped(console)?.get(&domain).copied().unwrap_or(0))
}

/// Tells the drivers of `devices` to `bind` or `unbind`.
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
    ensure!(before > 0, "devices are bound, and yet no ring of domain {domain} is mapped");
    for round in 1..=TIMES {
        tell(guest, &devices, "unbind")?;
        let left = mapped(&machine.console, domain)?;
        ensure!(left == 0, "round {round}: {left} grants of domain {domain} are still mapped");
        tell(guest, &devices, "bind")?;
        let bound = mapped(&machine.console, domain)?;
        ensure!(bound == before, "round {round}: {bound} grants are mapped, at first there were {before}");
        guest.check(&[&["agent", "i2c", "0"], transfer].concat(), LIMIT)?;
        guest.check(&["agent", "gpio-get", "gpiochip0", "1"], LIMIT)?;
    }
    Ok(())
}
