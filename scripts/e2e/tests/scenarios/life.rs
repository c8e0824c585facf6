// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Shared by the scenarios that end processes: the processes, and a comparison of all resources before and
//! after.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::census::{self, Census, Process};
use e2e::host::channel::{Background, Channel};
use e2e::host::machine::{GUEST_A, GUEST_B, Machine};
use e2e::host::process::wait_until;
use e2e::request::{End, Output};

use crate::LIMIT;

/// The limit for the former state to be restored. A back-off is at most 2 s, and the machine may be busy.
const RECOVERY: Duration = Duration::from_secs(60);

/// A process of the appliance, by its role.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// The supervisor.
    Supervisor,
    /// The worker of a guest.
    Worker(&'static str),
    /// The backend of a guest's device.
    Backend(&'static str, &'static str),
}

impl Role {
    fn is(self, process: &Process) -> bool {
        let (program, command) = (process.program.as_str(), process.command.as_str());
        match self {
            Self::Supervisor => program == "xen-frontend-shim" && command.contains(" run "),
            Self::Worker(guest) => {
                program == "xen-frontend-shim" && command.contains("worker") && command.contains(guest)
            }
            Self::Backend(guest, device) => {
                program == "backend" && command.starts_with(&format!("{guest}/{device}:"))
            }
        }
    }

    fn find(self, machine: &Machine) -> Result<Process> {
        let processes = census::processes(&machine.driver_domain)?;
        let found = processes.values().find(|process| self.is(process)).cloned();
        found.with_context(|| format!("there is no {self:?} among {processes:?}"))
    }

    /// Returns its process ID.
    pub(crate) fn pid(self, machine: &Machine) -> Result<u32> {
        self.find(machine).map(|process| process.pid)
    }

    /// Sends it a signal, and returns the process.
    pub(crate) fn signal(self, machine: &Machine, signal: &str) -> Result<Process> {
        let process = self.find(machine)?;
        machine.driver_domain.check(&["sh", "-c", &format!("kill -{signal} {}", process.pid)], LIMIT)?;
        Ok(process)
    }

    /// Sends it a signal that ends it, and waits for the process that replaces it.
    pub(crate) fn end(self, machine: &Machine, signal: &str) -> Result<()> {
        let before = self.signal(machine, signal)?;
        wait_until(&format!("another {self:?}"), RECOVERY, || {
            let now = census::processes(&machine.driver_domain)?;
            let another = now.values().find(|process| self.is(process) && process.pid != before.pid);
            Ok(another.map(drop))
        })
    }
}

/// The processes of the driver domain and their resources, without process IDs, which change when processes
/// are replaced.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The number of processes, descriptors and threads of each command line.
    processes: BTreeMap<String, (u64, u64, u64)>,
    grants: BTreeMap<u16, usize>,
    event_channels: BTreeMap<u16, usize>,
    /// The ioreq servers of each guest.
    servers: Vec<String>,
}

impl Snapshot {
    /// Takes a snapshot of the running machine.
    pub(crate) fn of(machine: &Machine) -> Result<Self> {
        let Census { processes: all, grants, event_channels } =
            Census::take(&machine.driver_domain, &machine.console)?;
        let mut processes: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        for process in all.into_values() {
            let (count, descriptors, threads) = processes.entry(process.command).or_default();
            *count += 1;
            *descriptors += process.descriptors;
            *threads += process.threads;
        }
        let servers = |domain: u16| {
            machine.driver_domain.check(&["agent", "ioreq-servers", &domain.to_string()], LIMIT)
        };
        Ok(Self { processes, grants, event_channels, servers: vec![servers(GUEST_A)?, servers(GUEST_B)?] })
    }

    /// Returns whether `later` has the same processes, none of them with more descriptors or threads.
    pub(crate) fn has_not_grown(&self, later: &Self) -> bool {
        let same = |(before, now): (&(u64, u64, u64), &(u64, u64, u64))| {
            before.0 == now.0 && before.1 >= now.1 && before.2 >= now.2
        };
        self.processes.keys().eq(later.processes.keys())
            && self.processes.values().zip(later.processes.values()).all(same)
    }

    /// Returns what has to be equal later. That excludes the GPIO backends: a new one may have fewer
    /// descriptors, since its predecessor may have kept a line.
    fn exact(&self) -> impl PartialEq {
        let is_exact = |(command, _): &(&String, &(u64, u64, u64))| !command.contains("backend gpio ");
        let processes: Vec<_> = self.processes.iter().filter(is_exact).map(|(_, held)| *held).collect();
        (processes, self.grants.clone(), self.event_channels.clone(), self.servers.clone())
    }

    /// Waits until processes and resources are as in this snapshot.
    pub(crate) fn wait_until_restored(&self, machine: &Machine) -> Result<()> {
        let mut last = None;
        let same = wait_until("processes and resources are as before", RECOVERY, || {
            let now = Self::of(machine)?;
            let same = self.has_not_grown(&now) && self.exact() == now.exact();
            last = Some(now);
            Ok(same.then_some(()))
        });
        same.with_context(|| format!("before: {self:#?}, now: {last:#?}"))
    }
}

/// Transfers of a guest in the background, each of which is checked.
pub(crate) struct Transfers<'a> {
    background: Background<'a>,
}

impl<'a> Transfers<'a> {
    /// Starts `rounds` of two transfers each, and waits until the first are on the bus.
    pub(crate) fn begin(
        machine: &'a Machine,
        guest: &'a Channel,
        address: &str,
        rounds: u32,
    ) -> Result<Self> {
        let mark = machine.i2c.mark()?;
        let command = ["agent", "i2c-stress", "0", address, "0x20", "8", &rounds.to_string()];
        let background = guest.start(&command)?;
        wait_until("transfers", LIMIT, || Ok((machine.i2c.mark()? > mark + 8).then_some(())))?;
        Ok(Self { background })
    }

    /// Waits for the end, and returns the number of failed transfers.
    ///
    /// # Errors
    /// Returns an error if a successful transfer had wrong data, or the program failed.
    pub(crate) fn finish(self, limit: Duration) -> Result<u32> {
        let output = self.background.look_until(limit, |_| false)?;
        let (text, errors) = (output.text(), output.error_text());
        ensure!(matches!(output, Output { end: End::Exited(0), .. }), "{text} {errors}");
        let value = |name: &str| -> Result<u32> {
            let word = text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            Ok(word.with_context(|| format!("no {name}: {text}"))?.parse()?)
        };
        ensure!(value("differences")? == 0, "{text} {errors}");
        value("errors")
    }
}

/// Checks one transfer of each device of both guests.
pub(crate) fn devices_work(machine: &Machine) -> Result<()> {
    for (guest, transfer) in
        [(&machine.guest_a, ["w0x50:00", "r0x50:1"]), (&machine.guest_b, ["w0x68:08", "r0x68:1"])]
    {
        guest.check(&[&["agent", "i2c", "0"], transfer.as_slice()].concat(), LIMIT)?;
        guest.check(&["agent", "gpio-get", "gpiochip0", "1"], LIMIT)?;
    }
    Ok(())
}
