// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! I2C with the drivers and tools of Linux: kernel drivers on the virtio adapter, and i2ctransfer.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::host::board::Hardware;
use e2e::host::machine::Machine;
use serde_json::{Value, json};

use crate::LIMIT;

const SENSOR: u16 = 0x48;
const CLOCK: u16 = 0x68;
const TEMPERATURE: &str = "/sys/class/hwmon/hwmon0/temp1_input";
const EEPROM: &str = "/sys/bus/i2c/devices/0-0050/eeprom";

/// Checks that exactly these transfers were on the bus since `mark`, and that all succeeded.
pub(crate) fn expect_journal(bus: &Hardware, mark: usize, expected: &[Value]) -> Result<()> {
    let entries = bus.since(mark)?;
    let seen: Vec<&Value> = entries.iter().filter_map(|entry| entry.get("messages")).collect();
    ensure!(
        seen.iter().copied().eq(expected) && entries.iter().all(succeeded),
        "the journal should have {}, it has {}",
        json!(expected),
        json!(entries)
    );
    Ok(())
}

/// Returns whether the transfer of a journal entry succeeded.
pub(crate) fn succeeded(entry: &Value) -> bool {
    entry.get("result").and_then(Value::as_str) == Some("ok")
}

/// Returns whether a journal entry has a message to this address.
pub(crate) fn is_about(entry: &Value, address: u16) -> bool {
    let messages = entry.get("messages").and_then(Value::as_array);
    messages.is_some_and(|messages| {
        messages.iter().any(|message| message.get("address").and_then(Value::as_u64) == Some(address.into()))
    })
}

pub(crate) fn guest_a_reads_temperature(machine: &Machine) -> Result<()> {
    let reading = json!([{"address": SENSOR, "write": "00"}, {"address": SENSOR, "read": "1780"}]);
    let mark = machine.i2c.mark()?;
    let celsius = machine.guest_a.check(&["cat", TEMPERATURE], LIMIT)?;
    ensure!(celsius == "23500", "the hwmon driver reads {celsius}");
    expect_journal(&machine.i2c, mark, std::slice::from_ref(&reading))?;

    let mark = machine.i2c.mark()?;
    let tool = machine.guest_a.check(&["i2ctransfer", "-y", "-f", "0", "w1@0x48", "0", "r2"], LIMIT)?;
    ensure!(tool == "0x17 0x80", "i2ctransfer reads {tool}");
    expect_journal(&machine.i2c, mark, &[reading])
}

pub(crate) fn guest_a_sees_temperature_change(machine: &Machine) -> Result<()> {
    for (celsius, expected) in [(-7.5, "-7500"), (31.0, "31000"), (23.5, "23500")] {
        machine.i2c.set_temperature(SENSOR, celsius)?;
        let seen = machine.guest_a.check(&["cat", TEMPERATURE], LIMIT)?;
        ensure!(seen == expected, "at {celsius} degrees the hwmon driver reads {seen}");
    }
    Ok(())
}

pub(crate) fn guest_a_writes_eeprom_page(machine: &Machine) -> Result<()> {
    let mark = machine.i2c.mark()?;
    let write = format!("printf page-two | dd of={EEPROM} bs=8 seek=2 conv=notrunc 2>/dev/null");
    machine.guest_a.check(&["sh", "-c", &write], LIMIT)?;
    // Register pointer 0x10, then the eight bytes.
    let written = json!([{"address": 80, "write": "10706167652d74776f"}]);
    expect_journal(&machine.i2c, mark, &[written])?;

    let mark = machine.i2c.mark()?;
    let read = format!("dd if={EEPROM} bs=8 skip=2 count=1 2>/dev/null");
    let page = machine.guest_a.check(&["sh", "-c", &read], LIMIT)?;
    ensure!(page == "page-two", "read back {page:?}");
    let reading = json!([{"address": 80, "write": "10"}, {"address": 80, "read": "706167652d74776f"}]);
    expect_journal(&machine.i2c, mark, &[reading])
}

pub(crate) fn guest_b_reads_clock(machine: &Machine) -> Result<()> {
    let mark = machine.i2c.mark()?;
    let seconds = machine.guest_b.check(&["cat", "/sys/class/rtc/rtc0/since_epoch"], LIMIT)?;
    let seconds: u64 = seconds.parse().with_context(|| format!("the clock has {seconds:?}"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    ensure!(now.abs_diff(seconds) < 120, "the clock has {seconds}, the host {now}");
    let entries = machine.i2c.since(mark)?;
    ensure!(!entries.is_empty(), "no transaction reached the clock on the board");
    ensure!(entries.iter().all(|entry| is_about(entry, CLOCK) && succeeded(entry)), "{}", json!(entries));
    Ok(())
}
