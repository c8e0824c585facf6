// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What scenarios about dying processes have in common: whom to kill, and how to tell that everything is as
//! it was.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::census::{self, Census, Process};
use e2e::host::channel::{Background, Channel};
use e2e::host::machine::{GUEST_A, GUEST_B, Machine};
use e2e::host::process::wait_until;
use e2e::request::{End, Output};

use crate::LIMIT;

/// How long everything may take to be as it was. A back-off is at most 2 s, and the machine may be busy.
const RECOVERY: Duration = Duration::from_secs(60);

/// A process that is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Victim {
    /// The supervisor, of which there is one.
    Supervisor,
    /// The worker of a guest.
    Worker(&'static str),
    /// The backend of a guest's device.
    Backend(&'static str, &'static str),
}

impl Victim {
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

    /// Its process.
    pub(crate) fn pid(self, machine: &Machine) -> Result<u32> {
        self.find(machine).map(|process| process.pid)
    }

    /// Sends it a signal. Returns the process.
    pub(crate) fn signal(self, machine: &Machine, signal: &str) -> Result<Process> {
        let process = self.find(machine)?;
        machine.driver_domain.check(&["sh", "-c", &format!("kill -{signal} {}", process.pid)], LIMIT)?;
        Ok(process)
    }

    /// Sends it a signal that ends it, and waits until another one is in its place.
    pub(crate) fn end(self, machine: &Machine, signal: &str) -> Result<()> {
        let before = self.signal(machine, signal)?;
        wait_until(&format!("another {self:?}"), RECOVERY, || {
            let now = census::processes(&machine.driver_domain)?;
            let another = now.values().find(|process| self.is(process) && process.pid != before.pid);
            Ok(another.map(drop))
        })
    }
}

/// Who there is and what is held, without the numbers of processes, which change when they are replaced.
#[derive(Debug)]
pub(crate) struct Order {
    /// How many processes, descriptors and threads there are of each command.
    processes: BTreeMap<String, (u64, u64, u64)>,
    grants: BTreeMap<u16, usize>,
    event_channels: BTreeMap<u16, usize>,
    /// The ioreq servers of each guest.
    servers: Vec<String>,
}

impl Order {
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

    /// Whether the same processes are there later, and none of them has more descriptors or threads.
    pub(crate) fn has_not_grown(&self, later: &Self) -> bool {
        let same = |(before, now): (&(u64, u64, u64), &(u64, u64, u64))| {
            before.0 == now.0 && before.1 >= now.1 && before.2 >= now.2
        };
        self.processes.keys().eq(later.processes.keys())
            && self.processes.values().zip(later.processes.values()).all(same)
    }

    /// What has to be the same to the last descriptor: all but the processes that serve lines. Such a process
    /// may hold less later, since its predecessor may have kept a line.
    fn exact(&self) -> impl PartialEq {
        let is_exact = |(command, _): &(&String, &(u64, u64, u64))| !command.contains("backend gpio ");
        let processes: Vec<_> = self.processes.iter().filter(is_exact).map(|(_, held)| *held).collect();
        (processes, self.grants.clone(), self.event_channels.clone(), self.servers.clone())
    }

    /// Waits until everything is as it was.
    pub(crate) fn restored(&self, machine: &Machine) -> Result<()> {
        let mut last = None;
        let same = wait_until("all is as it was", RECOVERY, || {
            let now = Self::of(machine)?;
            let same = self.has_not_grown(&now) && self.exact() == now.exact();
            last = Some(now);
            Ok(same.then_some(()))
        });
        same.with_context(|| format!("it was {self:#?}, it is {last:#?}"))
    }
}

/// Transfers of a guest that go on while something happens, each of which is checked.
pub(crate) struct Transfers<'a> {
    background: Background<'a>,
}

impl<'a> Transfers<'a> {
    /// Begins with `rounds` of two transfers each, and waits until the first have arrived on the bus.
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

    /// Waits for the end, and returns how many failed. None of the others may have gone wrong.
    pub(crate) fn finish(self, limit: Duration) -> Result<u32> {
        let output = self.background.look_until(limit, |_| false)?;
        let (text, said) = (output.text(), output.error_text());
        ensure!(matches!(output, Output { end: End::Exited(0), .. }), "{text} {said}");
        let value = |name: &str| -> Result<u32> {
            let word = text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            Ok(word.with_context(|| format!("no {name}: {text}"))?.parse()?)
        };
        ensure!(value("differences")? == 0, "{text} {said}");
        value("errors")
    }
}

/// One transfer of each device of both guests.
pub(crate) fn devices_work(machine: &Machine) -> Result<()> {
    for (guest, transfer) in
        [(&machine.guest_a, ["w0x50:00", "r0x50:1"]), (&machine.guest_b, ["w0x68:08", "r0x68:1"])]
    {
        guest.check(&[&["agent", "i2c", "0"], transfer.as_slice()].concat(), LIMIT)?;
        guest.check(&["agent", "gpio-get", "gpiochip0", "1"], LIMIT)?;
    }
    Ok(())
}
