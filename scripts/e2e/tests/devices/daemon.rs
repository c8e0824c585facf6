// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon of a device, and the guest's driver of it.

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::Machine;
use e2e::host::process::wait_until;

use crate::LIMIT;

const DRIVERS: &str = "/sys/bus/virtio/drivers";

/// The daemon of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Daemon {
    /// The device: `type` in the manifest.
    pub(crate) device: &'static str,
    /// The program.
    pub(crate) program: &'static str,
    /// Its user and group in the manifest.
    pub(crate) user: u32,
}

/// Runs a script in a domain.
pub(crate) fn script(domain: &Channel, text: &str) -> Result<String> {
    domain.check(&["sh", "-c", text], LIMIT)
}

impl Daemon {
    /// The process, if there is exactly one.
    fn find(self, machine: &Machine) -> Result<Option<String>> {
        // The name of a process has 15 characters.
        let program = self.program;
        let search = format!(
            "for p in /proc/[0-9]*; do readlink $p/exe | grep -q /{program}$ && echo ${{p#/proc/}}; done; \
             true"
        );
        let found = script(&machine.driver_domain, &search)?;
        let mut pids = found.lines();
        Ok(pids.next().filter(|_| pids.next().is_none()).map(str::to_owned))
    }

    /// The process.
    pub(crate) fn pid(self, machine: &Machine) -> Result<String> {
        self.find(machine)?.with_context(|| format!("{} does not run", self.program))
    }

    /// Kills the process, and waits until another one has mapped the rings.
    pub(crate) fn kill(self, machine: &Machine) -> Result<()> {
        let pid = self.pid(machine)?;
        script(&machine.driver_domain, &format!("kill -KILL {pid}"))?;
        self.wait_for_another(machine, &pid)
    }

    /// Waits until another process than `former` serves the device.
    pub(crate) fn wait_for_another(self, machine: &Machine, former: &str) -> Result<()> {
        wait_until("another daemon serves the device", LIMIT, || {
            Ok(self.find(machine)?.filter(|other| *other != former).map(drop))
        })
    }
}

/// The virtio device of a driver in the guest.
fn device(guest: &Channel, driver: &str) -> Result<String> {
    let listed = script(guest, &format!("cd {DRIVERS}/{driver} && ls -d virtio*"))?;
    let device = listed.trim();
    ensure!(!device.is_empty() && !device.contains('\n'), "{driver} has the devices {device:?}");
    Ok(device.to_owned())
}

/// Takes the device of a driver from it and gives it back.
pub(crate) fn bind_again(guest: &Channel, driver: &str) -> Result<()> {
    let device = device(guest, driver)?;
    script(guest, &format!("echo {device} >{DRIVERS}/{driver}/unbind"))?;
    script(guest, &format!("echo {device} >{DRIVERS}/{driver}/bind")).map(drop)
}
