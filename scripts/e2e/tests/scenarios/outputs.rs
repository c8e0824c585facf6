// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Outputs without a driver or a backend: they become safe when their driver goes, and keep their level when
//! their backend ends.

use anyhow::{Context, Result, ensure};
use e2e::host::channel::{Background, Channel};
use e2e::host::machine::Machine;
use serde_json::Value;

use crate::LIMIT;
use crate::rebind::{devices, tell};

const CHIP: &str = "gpiochip0";
/// Line 0 of guest-a, and of the board: `safe = 0` in the manifest.
pub(crate) const LED: u32 = 0;
/// Line 0 of guest-b, and line 2 of the board: `safe = "stay"`.
pub(crate) const RELAY: u32 = 2;

/// Drives the guest's first line from a program that keeps it.
pub(crate) fn hold(guest: &Channel, value: u64) -> Result<Background<'_>> {
    let held = guest.start(&["agent", "gpio-hold", CHIP, "0", &value.to_string()])?;
    held.look_until(LIMIT, |output| output.text() == "held")?;
    Ok(held)
}

pub(crate) fn expect(machine: &Machine, line: u32, value: u64, when: &str) -> Result<()> {
    let seen = machine.gpio.line(line)?;
    ensure!(seen == ("output".to_owned(), value), "{when}, the board sees {seen:?} on line {line}");
    Ok(())
}

/// What has happened to a line of the board.
pub(crate) fn events(machine: &Machine, line: u32, mark: usize) -> Result<Vec<Value>> {
    let mut entries = machine.gpio.since(mark)?;
    entries.retain(|entry| entry.get("line").and_then(Value::as_u64) == Some(line.into()));
    Ok(entries)
}

/// Takes the driver away from the guest's GPIO device, has `check` look, and brings the driver back. Who
/// holds a line ends before that: else the chip would come back under another number.
fn without_driver(guest: &Channel, held: Background<'_>, check: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut gpio = devices(guest)?;
    gpio.retain(|(driver, _)| driver.contains("gpio"));
    ensure!(gpio.len() == 1, "the guest has the GPIO devices {gpio:?}");
    tell(guest, &gpio, "unbind")?;
    let checked = check();
    drop(held);
    tell(guest, &gpio, "bind")?;
    checked
}

pub(crate) fn a_driver_that_goes_leaves_a_line_safe(machine: &Machine) -> Result<()> {
    let held = hold(&machine.guest_a, 1)?;
    expect(machine, LED, 1, "while guest-a drives 1")?;
    without_driver(&machine.guest_a, held, || expect(machine, LED, 0, "when its driver is gone"))?;
    let _held = hold(&machine.guest_a, 1).context("the driver is back")?;
    expect(machine, LED, 1, "when guest-a drives it again")
}

pub(crate) fn a_line_that_shall_stay_stays(machine: &Machine) -> Result<()> {
    let held = hold(&machine.guest_b, 1)?;
    let mark = machine.gpio.mark()?;
    without_driver(&machine.guest_b, held, || expect(machine, RELAY, 1, "when its driver is gone"))?;
    expect(machine, RELAY, 1, "when it is back")?;
    let events = events(machine, RELAY, mark)?;
    ensure!(events.is_empty(), "the relay should have stayed as it was: {events:?}");
    let _held = hold(&machine.guest_b, 0)?;
    expect(machine, RELAY, 0, "when guest-b drives it again")
}

/// The board sees nothing of it, though its controller turns a line off that is let go.
pub(crate) fn an_output_outlives_its_daemon(machine: &Machine) -> Result<()> {
    let held = hold(&machine.guest_a, 1)?;
    let mark = machine.gpio.mark()?;
    let daemon = "grep -l '^guest-a/gpio:' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3";
    let kill = format!("kill -KILL $({daemon})");
    machine.driver_domain.check(&["sh", "-c", &kill], LIMIT)?;
    // Waits in the ring for the next daemon, which has taken up all lines before it answers.
    machine.guest_a.check(&["agent", "gpio-get", CHIP, "1"], LIMIT)?;
    expect(machine, LED, 1, "when another daemon serves guest-a")?;
    let events = events(machine, LED, mark)?;
    ensure!(events.is_empty(), "the led should have stayed as it was: {events:?}");
    drop(held);
    for value in [0, 1] {
        let _held = hold(&machine.guest_a, value)?;
        expect(machine, LED, value, "when guest-a goes on")?;
    }
    Ok(())
}
