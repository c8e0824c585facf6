// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes of the shim die, in the middle of transfers: the guest goes on with the drivers that it has, the
//! other guest notices nothing, and nothing is left over.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::host::machine::Machine;
use e2e::host::process::wait_until;

use crate::backend_loss::NEEDS_RESET;
use crate::life::{Order, Transfers, Victim, devices_work};
use crate::rebind::{devices, rebinding_leaves_no_grant_mapped, tell};
use crate::{LIMIT, gpio, shared};

const ROUNDS: u32 = 150;
/// How long the transfers may take, with all that happens meanwhile.
pub(crate) const TRANSFERS: Duration = Duration::from_secs(300);
/// The request that is in flight when a backend dies with its worker ends with an error; the next one may as
/// well, if the guest's driver was just about to send it.
const ERRORS: u32 = 2;

const PLATFORM_DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";
/// By the registers that it has as the second device of its guest.
const GPIO_OF_GUEST_B: &str = "2000200.virtio";
pub(crate) const CONFIG: &str = "/etc/xen-frontend-shim.toml";

pub(crate) fn worker_killed(machine: &Machine) -> Result<()> {
    let order = Order::of(machine)?;
    let a = Transfers::begin(machine, &machine.guest_a, "0x50", ROUNDS)?;
    let b = Transfers::begin(machine, &machine.guest_b, "0x68", ROUNDS)?;
    Victim::Worker("guest-a").end(machine, "KILL")?;
    let errors = a.finish(TRANSFERS)?;
    ensure!(errors <= ERRORS, "{errors} transfers of the guest whose worker was killed failed");
    let errors = b.finish(TRANSFERS)?;
    ensure!(errors == 0, "{errors} transfers of the other guest failed");
    devices_work(machine)?;
    order.restored(machine)
}

pub(crate) fn supervisor_killed(machine: &Machine) -> Result<()> {
    supervisor_ends(machine, "KILL")?;
    rebinding_leaves_no_grant_mapped(machine)
}

pub(crate) fn supervisor_terminated(machine: &Machine) -> Result<()> {
    supervisor_ends(machine, "TERM")
}

/// A supervisor that finds the record of the ioreq server damaged continues with that server.
pub(crate) fn server_record_damaged(machine: &Machine) -> Result<()> {
    let damage = "echo damaged >/run/xen-frontend-shim/guest-a/server";
    machine.driver_domain.check(&["sh", "-c", damage], LIMIT)?;
    let mark = machine.console.mark();
    supervisor_ends(machine, "KILL")?;
    let adopted = "guest-a: adopted ioreq server";
    let seen = machine.console.wait(mark, LIMIT, |line| line.text.contains(adopted).then_some(()))?;
    seen.with_context(|| format!("the shim does not report `{adopted}`")).map(drop)
}

fn supervisor_ends(machine: &Machine, signal: &str) -> Result<()> {
    let order = Order::of(machine)?;
    let a = Transfers::begin(machine, &machine.guest_a, "0x50", ROUNDS)?;
    let b = Transfers::begin(machine, &machine.guest_b, "0x68", ROUNDS)?;
    Victim::Supervisor.end(machine, signal)?;
    for transfers in [a, b] {
        let errors = transfers.finish(TRANSFERS)?;
        ensure!(errors <= ERRORS, "{errors} transfers failed");
    }
    devices_work(machine)?;
    order.restored(machine)
}

/// Tells the supervisor to read its configuration again, and waits until it says `what`.
fn reload(machine: &Machine, what: &str) -> Result<()> {
    let mark = machine.console.mark();
    Victim::Supervisor.signal(machine, "HUP")?;
    let said = machine.console.wait(mark, LIMIT, |line| line.text.contains(what).then_some(()))?;
    said.with_context(|| format!("the supervisor does not say that it {what}"))?;
    Ok(())
}

fn edit(machine: &Machine, command: &[&str]) -> Result<String> {
    machine.driver_domain.check(&[&["/bin/busybox"], command].concat(), LIMIT)
}

pub(crate) fn configuration_reloaded(machine: &Machine) -> Result<()> {
    const KEPT: &str = "/tmp/kept.toml";
    let order = Order::of(machine)?;
    edit(machine, &["cp", CONFIG, KEPT])?;
    let places = edit(machine, &["sed", "-n", "/guest.device]]/=", CONFIG])?;
    let last = places.lines().last().context("no device is configured")?;
    edit(machine, &["sed", "-i", &format!("{last},$d"), CONFIG])?;

    // The last device is the GPIO controller of guest-b, and in use.
    reload(machine, "gpio stays as it is")?;
    devices_work(machine)?;
    let gpio: Vec<_> =
        devices(&machine.guest_b)?.into_iter().filter(|(driver, _)| driver.contains("gpio")).collect();
    ensure!(gpio.len() == 1, "guest-b has {gpio:?}");
    tell(&machine.guest_b, &gpio, "unbind")?;
    reload(machine, "has 1 devices from now on")?;
    machine.guest_b.check(&["agent", "i2c", "0", "w0x68:08", "r0x68:1"], LIMIT)?;
    ensure!(tell(&machine.guest_b, &gpio, "bind").is_err(), "a driver has found a device that was removed");

    edit(machine, &["cp", KEPT, CONFIG])?;
    reload(machine, "has 2 devices from now on")?;
    // It is a new device, which no driver has acknowledged: the guest has to find it again, not only to bind
    // a driver. Nothing is transferred then, as Linux 6.12 goes on with what it has freed of the former
    // device (drivers/xen/grant-dma-ops.c: "Xen grant DMA data is already created").
    let found =
        format!("cd {PLATFORM_DRIVER} && echo {GPIO_OF_GUEST_B} >unbind && echo {GPIO_OF_GUEST_B} >bind");
    machine.guest_b.check(&["sh", "-c", &found], LIMIT)?;
    let gpio: Vec<_> =
        devices(&machine.guest_b)?.into_iter().filter(|(driver, _)| driver.contains("gpio")).collect();
    ensure!(gpio.len() == 1, "guest-b has {gpio:?}");
    machine.guest_b.check(&["agent", "i2c", "0", "w0x68:08", "r0x68:1"], LIMIT)?;
    machine.guest_a.check(&["agent", "i2c", "0", "w0x50:00", "r0x50:1"], LIMIT)?;
    order.restored(machine)
}

/// What makes the state of guest-a's GPIO controller one that the next worker cannot go on with, in a shell
/// of the driver domain, and who ends upon that: with the supervisor the configuration is another one.
const LOSSES: [(&str, &str, Victim); 4] = [
    (
        "its record is damaged",
        "/bin/busybox yes | /bin/busybox head -c 8192 >/run/xen-frontend-shim/guest-a/gpio.transport",
        Victim::Worker("guest-a"),
    ),
    (
        "it has fewer queues",
        r#"first=$(/bin/busybox sed -n '/queues = 2/=' $CONFIG | /bin/busybox head -n 1)
        /bin/busybox sed -i "${first}s/2/1/" $CONFIG"#,
        Victim::Supervisor,
    ),
    (
        "its backend offers fewer lines",
        r#"/bin/busybox sed -i 's|, "--line", "[^"]*=power"||' $CONFIG"#,
        Victim::Supervisor,
    ),
    (
        "no backend comes",
        r#"/bin/busybox sed -i 's|"/usr/bin/backend", \("gpio".*=led\)|"/no/such/backend", \1|' $CONFIG"#,
        Victim::Supervisor,
    ),
];

/// Virtio 1.3, 2.1.2: the driver sees DRIVER_OK and DEVICE_NEEDS_RESET, and is interrupted. Its device is
/// back when it has reset it.
pub(crate) fn a_driver_hears_that_its_device_is_lost(machine: &Machine) -> Result<()> {
    let shell = |command: &str| {
        machine.driver_domain.check(&["sh", "-c", &format!("CONFIG={CONFIG}; {command}")], LIMIT)
    };
    shell("/bin/busybox cp $CONFIG /tmp/kept.toml")?;
    for (loss, cause, victim) in LOSSES {
        let lost = shell(cause).and_then(|_| lose(machine, victim));
        // Whatever became of it: the others want to be served.
        shell("/bin/busybox cp /tmp/kept.toml $CONFIG")?;
        lost.and_then(|gpio| find_again(machine, victim, &gpio)).with_context(|| format!("if {loss}"))?;
    }
    Ok(())
}

/// Has the guest's driver lose its GPIO controller, which is returned, when `victim` ends.
fn lose(machine: &Machine, victim: Victim) -> Result<Vec<(String, String)>> {
    let guest = &machine.guest_a;
    let mut gpio = devices(guest)?;
    gpio.retain(|(driver, _)| driver.contains("gpio"));
    let [(_, device)] = gpio.as_slice() else { bail!("guest-a has the GPIO devices {gpio:?}") };
    let interrupts = format!("grep -w {device} /proc/interrupts");
    let status = format!("cat /sys/bus/virtio/devices/{device}/status");
    let before = guest.check(&["sh", "-c", &interrupts], LIMIT)?;
    victim.end(machine, "KILL")?;
    let mut seen = String::new();
    wait_until("the driver sees that its device needs a reset", LIMIT, || {
        seen = guest.check(&["sh", "-c", &status], LIMIT)?;
        Ok((seen.trim() == NEEDS_RESET).then_some(()))
    })
    .with_context(|| format!("its status is {seen}"))?;
    ensure!(guest.check(&["sh", "-c", &interrupts], LIMIT)? != before, "it was not interrupted: {before}");
    Ok(gpio)
}

/// Has the guest's driver reset the controller that it has lost, once there is what there was.
fn find_again(machine: &Machine, victim: Victim, gpio: &[(String, String)]) -> Result<()> {
    if let Victim::Supervisor = victim {
        victim.end(machine, "KILL")?;
    }
    tell(&machine.guest_a, gpio, "unbind")?;
    tell(&machine.guest_a, gpio, "bind")?;
    devices_work(machine)?;
    gpio::guest_a_drives_a_line(machine)?;
    gpio::an_edge_arrives(machine)
}

/// How often [`lifecycle_loop`] does something: as a rule, and if time does not matter.
const LIFE_ROUNDS: u64 = 10;
const MANY_ROUNDS: u64 = 200;

/// Kills and re-binds in an arbitrary order, which is the same each time. XBA_ROUNDS says how often, or
/// XBA_LONG.
pub(crate) fn lifecycle_loop(machine: &Machine) -> Result<()> {
    let usual = if shared::is_long() { MANY_ROUNDS } else { LIFE_ROUNDS };
    let rounds = std::env::var("XBA_ROUNDS").ok().map(|text| text.parse()).transpose()?.unwrap_or(usual);
    let order = Order::of(machine)?;
    // xorshift64
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 1..=rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let what = || format!("round {round} of {rounds}, {:#x}", state % 8);
        one_life(machine, state % 8).with_context(what)?;
        order.restored(machine).with_context(what)?;
    }
    Ok(())
}

fn one_life(machine: &Machine, choice: u64) -> Result<()> {
    let (guest, address) =
        if choice.is_multiple_of(2) { (&machine.guest_a, "0x50") } else { (&machine.guest_b, "0x68") };
    let name = if choice.is_multiple_of(2) { "guest-a" } else { "guest-b" };
    let transfers = Transfers::begin(machine, guest, address, 40)?;
    match choice / 2 {
        0 => Victim::Supervisor.end(machine, "KILL")?,
        1 => Victim::Worker(name).end(machine, "KILL")?,
        2 => Victim::Backend(name, "i2c0").end(machine, "KILL")?,
        _ => {
            let errors = transfers.finish(TRANSFERS)?;
            ensure!(errors == 0, "{errors} transfers failed although no process was killed");
            let devices = devices(guest)?;
            tell(guest, &devices, "unbind")?;
            tell(guest, &devices, "bind")?;
            return devices_work(machine);
        }
    }
    let errors = transfers.finish(TRANSFERS)?;
    ensure!(errors <= ERRORS, "{errors} transfers failed");
    devices_work(machine)
}
