// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A backend ends or hangs: at most the request that it was executing fails, and all other requests are
//! served. No driver is bound again, except where the device needs a reset.

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

/// The begin of the command lines of guest-a's backends.
const I2C_OF_GUEST_A: &str = "guest-a/i2c0:";
const GPIO_OF_GUEST_A: &str = "guest-a/gpio:";
const EEPROM: u16 = 0x50;
/// The program of the backends.
const PROGRAM: &str = "/usr/bin/backend";
/// The path to which it is moved, so that no backend can be started.
const AWAY: &str = "/usr/bin/backend.away";
/// The status of a device in use, with DEVICE_NEEDS_RESET.
pub(crate) const NEEDS_RESET: &str = "0x0000004f";
/// The limit for a transfer to end: 2 s without progress, 5 s for an answer to a ping, 5 s for another
/// backend, and time for an emulated machine.
const BOUND: Duration = Duration::from_secs(30);
/// How many backends are killed one after the other.
const TIMES: usize = 10;

/// Returns the process whose command line begins with `title`, if there is exactly one.
fn find(machine: &Machine, title: &str) -> Result<Option<String>> {
    let script = format!("grep -l '^{title}' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3");
    let found = machine.driver_domain.check(&["sh", "-c", &script], LIMIT)?;
    let mut lines = found.lines();
    Ok(lines.next().filter(|_| lines.next().is_none()).map(str::to_owned))
}

fn signal(machine: &Machine, signal: &str, pid: &str) -> Result<()> {
    machine.driver_domain.check(&["sh", "-c", &format!("kill -{signal} {pid}")], LIMIT).map(drop)
}

/// Waits until a process other than `former` serves the device, that is, has mapped the rings of its guest.
/// (Messages on the console are not used: the focus moves to the domain of the agent, and Xen may break a
/// line at that moment.)
fn wait_for_another(machine: &Machine, title: &str, former: &str) -> Result<String> {
    wait_until("another backend serves the device", BOUND, || {
        let Some(pid) = find(machine, title)?.filter(|pid| pid != former) else { return Ok(None) };
        let count = format!("grep -c /dev/xen/gntdev /proc/{pid}/maps; true");
        let mapped = machine.driver_domain.check(&["sh", "-c", &count], LIMIT)?;
        Ok(mapped.trim().parse::<usize>().is_ok_and(|rings| rings > 0).then_some(pid))
    })
}

/// Returns the number of writes of `bytes` to the EEPROM on the bus since `mark`.
fn writes(bus: &Hardware, mark: usize, bytes: &str) -> Result<usize> {
    let wrote = |entry: &Value| entry.get("messages") == Some(&json!([{"address": EEPROM, "write": bytes}]));
    Ok(bus.since(mark)?.iter().filter(|entry| is_about(entry, EEPROM) && wrote(entry)).count())
}

/// Starts transfers of guest-b, which counts its errors.
fn start_transfers_of_guest_b(machine: &Machine) -> Result<Background<'_>> {
    machine.guest_b.start(&["agent", "i2c-stress", "0", "0x68", "0x10", "4", "100"])
}

/// Waits for the end of guest-b's transfers, none of which may have failed.
fn finish_without_error(work: &Background<'_>) -> Result<()> {
    let output = work.look_until(Duration::from_secs(240), |_| false)?;
    let text = output.text();
    ensure!(text.contains("errors=0 differences=0"), "guest-b: {text} {}", output.error_text());
    Ok(())
}

/// Stops the backend, has guest-a write `byte`, and calls `end` to end the backend. The next backend carries
/// the write out, once, and all later requests.
fn write_to_a_stopped_backend(
    machine: &Machine,
    byte: &str,
    end: impl Fn(&Machine, &str) -> Result<()>,
) -> Result<()> {
    let others = start_transfers_of_guest_b(machine)?;
    let pid = find(machine, I2C_OF_GUEST_A)?.context("guest-a has no I2C backend")?;
    let mark = machine.i2c.mark()?;
    signal(machine, "STOP", &pid)?;
    let write = machine.guest_a.start(&["agent", "i2c", "0", &format!("w0x50:20{byte}")])?;
    end(machine, &pid)?;
    let output = write.look_until(BOUND, |_| false)?;
    ensure!(output.succeeded(), "{:?}: {}", output.end, output.error_text());
    wait_for_another(machine, I2C_OF_GUEST_A, &pid)?;
    i2c::guest_a_sees_temperature_change(machine)?;
    finish_without_error(&others)?;
    // This one checks the journal, so no other guest may use the bus.
    i2c::guest_a_writes_eeprom_page(machine)?;
    let seen = writes(&machine.i2c, mark, &format!("20{byte}"))?;
    ensure!(seen == 1, "the write was on the bus {seen} times");
    Ok(())
}

pub(crate) fn killed_with_a_request(machine: &Machine) -> Result<()> {
    write_to_a_stopped_backend(machine, "a1", |machine, pid| signal(machine, "KILL", pid))
}

/// Sends the backend a signal while a write is on the bus and the adapter has not completed it, so that its
/// result is not known. The guest gets an error, and the next backend does not repeat the write.
fn lost_in_a_transfer(machine: &Machine, bytes: &str, signal_name: &str) -> Result<()> {
    let others = start_transfers_of_guest_b(machine)?;
    let pid = find(machine, I2C_OF_GUEST_A)?.context("guest-a has no I2C backend")?;
    let mark = machine.i2c.mark()?;
    machine
        .i2c
        .control(&json!({ "inject": { "address": EEPROM, "fault": { "late-ms": 3000 }, "count": 1 } }))?;
    let write = machine.guest_a.start(&["agent", "i2c", "0", &format!("w0x50:{bytes}")])?;
    wait_until("the write is on the bus", LIMIT, || {
        Ok((writes(&machine.i2c, mark, bytes)? == 1).then_some(()))
    })?;
    signal(machine, signal_name, &pid)?;
    let output = write.look_until(BOUND, |_| false)?;
    ensure!(!output.succeeded(), "the guest got no error for the write: {}", output.text());
    wait_for_another(machine, I2C_OF_GUEST_A, &pid)?;
    i2c::guest_a_sees_temperature_change(machine)?;
    finish_without_error(&others)?;
    i2c::guest_a_writes_eeprom_page(machine)?;
    let seen = writes(&machine.i2c, mark, bytes)?;
    ensure!(seen == 1, "the write was on the bus {seen} times");
    Ok(())
}

pub(crate) fn killed_in_a_transfer(machine: &Machine) -> Result<()> {
    lost_in_a_transfer(machine, "20a3", "KILL")
}

/// The backend is stopped, so the shim kills it. The transfer has ended on the bus by then, but the backend
/// has not returned the request.
pub(crate) fn hangs_in_a_transfer(machine: &Machine) -> Result<()> {
    lost_in_a_transfer(machine, "20a4", "STOP")
}

/// Kills a backend whose program cannot be started again. (With GPIO: Linux's I2C driver would wait for its
/// request without a limit.)
pub(crate) fn cannot_be_started_again(machine: &Machine) -> Result<()> {
    let mut chips = devices(&machine.guest_a)?;
    chips.retain(|(driver, _)| driver.contains("gpio"));
    let [(_, device)] = chips.as_slice() else { bail!("guest-a has the GPIO devices {chips:?}") };
    let busybox = |command: &str| {
        machine
            .driver_domain
            .check(&["/bin/busybox", "sh", "-c", &format!("{command} {PROGRAM} {AWAY}")], LIMIT)
    };
    let others = start_transfers_of_guest_b(machine)?;
    let pid = find(machine, GPIO_OF_GUEST_A)?.context("guest-a has no GPIO backend")?;
    busybox("mv")?;
    let gone = signal(machine, "KILL", &pid).and_then(|()| {
        let status = format!("cat /sys/bus/virtio/devices/{device}/status");
        wait_until("the device needs a reset", BOUND, || {
            let status = machine.guest_a.check(&["sh", "-c", &status], LIMIT)?;
            Ok((status.trim() == NEEDS_RESET).then_some(()))
        })
    });
    // Restored also after an error, for the other scenarios.
    busybox("f() { mv $2 $1; }; f")?;
    gone?;
    tell(&machine.guest_a, &chips, "unbind")?;
    wait_until("another backend", BOUND, || find(machine, GPIO_OF_GUEST_A))?;
    tell(&machine.guest_a, &chips, "bind")?;
    finish_without_error(&others)?;
    gpio::guest_a_drives_a_line(machine)?;
    gpio::an_edge_arrives(machine)
}

pub(crate) fn hangs(machine: &Machine) -> Result<()> {
    // The shim kills the stopped backend.
    write_to_a_stopped_backend(machine, "a2", |_, _| Ok(()))
}

pub(crate) fn gpio_backend_killed(machine: &Machine) -> Result<()> {
    let others = start_transfers_of_guest_b(machine)?;
    let pid = find(machine, GPIO_OF_GUEST_A)?.context("guest-a has no GPIO backend")?;
    // The backend has the event buffers of this wait when it is killed.
    gpio::expect_edges_after(machine, |machine| {
        signal(machine, "KILL", &pid)?;
        wait_for_another(machine, GPIO_OF_GUEST_A, &pid).map(drop)
    })?;
    gpio::guest_a_drives_a_line(machine)?;
    gpio::an_edge_arrives(machine)?;
    finish_without_error(&others)
}

pub(crate) fn killed_repeatedly(machine: &Machine) -> Result<()> {
    for _ in 0..TIMES {
        let pid = find(machine, I2C_OF_GUEST_A)?.context("guest-a has no I2C backend")?;
        signal(machine, "KILL", &pid)?;
        // This request may come before the next backend, which then serves it.
        i2c::guest_a_reads_temperature(machine)?;
        wait_for_another(machine, I2C_OF_GUEST_A, &pid)?;
    }
    Ok(())
}
