// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The supervisor reads its configuration again (SIGHUP). A device that no driver uses changes. The other
//! devices of its guest are not affected: outputs keep their level, no edge is lost, and no transfer fails.

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::Machine;

use crate::life::{Role, Snapshot, Transfers, devices_work};
use crate::outputs::{LED, events, expect, hold};
use crate::rebind::{devices, tell};
use crate::shim_loss::{CONFIG, TRANSFERS};
use crate::{LIMIT, gpio};

const KEPT: &str = "/tmp/kept.toml";
/// The processes that serve guest-a.
const WORKER: Role = Role::Worker("guest-a");
const I2C: Role = Role::Backend("guest-a", "i2c0");
const GPIO: Role = Role::Backend("guest-a", "gpio");
/// A transfer to a target of guest-b.
const CLOCK: [&str; 5] = ["agent", "i2c", "0", "w0x68:08", "r0x68:1"];

/// A reload that has begun, with the mark of the console before its messages.
struct Reload(usize);

impl Reload {
    fn begin(machine: &Machine) -> Result<Self> {
        let mark = machine.console.mark();
        Role::Supervisor.signal(machine, "HUP")?;
        Ok(Self(mark))
    }

    fn finish(self, machine: &Machine) -> Result<()> {
        let what = "guest-a: has 2 devices from now on";
        let seen = machine.console.wait(self.0, LIMIT, |line| line.text.contains(what).then_some(()))?;
        seen.with_context(|| format!("the supervisor has not printed: {what}")).map(drop)
    }
}

fn busybox(machine: &Machine, command: &[&str]) -> Result<()> {
    machine.driver_domain.check(&[&["/bin/busybox"], command].concat(), LIMIT).map(drop)
}

fn edit(machine: &Machine, script: &str) -> Result<()> {
    busybox(machine, &["cp", CONFIG, KEPT])?;
    busybox(machine, &["sed", "-i", script, CONFIG])
}

fn undo(machine: &Machine) -> Result<()> {
    busybox(machine, &["cp", KEPT, CONFIG])
}

/// Returns the guest's device of one kind, with its driver.
fn bound(guest: &Channel, kind: &str) -> Result<Vec<(String, String)>> {
    let mut devices = devices(guest)?;
    devices.retain(|(driver, _)| driver.contains(kind));
    ensure!(devices.len() == 1, "the guest has the {kind} devices {devices:?}");
    Ok(devices)
}

/// Replaces the guest's I2C adapter while the guest drives an output and waits for an edge.
pub(crate) fn lines_in_use_are_not_affected(machine: &Machine) -> Result<()> {
    let before = Snapshot::of(machine)?;
    let adapter = bound(&machine.guest_a, "i2c")?;
    let held = hold(&machine.guest_a, 1)?;
    expect(machine, LED, 1, "while guest-a drives 1")?;
    let (mark, serving) = (machine.gpio.mark()?, [WORKER.pid(machine)?, GPIO.pid(machine)?]);
    let mut reload = None;
    gpio::expect_two_edges(machine, |_| match reload.take() {
        None => {
            tell(&machine.guest_a, &adapter, "unbind")?;
            edit(machine, "s/0x48,0x50/0x48,0x50,0x68/")?;
            reload = Some(Reload::begin(machine)?);
            Ok(())
        }
        Some(reload) => reload.finish(machine),
    })?;
    expect(machine, LED, 1, "after the reload")?;
    let seen = events(machine, LED, mark)?;
    ensure!(seen.is_empty(), "the led has changed: {seen:?}");
    let now = [WORKER.pid(machine)?, GPIO.pid(machine)?];
    ensure!(now == serving, "worker and GPIO backend were replaced: {serving:?}, now {now:?}");

    // The change has taken effect. It is undone.
    tell(&machine.guest_a, &adapter, "bind")?;
    machine.guest_a.check(&CLOCK, LIMIT)?;
    tell(&machine.guest_a, &adapter, "unbind")?;
    undo(machine)?;
    Reload::begin(machine)?.finish(machine)?;
    tell(&machine.guest_a, &adapter, "bind")?;
    ensure!(machine.guest_a.check(&CLOCK, LIMIT).is_err(), "guest-a reaches a target that was removed");
    expect(machine, LED, 1, "after the change was undone")?;
    ensure!(events(machine, LED, mark)?.is_empty(), "the led has changed");
    drop(held);
    devices_work(machine)?;
    before.wait_until_restored(machine)
}

/// Replaces the guest's GPIO controller during transfers of its adapter.
pub(crate) fn transfers_are_not_affected(machine: &Machine) -> Result<()> {
    let before = Snapshot::of(machine)?;
    let controller = bound(&machine.guest_a, "gpio")?;
    let serving = [WORKER.pid(machine)?, I2C.pid(machine)?];
    let transfers = Transfers::begin(machine, &machine.guest_a, "0x50", 40)?;
    tell(&machine.guest_a, &controller, "unbind")?;
    for safe in [1, 0] {
        if safe == 1 {
            edit(machine, "s/led,safe=0/led,safe=1/")?;
        } else {
            undo(machine)?;
        }
        Reload::begin(machine)?.finish(machine)?;
        expect(machine, LED, safe, "after the reload")?;
    }
    let errors = transfers.finish(TRANSFERS)?;
    ensure!(errors == 0, "{errors} transfers of the unchanged device failed");
    let now = [WORKER.pid(machine)?, I2C.pid(machine)?];
    ensure!(now == serving, "worker and I2C backend were replaced: {serving:?}, now {now:?}");
    tell(&machine.guest_a, &controller, "bind")?;
    devices_work(machine)?;
    gpio::an_edge_arrives(machine)?;
    before.wait_until_restored(machine)
}

/// Stops a worker during a reload: it is replaced, and the reload completes.
pub(crate) fn hanging_worker_is_replaced(machine: &Machine) -> Result<()> {
    let before = Snapshot::of(machine)?;
    let adapter = bound(&machine.guest_a, "i2c")?;
    tell(&machine.guest_a, &adapter, "unbind")?;
    edit(machine, "s/0x48,0x50/0x48,0x50,0x68/")?;
    let hanging = WORKER.signal(machine, "STOP")?.pid;
    Reload::begin(machine)?.finish(machine)?;
    let now = WORKER.pid(machine)?;
    ensure!(now != hanging, "the stopped worker was not replaced: {now}");
    tell(&machine.guest_a, &adapter, "bind")?;
    machine.guest_a.check(&CLOCK, LIMIT)?;

    tell(&machine.guest_a, &adapter, "unbind")?;
    undo(machine)?;
    Reload::begin(machine)?.finish(machine)?;
    tell(&machine.guest_a, &adapter, "bind")?;
    devices_work(machine)?;
    before.wait_until_restored(machine)
}
