// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The processes of the driver domain with their resources, before and after an action: no process was
//! replaced, and nothing leaks. The agent counts the processes (its command `census`), Xen the grants and
//! event channels.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::channel::Channel;
use super::console::Console;
use super::{event_channels, grants};

const LIMIT: Duration = Duration::from_secs(60);

/// Resident memory may differ by so many KiB: the stacks and the heap of a process keep the pages that they
/// once needed. What leaks at every transfer or reset would be far beyond after some thousand of them.
pub const RESIDENT_SLACK: u64 = 256;

/// One process of the shim or of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The program that it runs.
    pub program: String,
    /// How it was started.
    pub command: String,
    /// How many descriptors it has open.
    pub descriptors: u64,
    /// How many threads it has.
    pub threads: u64,
    /// Its resident memory, in KiB.
    pub resident: u64,
    /// The processor time that it has used.
    pub nanoseconds: u64,
}

impl Process {
    /// Reads a line of `agent census`.
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

/// The processes of the shim and the backends, by their numbers.
///
/// # Errors
/// If the agent does not list them.
pub fn processes(driver_domain: &Channel) -> Result<BTreeMap<u32, Process>> {
    let text = driver_domain.check(&["agent", "census"], LIMIT)?;
    let read = |line: &str| {
        let process = Process::parse(line).with_context(|| format!("no process: {line}"))?;
        Ok((process.pid, process))
    };
    text.lines().map(read).collect()
}

/// All that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// The processes, by their numbers.
    pub processes: BTreeMap<u32, Process>,
    /// How many grants of each domain are mapped.
    pub grants: BTreeMap<u16, usize>,
    /// How many event channels each domain has.
    pub event_channels: BTreeMap<u16, usize>,
}

impl Census {
    /// Counts.
    ///
    /// # Errors
    /// If the agent or Xen does not say.
    pub fn take(driver_domain: &Channel, console: &Console) -> Result<Self> {
        Ok(Self {
            processes: processes(driver_domain)?,
            grants: grants::mapped(console)?,
            event_channels: event_channels::open(console)?,
        })
    }

    /// Fails unless all is in `later` as it is here, with all the differences.
    ///
    /// # Errors
    /// If something differs.
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
        ensure!(differences.is_empty(), "the driver domain is not as it was:\n{}", differences.join("\n"));
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
    fn lines_of_the_agent_are_read() {
        let process = Process::parse(LINE).unwrap();
        assert_eq!((process.pid, process.descriptors, process.threads), (31, 12, 2));
        assert_eq!((process.resident, process.nanoseconds), (1440, 5_000_000_000));
        assert_eq!((&*process.program, &*process.command), ("backend", "/usr/bin/backend i2c --fd=3"));
        assert_eq!(Process::parse("agent: no such tool"), None);
    }

    #[test]
    fn only_time_and_a_little_memory_may_change() {
        let mut later = census();
        for process in later.processes.values_mut() {
            process.nanoseconds += 1;
            process.resident += RESIDENT_SLACK;
        }
        census().require_unchanged(&later).unwrap();
    }

    #[test]
    fn every_difference_is_told() {
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
