// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A reload removes a device that the guest does not use, and another reload adds it again: it works as
//! before. (The bare-metal guest can use it. Linux 6.12 cannot use a virtio device on grants after its
//! removal.)

use anyhow::{Context, Result, ensure};
use e2e::host::census::processes;
use e2e::host::machine::Machine;

use crate::LIMIT;

const CONFIG: &str = "/etc/xen-frontend-shim.toml";
const KEPT: &str = "/tmp/kept.toml";

pub(crate) fn removed_device_is_restored(machine: &Machine) -> Result<()> {
    let busybox =
        |command: &[&str]| machine.driver_domain.check(&[&["/bin/busybox"], command].concat(), LIMIT);
    let lines = |pattern: &str| -> Result<Vec<u32>> {
        let numbers = busybox(&["sed", "-n", &format!("/{pattern}/="), CONFIG])?;
        Ok(numbers.lines().map(str::parse).collect::<Result<_, _>>()?)
    };
    busybox(&["cp", CONFIG, KEPT])?;
    // The lines of the second device of the first guest, up to the second guest.
    let (devices, guests) = (lines(r"^\[\[guest.device\]\]")?, lines(r"^\[\[guest\]\]")?);
    let ([_, from, ..], [_, to, ..]) = (devices.as_slice(), guests.as_slice()) else {
        anyhow::bail!("unexpected configuration: devices in the lines {devices:?}, guests in {guests:?}");
    };
    busybox(&["sed", "-i", &format!("{from},{}d", to - 1), CONFIG])?;
    reload(machine, "bare: has 1 devices from now on")?;
    let worked = machine.guest_a.check(&["hostile", "works"], LIMIT);
    ensure!(worked.is_err(), "a removed device still works");
    busybox(&["cp", KEPT, CONFIG])?;
    reload(machine, "bare: has 2 devices from now on")?;
    crate::works(machine)
}

/// Makes the supervisor read its configuration again, and waits until it prints `what`.
fn reload(machine: &Machine, what: &str) -> Result<()> {
    let mark = machine.console.mark();
    let processes = processes(&machine.driver_domain)?;
    let supervisor = processes.values().find(|process| process.command.contains("xen-frontend-shim run "));
    let pid = supervisor.context("there is no supervisor")?.pid.to_string();
    machine.driver_domain.check(&["sh", "-c", &format!("kill -HUP {pid}")], LIMIT)?;
    let seen = machine.console.wait(mark, LIMIT, |line| line.text.contains(what).then_some(()))?;
    seen.with_context(|| format!("the supervisor has not printed: {what}")).map(drop)
}
