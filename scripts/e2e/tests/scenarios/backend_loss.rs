// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A backend that dies or hangs costs what it had in hand, and nothing else: no driver is bound again in any
//! of these.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::host::board::Hardware;
use e2e::host::channel::Background;
use e2e::host::machine::Machine;
use e2e::host::process::wait_until;
use serde_json::{Value, json};

use crate::i2c::is_about;
use crate::rebind::{devices, tell};
use crate::{LIMIT, gpio, i2c};

/// As `ps` shows them in the driver domain.
const I2C_OF_GUEST_A: &str = "guest-a/i2c0:";
const GPIO_OF_GUEST_A: &str = "guest-a/gpio:";
const EEPROM: u16 = 0x50;
/// The program that is a backend, and where it cannot be found.
const PROGRAM: &str = "/usr/bin/backend";
const AWAY: &str = "/usr/bin/backend.away";
/// Status of a device that was in use, with DEVICE_NEEDS_RESET.
pub(crate) const NEEDS_RESET: &str = "0x0000004f";
/// After so long a guest must know what has become of a transfer: two seconds of standstill, five for an
/// answer, five for another backend, and time for an emulated machine.
const BOUND: Duration = Duration::from_secs(30);
/// How often backends are killed one after the other.
const TIMES: usize = 10;

/// The process whose command line begins with `title`, if there is exactly one.
fn find(machine: &Machine, title: &str) -> Result<Option<String>> {
    let script = format!("grep -l '^{title}' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3");
    let found = machine.driver_domain.check(&["sh", "-c", &script], LIMIT)?;
    let mut lines = found.lines();
    Ok(lines.next().filter(|_| lines.next().is_none()).map(str::to_owned))
}

fn signal(machine: &Machine, signal: &str, pid: &str) -> Result<()> {
    machine.driver_domain.check(&["sh", "-c", &format!("kill -{signal} {pid}")], LIMIT).map(drop)
}

/// Waits until another process than `former` serves, which is when it has mapped the rings of its guest.
/// (What processes print is not looked for: the console moves to the domain that is asked, and Xen may break
/// a line that is on its way.)
fn wait_for_another(machine: &Machine, title: &str, former: &str) -> Result<String> {
    wait_until("another backend goes on", BOUND, || {
        let Some(pid) = find(machine, title)?.filter(|pid| pid != former) else { return Ok(None) };
        let count = format!("grep -c /dev/xen/gntdev /proc/{pid}/maps; true");
        let mapped = machine.driver_domain.check(&["sh", "-c", &count], LIMIT)?;
        Ok(mapped.trim().parse::<usize>().is_ok_and(|rings| rings > 0).then_some(pid))
    })
}

/// The writes of `bytes` that the EEPROM has seen since `mark`.
fn writes(bus: &Hardware, mark: usize, bytes: &str) -> Result<usize> {
    let wrote = |entry: &Value| entry.get("messages") == Some(&json!([{"address": EEPROM, "write": bytes}]));
    Ok(bus.since(mark)?.iter().filter(|entry| is_about(entry, EEPROM) && wrote(entry)).count())
}

/// guest-b works all the time, and counts its errors.
fn guest_b_at_work(machine: &Machine) -> Result<Background<'_>> {
    machine.guest_b.start(&["agent", "i2c-stress", "0", "0x68", "0x10", "4", "100"])
}

fn saw_no_error(work: &Background<'_>) -> Result<()> {
    let output = work.look_until(Duration::from_secs(240), |_| false)?;
    let text = output.text();
    ensure!(text.contains("errors=0 differences=0"), "guest-b: {text} {}", output.error_text());
    Ok(())
}

/// Stops the backend, has guest-a write `byte`, and lets `end` happen to the backend: the write is carried
/// out by the next one, once, and all that comes later works.
fn write_to_a_stopped_backend(
    machine: &Machine,
    byte: &str,
    end: impl Fn(&Machine, &str) -> Result<()>,
) -> Result<()> {
    let others = guest_b_at_work(machine)?;
    let pid = find(machine, I2C_OF_GUEST_A)?.context("guest-a has no I2C backend")?;
    let mark = machine.i2c.mark()?;
    signal(machine, "STOP", &pid)?;
    let write = machine.guest_a.start(&["agent", "i2c", "0", &format!("w0x50:20{byte}")])?;
    end(machine, &pid)?;
    let output = write.look_until(BOUND, |_| false)?;
    ensure!(output.succeeded(), "{:?}: {}", output.end, output.error_text());
    wait_for_another(machine, I2C_OF_GUEST_A, &pid)?;
    i2c::guest_a_sees_temperature_change(machine)?;
    saw_no_error(&others)?;
    // This one wants the bus for itself.
    i2c::guest_a_writes_eeprom_page(machine)?;
    let seen = writes(&machine.i2c, mark, &format!("20{byte}"))?;
    ensure!(seen == 1, "the write was on the bus {seen} times");
    Ok(())
}

pub(crate) fn killed_with_a_request(machine: &Machine) -> Result<()> {
    write_to_a_stopped_backend(machine, "a1", |machine, pid| signal(machine, "KILL", pid))
}

/// The write is on the bus, and the adapter has not completed it, when the backend gets a signal: it is
/// unknown whether it was carried out. The guest gets an error, and the next backend does not write it again.
fn lost_in_the_middle_of_a_transfer(machine: &Machine, bytes: &str, fate: &str) -> Result<()> {
    let others = guest_b_at_work(machine)?;
    let pid = find(machine, I2C_OF_GUEST_A)?.context("guest-a has no I2C backend")?;
    let mark = machine.i2c.mark()?;
    machine
        .i2c
        .control(&json!({ "inject": { "address": EEPROM, "fault": { "late-ms": 3000 }, "count": 1 } }))?;
    let write = machine.guest_a.start(&["agent", "i2c", "0", &format!("w0x50:{bytes}")])?;
    wait_until("the write is on the bus", LIMIT, || {
        Ok((writes(&machine.i2c, mark, bytes)? == 1).then_some(()))
    })?;
    signal(machine, fate, &pid)?;
    let output = write.look_until(BOUND, |_| false)?;
    ensure!(!output.succeeded(), "the write is said to have been carried out: {}", output.text());
    wait_for_another(machine, I2C_OF_GUEST_A, &pid)?;
    i2c::guest_a_sees_temperature_change(machine)?;
    saw_no_error(&others)?;
    i2c::guest_a_writes_eeprom_page(machine)?;
    let seen = writes(&machine.i2c, mark, bytes)?;
    ensure!(seen == 1, "the write was on the bus {seen} times");
    Ok(())
}

pub(crate) fn killed_in_the_middle_of_a_transfer(machine: &Machine) -> Result<()> {
    lost_in_the_middle_of_a_transfer(machine, "20a3", "KILL")
}

/// Only the shim ends the backend, and the transfer is over by then; the backend has not answered it.
pub(crate) fn hangs_in_the_middle_of_a_transfer(machine: &Machine) -> Result<()> {
    lost_in_the_middle_of_a_transfer(machine, "20a4", "STOP")
}

/// There is no backend any more, and no other can be started. (Of an I2C device Linux's driver would wait for
/// ever.)
pub(crate) fn none_comes_back(machine: &Machine) -> Result<()> {
    let mut chips = devices(&machine.guest_a)?;
    chips.retain(|(driver, _)| driver.contains("gpio"));
    let [(_, device)] = chips.as_slice() else { bail!("guest-a has the GPIO devices {chips:?}") };
    let busybox = |command: &str| {
        machine
            .driver_domain
            .check(&["/bin/busybox", "sh", "-c", &format!("{command} {PROGRAM} {AWAY}")], LIMIT)
    };
    let others = guest_b_at_work(machine)?;
    let pid = find(machine, GPIO_OF_GUEST_A)?.context("guest-a has no GPIO backend")?;
    busybox("mv")?;
    let gone = signal(machine, "KILL", &pid).and_then(|()| {
        let status = format!("cat /sys/bus/virtio/devices/{device}/status");
        wait_until("the device needs a reset", BOUND, || {
            let status = machine.guest_a.check(&["sh", "-c", &status], LIMIT)?;
            Ok((status.trim() == NEEDS_RESET).then_some(()))
        })
    });
    // Whatever became of it: the others want to be served.
    busybox("f() { mv $2 $1; }; f")?;
    gone?;
    tell(&machine.guest_a, &chips, "unbind")?;
    wait_until("another backend", BOUND, || find(machine, GPIO_OF_GUEST_A))?;
    tell(&machine.guest_a, &chips, "bind")?;
    saw_no_error(&others)?;
    gpio::guest_a_drives_a_line(machine)?;
    gpio::an_edge_arrives(machine)
}

pub(crate) fn hangs(machine: &Machine) -> Result<()> {
    // Only the shim ends this one.
    write_to_a_stopped_backend(machine, "a2", |_, _| Ok(()))
}

pub(crate) fn gpio_backend_killed(machine: &Machine) -> Result<()> {
    let others = guest_b_at_work(machine)?;
    let pid = find(machine, GPIO_OF_GUEST_A)?.context("guest-a has no GPIO backend")?;
    // The event buffers of this wait are with the backend when it dies.
    gpio::expect_edges_after(machine, |machine| {
        signal(machine, "KILL", &pid)?;
        wait_for_another(machine, GPIO_OF_GUEST_A, &pid).map(drop)
    })?;
    gpio::guest_a_drives_a_line(machine)?;
    gpio::an_edge_arrives(machine)?;
    saw_no_error(&others)
}

pub(crate) fn killed_again_and_again(machine: &Machine) -> Result<()> {
    for _ in 0..TIMES {
        let pid = find(machine, I2C_OF_GUEST_A)?.context("guest-a has no I2C backend")?;
        signal(machine, "KILL", &pid)?;
        // Not even this one, which may come before the next backend, fails.
        i2c::guest_a_reads_temperature(machine)?;
        wait_for_another(machine, I2C_OF_GUEST_A, &pid)?;
    }
    Ok(())
}
