// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! GPIO: the board gets what a guest drives, and the guest gets levels and edges of the board.

use anyhow::{Result, ensure};
use e2e::host::PATIENCE;
use e2e::host::channel::Channel;
use e2e::host::machine::Machine;
use e2e::host::process::wait_until;

use crate::LIMIT;

const CHIP: &str = "gpiochip0";
/// Lines with the same number in guest-a and on the board's chip.
const LED: u32 = 0;
const BUTTON: u32 = 1;
/// A line with `drive = "open-drain"` in the manifest: its number in guest-b and on the board's chip.
const WAKE: (&str, u32) = ("4", 6);
/// A line with `debounce-us = 500_000` in the manifest: its number in guest-b and on the board's chip.
const CONTACT: (&str, u32) = ("5", 7);
/// The third line of guest-a, which is on another chip.
const POWER: &str = "2";

pub(crate) fn guest_a_drives_a_line(machine: &Machine) -> Result<()> {
    for value in [1, 0, 1] {
        let held =
            machine.guest_a.start(&["agent", "gpio-hold", CHIP, &LED.to_string(), &value.to_string()])?;
        held.look_until(LIMIT, |output| output.text() == "held")?;
        let expected = ("output".to_owned(), value);
        let seen = machine.gpio.line(LED)?;
        ensure!(seen == expected, "guest-a drives {value}, the board has {seen:?}");
    }
    Ok(())
}

/// Has a program in the guest wait for `edges`, calls `cause` for each, and checks that the program gets it.
fn expect_edges(
    guest: &Channel,
    line: &str,
    edges: &[&str],
    mut cause: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let watch = guest.start(&["agent", "gpio-watch", CHIP, line, "both", &edges.len().to_string()])?;
    let mut expected = "watching".to_owned();
    watch.look_until(LIMIT, |output| output.text() == expected)?;
    for (place, edge) in edges.iter().enumerate() {
        cause(place)?;
        expected = format!("{expected}\n{edge}");
        let output = watch.look_until(LIMIT, |output| output.text().len() >= expected.len())?;
        ensure!(output.text() == expected, "the guest got {:?}, not {expected:?}", output.text());
    }
    Ok(())
}

pub(crate) fn an_edge_arrives(machine: &Machine) -> Result<()> {
    machine.gpio.drive(BUTTON, 0)?;
    let edges = ["rising", "falling", "rising", "falling"];
    expect_edges(&machine.guest_a, &BUTTON.to_string(), &edges, |place| {
        machine.gpio.drive(BUTTON, u8::from(place % 2 == 0))
    })?;
    let value = machine.guest_a.check(&["agent", "gpio-get", CHIP, &BUTTON.to_string()], LIMIT)?;
    ensure!(value == "0", "guest-a reads {value} from a line that is low");
    machine.gpio.release(BUTTON)
}

/// Checks that a rising and a falling edge arrive in guest-a, if `event` happens while the guest waits for
/// them.
pub(crate) fn expect_edges_after(machine: &Machine, event: impl Fn(&Machine) -> Result<()>) -> Result<()> {
    expect_two_edges(machine, |place| if place == 0 { event(machine) } else { Ok(()) })
}

/// Checks that a rising and a falling edge arrive in guest-a, with a call of `before` before each.
pub(crate) fn expect_two_edges(machine: &Machine, mut before: impl FnMut(usize) -> Result<()>) -> Result<()> {
    machine.gpio.drive(BUTTON, 0)?;
    expect_edges(&machine.guest_a, &BUTTON.to_string(), &["rising", "falling"], |place| {
        before(place)?;
        machine.gpio.drive(BUTTON, u8::from(place == 0))
    })?;
    machine.gpio.release(BUTTON)
}

pub(crate) fn the_power_button_arrives(machine: &Machine) -> Result<()> {
    let pressed = |_| machine.press_power_button();
    // QEMU releases the button after 100 ms.
    expect_edges(&machine.guest_a, POWER, &["rising"], pressed)?;
    wait_until("the button is released", PATIENCE, || {
        let value = machine.guest_a.check(&["agent", "gpio-get", CHIP, POWER], LIMIT)?;
        Ok((value == "0").then_some(()))
    })
}

/// Checks that the guest's value 1 leaves the line to others, and that its value 0 drives it low.
pub(crate) fn an_open_drain_is_not_driven_high(machine: &Machine) -> Result<()> {
    let (line, wire) = WAKE;
    for value in ["1", "0", "1"] {
        let held = machine.guest_b.start(&["agent", "gpio-hold", CHIP, line, value])?;
        held.look_until(LIMIT, |output| output.text() == "held")?;
        let (direction, level) = machine.gpio.line(wire)?;
        let is_driven = direction == "output";
        ensure!(is_driven == (value == "0"), "the guest sets {value}, and the board has an {direction}");
        if is_driven {
            ensure!(level == 0, "the guest sets 0, and the board has {level}");
            continue;
        }
        machine.gpio.drive(wire, 1)?;
        let seen = machine.gpio.line(wire)?.1;
        machine.gpio.release(wire)?;
        ensure!(seen == 1, "the board drives 1, but the line is {seen}");
    }
    Ok(())
}

/// Lets a contact bounce faster than its debounce period: the guest gets one edge.
pub(crate) fn a_bouncing_contact_is_one_edge(machine: &Machine) -> Result<()> {
    let (line, wire) = CONTACT;
    machine.gpio.drive(wire, 0)?;
    expect_edges(&machine.guest_b, line, &["rising", "falling"], |place| {
        let level = u8::from(place == 0);
        for bounce in [level, 1 - level, level, 1 - level, level] {
            machine.gpio.drive(wire, bounce)?;
        }
        Ok(())
    })?;
    machine.gpio.release(wire)
}
