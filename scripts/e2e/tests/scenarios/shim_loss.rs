// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes of the shim end during transfers: the guest continues with its bound drivers, the other guest is
//! not affected, and no resource leaks.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::host::machine::Machine;
use e2e::host::process::wait_until;

use crate::backend_loss::NEEDS_RESET;
use crate::life::{Role, Snapshot, Transfers, devices_work};
use crate::rebind::{devices, rebinding_leaves_no_grant_mapped, tell};
use crate::{LIMIT, gpio, shared};

const ROUNDS: u32 = 150;
/// The limit for the transfers of a scenario.
pub(crate) const TRANSFERS: Duration = Duration::from_secs(300);
/// The maximum number of failed transfers: the request that is in flight when a backend ends, and the next
/// one if the guest's driver sends it at that moment.
const ERRORS: u32 = 2;

const PLATFORM_DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";
/// The platform device, named by the address of its registers: the second device of its guest.
const GPIO_OF_GUEST_B: &str = "2000200.virtio";
pub(crate) const CONFIG: &str = "/etc/xen-frontend-shim.toml";

pub(crate) fn worker_killed(machine: &Machine) -> Result<()> {
    let before = Snapshot::of(machine)?;
    let a = Transfers::begin(machine, &machine.guest_a, "0x50", ROUNDS)?;
    let b = Transfers::begin(machine, &machine.guest_b, "0x68", ROUNDS)?;
    Role::Worker("guest-a").end(machine, "KILL")?;
    let errors = a.finish(TRANSFERS)?;
    ensure!(errors <= ERRORS, "{errors} transfers of the guest whose worker was killed failed");
    let errors = b.finish(TRANSFERS)?;
    ensure!(errors == 0, "{errors} transfers of the other guest failed");
    devices_work(machine)?;
    before.wait_until_restored(machine)
}

pub(crate) fn supervisor_killed(machine: &Machine) -> Result<()> {
    supervisor_ends(machine, "KILL")?;
    rebinding_leaves_no_grant_mapped(machine)
}

pub(crate) fn supervisor_terminated(machine: &Machine) -> Result<()> {
    supervisor_ends(machine, "TERM")
}

/// Damages the record of the ioreq server: the next supervisor continues with that server.
pub(crate) fn server_record_damaged(machine: &Machine) -> Result<()> {
    let damage = "echo damaged >/run/xen-frontend-shim/guest-a/server";
    machine.driver_domain.check(&["sh", "-c", damage], LIMIT)?;
    let mark = machine.console.mark();
    supervisor_ends(machine, "KILL")?;
    let adopted = "guest-a: adopted ioreq server";
    let seen = machine.console.wait(mark, LIMIT, |line| line.text.contains(adopted).then_some(()))?;
    seen.with_context(|| format!("the shim has not printed `{adopted}`")).map(drop)
}

fn supervisor_ends(machine: &Machine, signal: &str) -> Result<()> {
    let before = Snapshot::of(machine)?;
    let a = Transfers::begin(machine, &machine.guest_a, "0x50", ROUNDS)?;
    let b = Transfers::begin(machine, &machine.guest_b, "0x68", ROUNDS)?;
    Role::Supervisor.end(machine, signal)?;
    for transfers in [a, b] {
        let errors = transfers.finish(TRANSFERS)?;
        ensure!(errors <= ERRORS, "{errors} transfers failed");
    }
    devices_work(machine)?;
    before.wait_until_restored(machine)
}

/// Makes the supervisor read its configuration again, and waits until it prints `what`.
fn reload(machine: &Machine, what: &str) -> Result<()> {
    let mark = machine.console.mark();
    Role::Supervisor.signal(machine, "HUP")?;
    let seen = machine.console.wait(mark, LIMIT, |line| line.text.contains(what).then_some(()))?;
    seen.with_context(|| format!("the supervisor has not printed: {what}"))?;
    Ok(())
}

fn edit(machine: &Machine, command: &[&str]) -> Result<String> {
    machine.driver_domain.check(&[&["/bin/busybox"], command].concat(), LIMIT)
}

pub(crate) fn configuration_reloaded(machine: &Machine) -> Result<()> {
    const KEPT: &str = "/tmp/kept.toml";
    let before = Snapshot::of(machine)?;
    edit(machine, &["cp", CONFIG, KEPT])?;
    let places = edit(machine, &["sed", "-n", "/guest.device]]/=", CONFIG])?;
    let last = places.lines().last().context("no device is configured")?;
    edit(machine, &["sed", "-i", &format!("{last},$d"), CONFIG])?;

    // The last device is the GPIO controller of guest-b, which is in use.
    reload(machine, "gpio stays as it is")?;
    devices_work(machine)?;
    let gpio: Vec<_> =
        devices(&machine.guest_b)?.into_iter().filter(|(driver, _)| driver.contains("gpio")).collect();
    ensure!(gpio.len() == 1, "guest-b has {gpio:?}");
    tell(&machine.guest_b, &gpio, "unbind")?;
    reload(machine, "has 1 devices from now on")?;
    machine.guest_b.check(&["agent", "i2c", "0", "w0x68:08", "r0x68:1"], LIMIT)?;
    ensure!(tell(&machine.guest_b, &gpio, "bind").is_err(), "a driver was bound to a removed device");

    edit(machine, &["cp", KEPT, CONFIG])?;
    reload(machine, "has 2 devices from now on")?;
    // The device is new, so the guest has to probe its platform device again. No transfer follows: Linux 6.12
    // uses data of the removed device (drivers/xen/grant-dma-ops.c: "Xen grant DMA data is already created").
    let found =
        format!("cd {PLATFORM_DRIVER} && echo {GPIO_OF_GUEST_B} >unbind && echo {GPIO_OF_GUEST_B} >bind");
    machine.guest_b.check(&["sh", "-c", &found], LIMIT)?;
    let gpio: Vec<_> =
        devices(&machine.guest_b)?.into_iter().filter(|(driver, _)| driver.contains("gpio")).collect();
    ensure!(gpio.len() == 1, "guest-b has {gpio:?}");
    machine.guest_b.check(&["agent", "i2c", "0", "w0x68:08", "r0x68:1"], LIMIT)?;
    machine.guest_a.check(&["agent", "i2c", "0", "w0x50:00", "r0x50:1"], LIMIT)?;
    before.wait_until_restored(machine)
}

/// Reasons why the next worker cannot continue with the state of guest-a's GPIO controller: a description, a
/// command for the driver domain that causes it, and the process that is killed then. The next supervisor
/// reads the changed configuration.
const LOSSES: [(&str, &str, Role); 4] = [
    (
        "its record is damaged",
        "/bin/busybox yes | /bin/busybox head -c 8192 >/run/xen-frontend-shim/guest-a/gpio.transport",
        Role::Worker("guest-a"),
    ),
    (
        "it has fewer queues",
        r#"first=$(/bin/busybox sed -n '/queues = 2/=' $CONFIG | /bin/busybox head -n 1)
        /bin/busybox sed -i "${first}s/2/1/" $CONFIG"#,
        Role::Supervisor,
    ),
    (
        "its backend offers fewer lines",
        r#"/bin/busybox sed -i 's|, "--line", "[^"]*=power"||' $CONFIG"#,
        Role::Supervisor,
    ),
    (
        "no backend can be started",
        r#"/bin/busybox sed -i 's|"/usr/bin/backend", \("gpio".*=led\)|"/no/such/backend", \1|' $CONFIG"#,
        Role::Supervisor,
    ),
];

/// Checks virtio 1.3, 2.1.2 for each of [`LOSSES`]: the driver reads DRIVER_OK and DEVICE_NEEDS_RESET and
/// gets an interrupt. The device works after the driver has reset it.
pub(crate) fn lost_device_needs_a_reset(machine: &Machine) -> Result<()> {
    let shell = |command: &str| {
        machine.driver_domain.check(&["sh", "-c", &format!("CONFIG={CONFIG}; {command}")], LIMIT)
    };
    shell("/bin/busybox cp $CONFIG /tmp/kept.toml")?;
    for (loss, cause, role) in LOSSES {
        let lost = shell(cause).and_then(|_| lose(machine, role));
        // Restored also after an error, for the other scenarios.
        shell("/bin/busybox cp /tmp/kept.toml $CONFIG")?;
        lost.and_then(|gpio| reset(machine, role, &gpio)).with_context(|| format!("after this: {loss}"))?;
    }
    Ok(())
}

/// Ends `role`, waits until guest-a's GPIO controller needs a reset, and returns that device.
fn lose(machine: &Machine, role: Role) -> Result<Vec<(String, String)>> {
    let guest = &machine.guest_a;
    let mut gpio = devices(guest)?;
    gpio.retain(|(driver, _)| driver.contains("gpio"));
    let [(_, device)] = gpio.as_slice() else { bail!("guest-a has the GPIO devices {gpio:?}") };
    let interrupts = format!("grep -w {device} /proc/interrupts");
    let status = format!("cat /sys/bus/virtio/devices/{device}/status");
    let before = guest.check(&["sh", "-c", &interrupts], LIMIT)?;
    role.end(machine, "KILL")?;
    let mut seen = String::new();
    wait_until("the driver reads that its device needs a reset", LIMIT, || {
        seen = guest.check(&["sh", "-c", &status], LIMIT)?;
        Ok((seen.trim() == NEEDS_RESET).then_some(()))
    })
    .with_context(|| format!("the device's status is {seen}"))?;
    ensure!(
        guest.check(&["sh", "-c", &interrupts], LIMIT)? != before,
        "the driver got no interrupt: {before}"
    );
    Ok(gpio)
}

/// Makes the guest's driver reset the lost controller, after the configuration was restored, and checks that
/// it works.
fn reset(machine: &Machine, role: Role, gpio: &[(String, String)]) -> Result<()> {
    if let Role::Supervisor = role {
        role.end(machine, "KILL")?;
    }
    tell(&machine.guest_a, gpio, "unbind")?;
    tell(&machine.guest_a, gpio, "bind")?;
    devices_work(machine)?;
    gpio::guest_a_drives_a_line(machine)?;
    gpio::an_edge_arrives(machine)
}

/// The number of rounds of [`lifecycle_loop`].
const LIFE_ROUNDS: u64 = 10;
/// The same in the long run.
const MANY_ROUNDS: u64 = 200;

/// Kills processes and binds drivers again, in a pseudo-random order that is the same in each run. XBA_ROUNDS
/// sets the number of rounds.
pub(crate) fn lifecycle_loop(machine: &Machine) -> Result<()> {
    let usual = if shared::is_long() { MANY_ROUNDS } else { LIFE_ROUNDS };
    let rounds = std::env::var("XBA_ROUNDS").ok().map(|text| text.parse()).transpose()?.unwrap_or(usual);
    let before = Snapshot::of(machine)?;
    // xorshift64
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 1..=rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let what = || format!("round {round} of {rounds}, {:#x}", state % 8);
        one_round(machine, state % 8).with_context(what)?;
        before.wait_until_restored(machine).with_context(what)?;
    }
    Ok(())
}

/// Performs one round: ends a process or binds a guest's drivers again, by `choice`.
fn one_round(machine: &Machine, choice: u64) -> Result<()> {
    let (guest, address) =
        if choice.is_multiple_of(2) { (&machine.guest_a, "0x50") } else { (&machine.guest_b, "0x68") };
    let name = if choice.is_multiple_of(2) { "guest-a" } else { "guest-b" };
    let transfers = Transfers::begin(machine, guest, address, 40)?;
    match choice / 2 {
        0 => Role::Supervisor.end(machine, "KILL")?,
        1 => Role::Worker(name).end(machine, "KILL")?,
        2 => Role::Backend(name, "i2c0").end(machine, "KILL")?,
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
