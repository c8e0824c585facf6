// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests end. Xen does not create a dom0less domain again. The drivers do not reset the devices, so the
//! supervisor does that when Xen reports the end of the domain.

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::{GUEST_A, GUEST_B, Machine};

use crate::LIMIT;
use crate::life::{Snapshot, Transfers};
use crate::outputs::{LED, RELAY, expect, hold};
use crate::rebind::mapped;

pub(crate) fn guest_b_powers_off(machine: &Machine) -> Result<()> {
    // No transfer of the other guest may fail.
    let transfers = Transfers::begin(machine, &machine.guest_a, "0x50", 100)?;
    drives(machine, &machine.guest_b, RELAY)?;
    ends(machine, &machine.guest_b, GUEST_B, "guest-b", "sleep 1; poweroff -f", "powered off")?;
    expect(machine, RELAY, 1, "after guest-b has ended, whose relay has `safe = \"stay\"`")?;
    let errors = transfers.finish(LIMIT)?;
    ensure!(errors == 0, "{errors} transfers of the other guest failed");
    Ok(())
}

pub(crate) fn guest_a_panics(machine: &Machine) -> Result<()> {
    // The kernel panics when no memory is left, and reboots (`panic=1` in its command line).
    let eat = "echo 1 >/proc/sys/vm/panic_on_oom; tail /dev/zero";
    drives(machine, &machine.guest_a, LED)?;
    ends(machine, &machine.guest_a, GUEST_A, "guest-a", eat, "asked for a reboot")?;
    expect(machine, LED, 0, "after guest-a has ended, whose led has `safe = 0`")
}

/// Has a guest drive 1 on its first line, which is `line` of the board, until the guest ends.
fn drives(machine: &Machine, guest: &Channel, line: u32) -> Result<()> {
    // Dropping it would request the agent to stop it, but the agent ends with the guest.
    std::mem::forget(hold(guest, 1)?);
    expect(machine, line, 1, "while a guest drives 1")
}

/// Ends a guest by a command in it. Checks that the shim reports `how` it ended, that its grants are
/// unmapped, and that no process has more resources than before.
fn ends(machine: &Machine, guest: &Channel, domain: u16, name: &str, command: &str, how: &str) -> Result<()> {
    let before = Snapshot::of(machine)?;
    ensure!(mapped(&machine.console, domain)? > 0, "no ring of {name} is mapped");
    let mark = machine.console.mark();
    // Dropping it would request the agent to stop it, but the agent ends with the guest.
    std::mem::forget(guest.start(&["sh", "-c", command])?);
    for text in [format!("{name}: has {how}; its devices are reset"), "all devices are reset".to_owned()] {
        let seen = machine.console.wait(mark, LIMIT, |line| line.text.contains(&text).then_some(()))?;
        seen.with_context(|| format!("the shim has not printed: {text}"))?;
    }
    ensure!(mapped(&machine.console, domain)? == 0, "grants of {name} are still mapped");
    let after = Snapshot::of(machine)?;
    ensure!(before.has_not_grown(&after), "resources before: {before:#?}, after: {after:#?}");
    Ok(())
}
