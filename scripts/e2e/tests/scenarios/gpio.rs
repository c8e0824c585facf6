// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! GPIO: what a guest drives is seen on the board, what happens on the board is seen by the guest.

use anyhow::{Result, ensure};
use e2e::host::PATIENCE;
use e2e::host::channel::Channel;
use e2e::host::machine::Machine;
use e2e::host::process::wait_until;

use crate::LIMIT;

const CHIP: &str = "gpiochip0";
/// Lines of guest-a, and of the board's chip.
const LED: u32 = 0;
const BUTTON: u32 = 1;
/// `drive = "open-drain"` in the manifest: a line of guest-b, and of the board's chip.
const WAKE: (&str, u32) = ("4", 6);
/// `debounce-us = 500_000` in the manifest: a line of guest-b, and of the board's chip.
const CONTACT: (&str, u32) = ("5", 7);
/// A line of guest-a only: the third, on another chip.
const POWER: &str = "2";

pub(crate) fn guest_a_drives_a_line(machine: &Machine) -> Result<()> {
    for value in [1, 0, 1] {
        let held =
            machine.guest_a.start(&["agent", "gpio-hold", CHIP, &LED.to_string(), &value.to_string()])?;
        held.look_until(LIMIT, |output| output.text() == "held")?;
        let expected = ("output".to_owned(), value);
        let seen = machine.gpio.line(LED)?;
        ensure!(seen == expected, "guest-a drives {value}, the board sees {seen:?}");
    }
    Ok(())
}

/// Waits until `cause` has been seen by a program in the guest that waits for it.
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
        ensure!(output.text() == expected, "the guest has seen {:?}, not {expected:?}", output.text());
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

/// As [`an_edge_arrives`], but something else happens while the guest waits.
pub(crate) fn expect_edges_after(machine: &Machine, event: impl Fn(&Machine) -> Result<()>) -> Result<()> {
    expect_two_edges(machine, |place| if place == 0 { event(machine) } else { Ok(()) })
}

/// As [`an_edge_arrives`], but something else happens before each of two edges.
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
    // QEMU lets the button go 100 ms later.
    expect_edges(&machine.guest_a, POWER, &["rising"], pressed)?;
    wait_until("the button is let go", PATIENCE, || {
        let value = machine.guest_a.check(&["agent", "gpio-get", CHIP, POWER], LIMIT)?;
        Ok((value == "0").then_some(()))
    })
}

/// At high, others pull the line; the guest reads what they make of it.
pub(crate) fn an_open_drain_is_not_driven_high(machine: &Machine) -> Result<()> {
    let (line, wire) = WAKE;
    for value in ["1", "0", "1"] {
        let held = machine.guest_b.start(&["agent", "gpio-hold", CHIP, line, value])?;
        held.look_until(LIMIT, |output| output.text() == "held")?;
        let (direction, level) = machine.gpio.line(wire)?;
        let is_driven = direction == "output";
        ensure!(is_driven == (value == "0"), "the guest sets {value}, and the board sees an {direction}");
        if is_driven {
            ensure!(level == 0, "the guest sets 0, and the board sees {level}");
            continue;
        }
        machine.gpio.drive(wire, 1)?;
        let seen = machine.gpio.line(wire)?.1;
        machine.gpio.release(wire)?;
        ensure!(seen == 1, "the board pulls the line up, and it is {seen}");
    }
    Ok(())
}

/// The contact bounces much faster than the period, and then keeps its level.
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
