// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a domain must not be able to do.

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::{GUEST_A, Machine};
use serde_json::json;

use crate::LIMIT;
use crate::i2c::is_about;

const SENSOR: u16 = 0x48;
const EEPROM: u16 = 0x50;

/// Fails unless the request is refused and the bus sees nothing of `address`.
fn refused(machine: &Machine, guest: &Channel, messages: &[&str], address: u16) -> Result<()> {
    let mark = machine.i2c.mark()?;
    let command = [&["agent", "i2c", "0"], messages].concat();
    let output = guest.run(&command, LIMIT)?;
    ensure!(!output.succeeded(), "{messages:?} was carried out: {}", output.text());
    let entries = machine.i2c.since(mark)?;
    ensure!(
        !entries.iter().any(|entry| is_about(entry, address)),
        "{messages:?} on the bus: {}",
        json!(entries)
    );
    Ok(())
}

pub(crate) fn targets(machine: &Machine) -> Result<()> {
    let guest = &machine.guest_b;
    refused(machine, guest, &["w0x48:00", "r0x48:2"], SENSOR)?;
    refused(machine, guest, &["r0x48:2"], SENSOR)?;
    refused(machine, guest, &["w0x50:00ff"], EEPROM)?;
    // An address that nobody has, and one that is guest-b's own: the refusals above mean something.
    refused(machine, guest, &["r0x22:1"], 0x22)?;
    guest.check(&["agent", "i2c", "0", "w0x68:08", "r0x68:1"], LIMIT)?;
    Ok(())
}

pub(crate) fn second_message(machine: &Machine) -> Result<()> {
    let guest = &machine.guest_b;
    refused(machine, guest, &["w0x68:08", "r0x48:2"], SENSOR)?;
    refused(machine, guest, &["w0x68:08", "w0x50:00ff"], EEPROM)?;
    refused(machine, guest, &["r0x68:1", "w0x68:08", "r0x50:8"], EEPROM)
}

pub(crate) fn lines(machine: &Machine) -> Result<()> {
    let guest = &machine.guest_b;
    let listed = guest.check(&["agent", "gpio-lines", "gpiochip0"], LIMIT)?;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split('"').nth(1)).collect();
    let expected = ["relay", "door", "loop-out", "loop-in", "Wake, shared", ""];
    ensure!(names == expected, "guest-b has the lines {names:?}");
    for beyond in ["6", "7", "100"] {
        let output = guest.run(&["agent", "gpio-get", "gpiochip0", beyond], LIMIT)?;
        ensure!(!output.succeeded(), "guest-b has read line {beyond}");
    }
    let before = [machine.gpio.line(0)?, machine.gpio.line(1)?];
    for own in ["0", "1"] {
        let held = guest.start(&["agent", "gpio-hold", "gpiochip0", own, "1"])?;
        held.look_until(LIMIT, |output| output.text() == "held")?;
    }
    let after = [machine.gpio.line(0)?, machine.gpio.line(1)?];
    ensure!(before == after, "guest-a's lines were {before:?}, now they are {after:?}");
    Ok(())
}

/// Guests' memory starts here (Xen's public/arch-arm.h, GUEST_RAM0_BASE).
const FIRST_PAGE: &str = "0x40000";

pub(crate) fn foreign_pages(machine: &Machine) -> Result<()> {
    let domain = GUEST_A.to_string();
    let attempts = [
        // The kernel's image is in the first of these pages, so there is something to map.
        ["agent", "map-foreign", &domain, FIRST_PAGE, "8"],
        // Guests grant from small numbers up; this far up there is nothing.
        ["agent", "map-grant", &domain, "400", "8"],
    ];
    for attempt in attempts {
        let text = machine.driver_domain.check(&attempt, LIMIT)?;
        let refused = text.starts_with("mapped=0 refused=8 ");
        ensure!(refused, "{}: {text}", attempt.join(" "));
    }
    denied_by_flask(machine).context("Xen has refused, but not by its policy")
}

/// Xen's policy says no to the right itself: what was refused above does not hang on whether the page was there.
fn denied_by_flask(machine: &Machine) -> Result<()> {
    let mark = machine.console.mark();
    machine.driver_domain.check(&["agent", "map-foreign", &GUEST_A.to_string(), FIRST_PAGE, "1"], LIMIT)?;
    let denial = machine.console.wait(mark, LIMIT, |line| {
        (line.text.contains("avc:  denied") && line.text.contains("map_")).then(|| line.text.clone())
    })?;
    denial.map(drop).context("no denial on Xen's console")
}
