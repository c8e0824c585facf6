// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest does with its devices, and what the simulated board sees of it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::machine::{Board, Machine};

const SENSOR: u16 = 0x48;
/// Lines of the board (board.toml).
const LED: u32 = 0;
const BUTTON: u32 = 1;
const LOOP: [u32; 2] = [4, 5];

/// Binds Linux's drivers for the targets of the bus, and uses both devices in all ways.
pub(crate) fn check_all(machine: &mut Machine, board: &Board) -> Result<()> {
    machine.wait_for_guest()?;
    machine.check("echo lm75 0x48 >/sys/bus/i2c/devices/i2c-0/new_device", "")?;
    machine.check("echo 24c02 0x50 >/sys/bus/i2c/devices/i2c-0/new_device", "")?;
    board.i2c()?.set_temperature(SENSOR, -12.5)?;
    machine.check("cat /sys/class/hwmon/hwmon0/temp1_input", "-12500")?;
    machine.check("echo -n hello >/sys/bus/i2c/devices/0-0050/eeprom", "")?;
    machine.check("agent i2c 0 w0x50:00 r0x50:5", "68656c6c6f")?;
    let written = |entry: &Value| entry.to_string().contains("0068") || entry.to_string().contains("6f");
    ensure!(board.i2c()?.journal()?.iter().any(written), "the EEPROM was not written on the bus");
    check_requests(machine, board)
}

/// Uses both devices, without what the drivers remember of the targets.
pub(crate) fn check_requests(machine: &mut Machine, board: &Board) -> Result<()> {
    board.i2c()?.set_temperature(SENSOR, 40.0)?;
    machine.check("agent i2c 0 w0x48:00 r0x48:2", "2800")?;
    machine.check("agent i2c 0 r0x33:1 2>/dev/null || echo refused", "refused")?;
    let stress = machine.run("agent i2c-stress 0 0x50 16 8 50")?;
    ensure!(stress.starts_with("transfers=100 errors=0 differences=0 "), "{stress}");
    let chip = machine.gpio_chip()?;
    check_output(machine, board, &chip)?;
    let [from, to] = LOOP;
    let stress = machine.run(&format!("agent gpio-stress {chip} {from} {to} 50"))?;
    ensure!(stress.starts_with("transfers=100 errors=0 differences=0 "), "{stress}");
    check_edges(machine, board, &chip)
}

fn check_output(machine: &mut Machine, board: &Board, chip: &str) -> Result<()> {
    for value in [1, 0, 1] {
        machine.send(&format!("agent gpio-hold {chip} {LED} {value} & read -r go; kill $!; wait"))?;
        machine.expect_line("held")?;
        let seen = board.gpio()?.line(LED)?;
        machine.send("go")?;
        machine.expect_end()?;
        ensure!(seen == ("output".to_owned(), value), "the guest drives {value}, the board sees {seen:?}");
    }
    Ok(())
}

/// Edges from outside are interrupts in the guest.
fn check_edges(machine: &mut Machine, board: &Board, chip: &str) -> Result<()> {
    board.gpio()?.drive(BUTTON, 0)?;
    machine.send(&format!("agent gpio-watch {chip} {BUTTON} both 4"))?;
    machine.expect_line("watching")?;
    for (value, edge) in [(1, "rising"), (0, "falling"), (1, "rising"), (0, "falling")] {
        board.gpio()?.drive(BUTTON, value)?;
        machine.expect_line(edge).with_context(|| format!("the line is driven to {value}"))?;
    }
    machine.expect_end()?;
    machine.check(&format!("agent gpio-get {chip} {BUTTON}"), "0")
}

/// When QEMU has ended, no driver holds a line.
pub(crate) fn check_released(board: &Board) -> Result<()> {
    let (direction, _) = board.gpio()?.line(LED)?;
    ensure!(direction != "output", "a line is driven though no guest is there");
    Ok(())
}
