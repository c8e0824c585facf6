// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests end in several ways and do not come back: no dom0less domain is created again. Their drivers do not
//! reset the devices, so the supervisor does, when Xen reports the end.

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::{GUEST_A, GUEST_B, Machine};

use crate::LIMIT;
use crate::life::{Order, Transfers};
use crate::outputs::{LED, RELAY, expect, hold};
use crate::rebind::mapped;

pub(crate) fn guest_b_powers_off(machine: &Machine) -> Result<()> {
    // The other guest's transfers go on, none of which may fail.
    let transfers = Transfers::begin(machine, &machine.guest_a, "0x50", 100)?;
    drives(machine, &machine.guest_b, RELAY)?;
    ends(machine, &machine.guest_b, GUEST_B, "guest-b", "sleep 1; poweroff -f", "powered off")?;
    expect(machine, RELAY, 1, "when guest-b is gone, whose relay is to stay")?;
    let errors = transfers.finish(LIMIT)?;
    ensure!(errors == 0, "{errors} transfers of the other guest failed");
    Ok(())
}

pub(crate) fn guest_a_panics(machine: &Machine) -> Result<()> {
    // Its kernel panics when there is no memory left, and is told to reboot then.
    let eat = "echo 1 >/proc/sys/vm/panic_on_oom; tail /dev/zero";
    drives(machine, &machine.guest_a, LED)?;
    ends(machine, &machine.guest_a, GUEST_A, "guest-a", eat, "asked for a reboot")?;
    expect(machine, LED, 0, "when guest-a is gone, whose led is safe at 0")
}

/// Has a guest drive its first line, which is `line` of the board, until it ends.
fn drives(machine: &Machine, guest: &Channel, line: u32) -> Result<()> {
    // It cannot be stopped when its agent is gone.
    std::mem::forget(hold(guest, 1)?);
    expect(machine, line, 1, "while a guest drives 1")
}

/// Has a guest end, by a command in it. What was mapped of it is unmapped, and no other domain is affected.
fn ends(machine: &Machine, guest: &Channel, domain: u16, name: &str, command: &str, how: &str) -> Result<()> {
    let before = Order::of(machine)?;
    ensure!(mapped(&machine.console, domain)? > 0, "no ring of {name} is mapped");
    let mark = machine.console.mark();
    // It cannot be stopped when its agent is gone.
    std::mem::forget(guest.start(&["sh", "-c", command])?);
    for said in [format!("{name}: has {how}; its devices are reset"), "all devices are reset".to_owned()] {
        let seen = machine.console.wait(mark, LIMIT, |line| line.text.contains(&said).then_some(()))?;
        seen.with_context(|| format!("the shim does not say: {said}"))?;
    }
    ensure!(mapped(&machine.console, domain)? == 0, "grants of {name} are still mapped");
    let after = Order::of(machine)?;
    ensure!(before.has_not_grown(&after), "it was {before:#?}, it is {after:#?}");
    Ok(())
}
