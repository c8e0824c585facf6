// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Outputs without a driver or a backend: they go to their safe value when their driver is unbound, and keep
//! their level when their backend ends.

use anyhow::{Context, Result, ensure};
use e2e::host::channel::{Background, Channel};
use e2e::host::machine::Machine;
use serde_json::Value;

use crate::LIMIT;
use crate::rebind::{devices, tell};

const CHIP: &str = "gpiochip0";
/// The line 0 of guest-a and of the board, with `safe = 0` in the manifest.
pub(crate) const LED: u32 = 0;
/// The line 0 of guest-b and line 2 of the board, with `safe = "stay"`.
pub(crate) const RELAY: u32 = 2;

/// Starts a program that drives the guest's first line until it is dropped.
pub(crate) fn hold(guest: &Channel, value: u64) -> Result<Background<'_>> {
    let held = guest.start(&["agent", "gpio-hold", CHIP, "0", &value.to_string()])?;
    held.look_until(LIMIT, |output| output.text() == "held")?;
    Ok(held)
}

/// Checks that the driver domain drives `value` on a line of the board.
pub(crate) fn expect(machine: &Machine, line: u32, value: u64, when: &str) -> Result<()> {
    let seen = machine.gpio.line(line)?;
    ensure!(seen == ("output".to_owned(), value), "{when}, the board has {seen:?} on line {line}");
    Ok(())
}

/// Returns the journal entries about a line of the board since `mark`.
pub(crate) fn events(machine: &Machine, line: u32, mark: usize) -> Result<Vec<Value>> {
    let mut entries = machine.gpio.since(mark)?;
    entries.retain(|entry| entry.get("line").and_then(Value::as_u64) == Some(line.into()));
    Ok(entries)
}

/// Unbinds the driver of the guest's GPIO device, calls `check`, and binds the driver again. The program that
/// holds a line ends before that: otherwise the chip would get another number.
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

pub(crate) fn unbound_driver_leaves_outputs_safe(machine: &Machine) -> Result<()> {
    let held = hold(&machine.guest_a, 1)?;
    expect(machine, LED, 1, "while guest-a drives 1")?;
    without_driver(&machine.guest_a, held, || expect(machine, LED, 0, "after its driver was unbound"))?;
    let _held = hold(&machine.guest_a, 1).context("the driver is bound again")?;
    expect(machine, LED, 1, "when guest-a drives it again")
}

pub(crate) fn output_with_safe_stay_keeps_its_level(machine: &Machine) -> Result<()> {
    let held = hold(&machine.guest_b, 1)?;
    let mark = machine.gpio.mark()?;
    without_driver(&machine.guest_b, held, || expect(machine, RELAY, 1, "after its driver was unbound"))?;
    expect(machine, RELAY, 1, "after its driver was bound again")?;
    let events = events(machine, RELAY, mark)?;
    ensure!(events.is_empty(), "the relay has changed: {events:?}");
    let _held = hold(&machine.guest_b, 0)?;
    expect(machine, RELAY, 0, "when guest-b drives it again")
}

/// Kills the backend of an output: the line does not change, though its controller turns off a line that is
/// released.
pub(crate) fn output_outlives_its_backend(machine: &Machine) -> Result<()> {
    let held = hold(&machine.guest_a, 1)?;
    let mark = machine.gpio.mark()?;
    let backend = "grep -l '^guest-a/gpio:' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3";
    let kill = format!("kill -KILL $({backend})");
    machine.driver_domain.check(&["sh", "-c", &kill], LIMIT)?;
    // This request waits in the ring for the next backend, which has requested all lines before it answers.
    machine.guest_a.check(&["agent", "gpio-get", CHIP, "1"], LIMIT)?;
    expect(machine, LED, 1, "after another backend serves guest-a")?;
    let events = events(machine, LED, mark)?;
    ensure!(events.is_empty(), "the led has changed: {events:?}");
    drop(held);
    for value in [0, 1] {
        let _held = hold(&machine.guest_a, value)?;
        expect(machine, LED, value, "when guest-a drives it again")?;
    }
    Ok(())
}
