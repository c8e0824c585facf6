// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Compares the processes of the driver domain and their resources before and after an action: none was
//! replaced, and none leaks. The agent lists the processes (its command `census`), Xen the mapped grants and
//! the event channels.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::channel::Channel;
use super::console::Console;
use super::{event_channels, grants};

const LIMIT: Duration = Duration::from_secs(60);

/// By how many KiB resident memory may grow: the stacks and the heap of a process keep pages that they needed
/// once. A leak in each transfer or reset exceeds this after some thousand of them.
pub const RESIDENT_SLACK: u64 = 256;

/// One process of the shim or of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process ID.
    pub pid: u32,
    /// The file name of its program.
    pub program: String,
    /// Its command line.
    pub command: String,
    /// The number of its open descriptors.
    pub descriptors: u64,
    /// The number of its threads.
    pub threads: u64,
    /// Its resident memory, in KiB.
    pub resident: u64,
    /// The processor time that it has used.
    pub nanoseconds: u64,
}

impl Process {
    /// Parses a line of `agent census`.
    fn parse(line: &str) -> Option<Self> {
        let (values, command) = line.split_once(" command=")?;
        let values: BTreeMap<&str, &str> =
            values.split(' ').filter_map(|pair| pair.split_once('=')).collect();
        let number = |name: &str| values.get(name)?.parse::<u64>().ok();
        Some(Self {
            pid: values.get("pid")?.parse().ok()?,
            program: (*values.get("program")?).to_owned(),
            command: command.to_owned(),
            descriptors: number("descriptors")?,
            threads: number("threads")?,
            resident: number("resident")?,
            nanoseconds: number("nanoseconds")?,
        })
    }
}

/// Returns the processes of shim and backends, by their process IDs.
///
/// # Errors
/// Returns an error if the agent does not list them.
pub fn processes(driver_domain: &Channel) -> Result<BTreeMap<u32, Process>> {
    let text = driver_domain.check(&["agent", "census"], LIMIT)?;
    let read = |line: &str| {
        let process =
            Process::parse(line).with_context(|| format!("not a line of `agent census`: {line}"))?;
        Ok((process.pid, process))
    };
    text.lines().map(read).collect()
}

/// The processes of the driver domain, and the grants and event channels of all domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// The processes, by their process IDs.
    pub processes: BTreeMap<u32, Process>,
    /// The number of mapped grants of each domain.
    pub grants: BTreeMap<u16, usize>,
    /// The number of event channels of each domain.
    pub event_channels: BTreeMap<u16, usize>,
}

impl Census {
    /// Takes a census of the running machine.
    ///
    /// # Errors
    /// Returns an error if the agent or Xen does not print what is counted.
    pub fn take(driver_domain: &Channel, console: &Console) -> Result<Self> {
        Ok(Self {
            processes: processes(driver_domain)?,
            grants: grants::mapped(console)?,
            event_channels: event_channels::open(console)?,
        })
    }

    /// Takes the resident memory of each process from `later`. A heap that has a limit has nearly reached it
    /// by then, and a leak continues.
    pub fn take_memory_of(&mut self, later: &Self) {
        for (pid, process) in &mut self.processes {
            if let Some(later) = later.processes.get(pid) {
                process.resident = process.resident.max(later.resident);
            }
        }
    }

    /// Checks that `later` equals this census, but for processor time and [`RESIDENT_SLACK`].
    ///
    /// # Errors
    /// Returns an error that lists all differences.
    pub fn require_unchanged(&self, later: &Self) -> Result<()> {
        let mut differences = Vec::new();
        for process in self.processes.values() {
            match later.processes.get(&process.pid) {
                Some(later) => differences.extend(difference(process, later)),
                None => differences.push(format!("{} {} is gone", process.pid, process.command)),
            }
        }
        let new = later.processes.values().filter(|process| !self.processes.contains_key(&process.pid));
        differences.extend(new.map(|process| format!("{} {} is new", process.pid, process.command)));
        for (what, before, after) in [
            ("mapped grants", &self.grants, &later.grants),
            ("event channels", &self.event_channels, &later.event_channels),
        ] {
            if before != after {
                differences.push(format!("{what} by domain: {before:?}, now {after:?}"));
            }
        }
        ensure!(differences.is_empty(), "the driver domain has changed:\n{}", differences.join("\n"));
        Ok(())
    }
}

fn difference(before: &Process, after: &Process) -> Option<String> {
    let same = before.command == after.command
        && before.descriptors == after.descriptors
        && before.threads == after.threads
        && after.resident <= before.resident + RESIDENT_SLACK;
    (!same).then(|| format!("{before:?} is now {after:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "pid=31 program=backend descriptors=12 threads=2 resident=1440 nanoseconds=5000000000 \
                        command=/usr/bin/backend i2c --fd=3";

    fn census() -> Census {
        let process = Process::parse(LINE).unwrap();
        let processes = BTreeMap::from([(process.pid, process)]);
        Census { processes, grants: [(2, 3)].into(), event_channels: [(1, 9), (2, 4)].into() }
    }

    #[test]
    fn lines_of_the_agent_are_parsed() {
        let process = Process::parse(LINE).unwrap();
        assert_eq!((process.pid, process.descriptors, process.threads), (31, 12, 2));
        assert_eq!((process.resident, process.nanoseconds), (1440, 5_000_000_000));
        assert_eq!((&*process.program, &*process.command), ("backend", "/usr/bin/backend i2c --fd=3"));
        assert_eq!(Process::parse("agent: no such tool"), None);
    }

    #[test]
    fn processor_time_and_a_little_memory_may_change() {
        let mut later = census();
        for process in later.processes.values_mut() {
            process.nanoseconds += 1;
            process.resident += RESIDENT_SLACK;
        }
        census().require_unchanged(&later).unwrap();
    }

    #[test]
    fn memory_of_a_later_census_replaces_memory_and_nothing_else() {
        let mut warm = census();
        for process in warm.processes.values_mut() {
            process.resident += RESIDENT_SLACK;
            process.threads += 1;
        }
        let mut before = census();
        before.take_memory_of(&warm);
        let mut later = census();
        later.processes.values_mut().for_each(|process| process.resident += 2 * RESIDENT_SLACK);
        before.require_unchanged(&later).unwrap();
        later.processes.values_mut().for_each(|process| process.resident += 1);
        before.require_unchanged(&later).unwrap_err();
    }

    #[test]
    fn each_other_difference_is_an_error() {
        let changes: [fn(&mut Census); 7] = [
            |census| census.processes.clear(),
            |census| {
                let other = Process { pid: 40, ..Process::parse(LINE).unwrap() };
                census.processes.insert(40, other);
            },
            |census| census.processes.values_mut().for_each(|process| process.descriptors += 1),
            |census| census.processes.values_mut().for_each(|process| process.threads -= 1),
            |census| census.processes.values_mut().for_each(|process| process.resident += RESIDENT_SLACK + 1),
            |census| _ = census.grants.insert(3, 1),
            |census| _ = census.event_channels.insert(1, 10),
        ];
        for change in changes {
            let mut later = census();
            change(&mut later);
            census().require_unchanged(&later).unwrap_err();
        }
    }
}
