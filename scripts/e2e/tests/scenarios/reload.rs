// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration is read again (SIGHUP): a device that no driver uses changes, and the other devices of
//! its guest notice nothing: neither does an output move nor is an edge lost, and no transfer fails.

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::Machine;

use crate::life::{Order, Transfers, Victim, devices_work};
use crate::outputs::{LED, events, expect, hold};
use crate::rebind::{devices, tell};
use crate::shim_loss::{CONFIG, TRANSFERS};
use crate::{LIMIT, gpio};

const KEPT: &str = "/tmp/kept.toml";
/// What serves guest-a, and must not be replaced.
const WORKER: Victim = Victim::Worker("guest-a");
const I2C: Victim = Victim::Backend("guest-a", "i2c0");
const GPIO: Victim = Victim::Backend("guest-a", "gpio");
/// A target of guest-b.
const CLOCK: [&str; 5] = ["agent", "i2c", "0", "w0x68:08", "r0x68:1"];

/// A reload that has begun: the place on the console from which on the supervisor says so.
struct Reload(usize);

impl Reload {
    fn begin(machine: &Machine) -> Result<Self> {
        let mark = machine.console.mark();
        Victim::Supervisor.signal(machine, "HUP")?;
        Ok(Self(mark))
    }

    fn finish(self, machine: &Machine) -> Result<()> {
        let what = "guest-a: has 2 devices from now on";
        let said = machine.console.wait(self.0, LIMIT, |line| line.text.contains(what).then_some(()))?;
        said.with_context(|| format!("the supervisor does not say: {what}")).map(drop)
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

/// The guest's devices of one kind, with their driver.
fn bound(guest: &Channel, kind: &str) -> Result<Vec<(String, String)>> {
    let mut devices = devices(guest)?;
    devices.retain(|(driver, _)| driver.contains(kind));
    ensure!(devices.len() == 1, "the guest has the {kind} devices {devices:?}");
    Ok(devices)
}

/// An output is driven and an edge is waited for while the guest's I2C adapter becomes another one.
pub(crate) fn lines_in_use_stay(machine: &Machine) -> Result<()> {
    let order = Order::of(machine)?;
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
    expect(machine, LED, 1, "after the configuration was read again")?;
    let seen = events(machine, LED, mark)?;
    ensure!(seen.is_empty(), "the led should have stayed as it was: {seen:?}");
    let now = [WORKER.pid(machine)?, GPIO.pid(machine)?];
    ensure!(now == serving, "worker and GPIO daemon were {serving:?} and are {now:?}");

    // The change is there, and goes again.
    tell(&machine.guest_a, &adapter, "bind")?;
    machine.guest_a.check(&CLOCK, LIMIT)?;
    tell(&machine.guest_a, &adapter, "unbind")?;
    undo(machine)?;
    Reload::begin(machine)?.finish(machine)?;
    tell(&machine.guest_a, &adapter, "bind")?;
    ensure!(machine.guest_a.check(&CLOCK, LIMIT).is_err(), "guest-a reaches what it has no more");
    expect(machine, LED, 1, "when all is as it was")?;
    ensure!(events(machine, LED, mark)?.is_empty(), "the led should have stayed as it was");
    drop(held);
    devices_work(machine)?;
    order.restored(machine)
}

/// The adapter transfers all the time while the guest's GPIO controller becomes another one.
pub(crate) fn transfers_go_on(machine: &Machine) -> Result<()> {
    let order = Order::of(machine)?;
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
        expect(machine, LED, safe, "as the manifest wants it")?;
    }
    let errors = transfers.finish(TRANSFERS)?;
    ensure!(errors == 0, "{errors} transfers of a device that stays failed");
    let now = [WORKER.pid(machine)?, I2C.pid(machine)?];
    ensure!(now == serving, "worker and I2C daemon were {serving:?} and are {now:?}");
    tell(&machine.guest_a, &controller, "bind")?;
    devices_work(machine)?;
    gpio::an_edge_arrives(machine)?;
    order.restored(machine)
}

/// A worker that does not answer the supervisor is replaced, and the reload is completed.
pub(crate) fn hanging_worker_is_replaced(machine: &Machine) -> Result<()> {
    let order = Order::of(machine)?;
    let adapter = bound(&machine.guest_a, "i2c")?;
    tell(&machine.guest_a, &adapter, "unbind")?;
    edit(machine, "s/0x48,0x50/0x48,0x50,0x68/")?;
    let hanging = WORKER.signal(machine, "STOP")?.pid;
    Reload::begin(machine)?.finish(machine)?;
    let now = WORKER.pid(machine)?;
    ensure!(now != hanging, "the worker that hangs is still there: {now}");
    tell(&machine.guest_a, &adapter, "bind")?;
    machine.guest_a.check(&CLOCK, LIMIT)?;

    tell(&machine.guest_a, &adapter, "unbind")?;
    undo(machine)?;
    Reload::begin(machine)?.finish(machine)?;
    tell(&machine.guest_a, &adapter, "bind")?;
    devices_work(machine)?;
    order.restored(machine)
}
