// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The steps of the demo. A step that fails is reported, and the others follow.

use std::io::{Write, stdout};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::PATIENCE;
use e2e::host::console::Party;
use e2e::host::machine::{DRIVER_DOMAIN, Machine};
use e2e::host::process::wait_until;
use e2e::request::End;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const SENSOR: u16 = 0x48;
const TEMPERATURE: &str = "/sys/class/hwmon/hwmon0/temp1_input";
const EEPROM: &str = "/sys/bus/i2c/devices/0-0050/eeprom";
const LED: u32 = 0;
const BLINKS: usize = 4;

/// A step: its title, and the function that performs it and returns its result for the user.
type Step = (&'static str, fn(&Machine) -> Result<String>);

const STEPS: &[Step] = &[
    ("guest-a reads the temperature sensor (hwmon driver lm75)", temperature),
    ("the board gets warmer, guest-a reads again", warmer),
    ("guest-a writes a page of its EEPROM and reads it back (driver at24)", eeprom),
    ("guest-b reads the clock on the same bus (driver ds1307)", clock),
    ("guest-b tries to reach guest-a's sensor", forbidden),
    ("guest-a blinks its line `led`; the levels on the board:", blink),
    ("the power button is pressed, guest-a gets the event", power_button),
];

/// Boots, performs all steps, and returns whether all of them worked.
pub(crate) fn run(machine: &Machine) -> Result<bool> {
    report(machine, "QEMU starts Xen");
    boot(machine).inspect_err(|_| eprintln!("\nThe console's log is in {}", machine.directory.display()))?;
    println!();
    let mut worked = 0;
    for (place, (what, step)) in STEPS.iter().enumerate() {
        report(machine, &format!("{}. {what}", place + 1));
        match step(machine) {
            Ok(seen) => {
                worked += 1;
                println!("            {seen}   ✓");
            }
            Err(error) => println!("            FAILED: {error:#}"),
        }
        if place == 0 {
            println!(
                "            (the guests' first transfer: {:.0} s after the start)",
                machine.uptime().as_secs_f64()
            );
        }
    }
    println!("\n{worked} of {} steps worked.", STEPS.len());
    Ok(worked == STEPS.len())
}

/// Prints a line with the time since QEMU was started.
fn report(machine: &Machine, text: &str) {
    println!("  [{:5.1} s] {text}", machine.uptime().as_secs_f64());
    // An error here means that there is no terminal any more.
    let _ = stdout().flush();
}

fn boot(machine: &Machine) -> Result<()> {
    let alive = machine
        .console
        .wait(0, PATIENCE, |line| (line.from == Party::Domain(DRIVER_DOMAIN)).then_some(()))?;
    alive.with_context(|| format!("the driver domain has printed nothing within {PATIENCE:?}"))?;
    report(machine, "the driver domain starts; the guests are held until their devices answer");
    let mut mark = 0;
    for _ in 0..2 {
        let unpaused = |line: &e2e::host::console::Line| {
            let (before, _) = line.text.split_once(": unpaused")?;
            before.split_whitespace().next_back().map(str::to_owned)
        };
        let (guest, next) = machine
            .console
            .wait(mark, PATIENCE, unpaused)?
            .context("the shim has not unpaused both guests")?;
        mark = next;
        report(machine, &format!("{guest} may run: its devices answer"));
    }
    machine.wait_for_guests()?;
    report(machine, "both guests are up");
    Ok(())
}

/// Returns the messages on the bus since `mark`, as text.
fn bus_since(machine: &Machine, mark: usize) -> Result<String> {
    let entries = machine.i2c.since(mark)?;
    let text = |message: &Value| {
        let address = message.get("address").and_then(Value::as_u64).unwrap_or_default();
        let data = |key| message.get(key).and_then(Value::as_str);
        match (data("write"), data("read")) {
            (Some(bytes), _) => format!("write {address:#x} {bytes}"),
            (None, bytes) => format!("read {address:#x} {}", bytes.unwrap_or_default()),
        }
    };
    let messages = entries.iter().filter_map(|entry| entry.get("messages")?.as_array()).flatten();
    let texts: Vec<String> = messages.map(text).collect();
    Ok(if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") })
}

fn read_temperature(machine: &Machine) -> Result<f64> {
    let text = machine.guest_a.check(&["cat", TEMPERATURE], LIMIT)?;
    Ok(text.parse::<f64>()? / 1000.0)
}

fn temperature(machine: &Machine) -> Result<String> {
    let mark = machine.i2c.mark()?;
    let celsius = read_temperature(machine)?;
    ensure!((celsius - 23.5).abs() < 0.5, "{celsius} °C, the board has 23.5");
    Ok(format!("{celsius:.1} °C; on the bus: {}", bus_since(machine, mark)?))
}

fn warmer(machine: &Machine) -> Result<String> {
    machine.i2c.set_temperature(SENSOR, 31.0)?;
    let celsius = read_temperature(machine)?;
    ensure!((celsius - 31.0).abs() < 0.5, "{celsius} °C, the board has 31.0");
    Ok(format!("{celsius:.1} °C"))
}

fn eeprom(machine: &Machine) -> Result<String> {
    let mark = machine.i2c.mark()?;
    let command = format!(
        "printf 'hi there' | dd of={EEPROM} bs=8 seek=3 conv=notrunc 2>/dev/null && \
         dd if={EEPROM} bs=8 skip=3 count=1 2>/dev/null"
    );
    let text = machine.guest_a.check(&["sh", "-c", &command], LIMIT)?;
    ensure!(text == "hi there", "read back {text:?}");
    Ok(format!("\"{text}\"; on the bus: {}", bus_since(machine, mark)?))
}

fn clock(machine: &Machine) -> Result<String> {
    let rtc = "cd /sys/class/rtc/rtc0 && echo $(cat date) $(cat time)";
    Ok(format!("{} UTC", machine.guest_b.check(&["sh", "-c", rtc], LIMIT)?))
}

fn forbidden(machine: &Machine) -> Result<String> {
    let mark = machine.i2c.mark()?;
    let output = machine.guest_b.run(&["agent", "i2c", "0", "w0x48:00", "r0x48:2"], LIMIT)?;
    ensure!(output.end == End::Exited(1), "guest-b was not refused: {:?} {}", output.end, output.text());
    ensure!(machine.i2c.since(mark)?.is_empty(), "on the bus: {}", bus_since(machine, mark)?);
    Ok("refused by the driver domain; on the bus: nothing".to_owned())
}

fn blink(machine: &Machine) -> Result<String> {
    let mark = machine.gpio.mark()?;
    let blinks = BLINKS.to_string();
    let lamp =
        machine.guest_a.start(&["agent", "gpio-blink", "gpiochip0", &LED.to_string(), &blinks, "250"])?;
    print!("            ");
    let mut shown = 0;
    wait_until("the line changes on the board", LIMIT, || {
        let values = values(&machine.gpio.since(mark)?);
        for value in values.iter().skip(shown) {
            print!("{} ", if *value == 1 { "●" } else { "○" });
            stdout().flush()?;
        }
        shown = values.len();
        Ok((values.iter().filter(|value| **value == 1).count() >= BLINKS).then_some(()))
    })?;
    println!();
    lamp.look_until(LIMIT, |output| output.text() == "done")?;
    Ok(format!("{BLINKS} times on and off"))
}

/// Returns the values that the line `led` took, from the journal's entries.
fn values(entries: &[Value]) -> Vec<u64> {
    let of_led = |entry: &&Value| entry.get("line") == Some(&json!(LED));
    let value = |entry: &Value| entry.get("value").and_then(Value::as_u64);
    let mut values: Vec<u64> = entries.iter().filter(of_led).filter_map(value).collect();
    values.dedup();
    values
}

fn power_button(machine: &Machine) -> Result<String> {
    let watch = machine.guest_a.start(&["agent", "gpio-watch", "gpiochip0", "2", "rising", "1"])?;
    watch.look_until(LIMIT, |output| output.text() == "watching")?;
    machine.press_power_button()?;
    let output = watch.look_until(LIMIT, |output| output.text().contains("rising"))?;
    ensure!(output.text().contains("rising"), "the guest got {:?}", output.text());
    Ok("a rising edge on the line `power`".to_owned())
}
