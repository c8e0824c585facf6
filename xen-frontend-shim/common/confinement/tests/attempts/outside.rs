// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The capabilities and limits that the kernel reports for a confined process.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use libtest_mimic::Failed;

use crate::command;
use crate::subject::Subject;

/// The value of "unlimited".
const NONE: u64 = u64::MAX;

/// The remaining rights of a process. Those that are `None` are unchanged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) subject: Subject,
    /// The capabilities.
    capabilities: u64,
    /// The bounding set of capabilities.
    bounding: Option<u64>,
    descriptors: u64,
    processes: Option<u64>,
    address_space: Option<u64>,
    data: Option<u64>,
    file_size: Option<u64>,
}

/// The rights of a backend whose guest's memory is mapped.
const BACKEND: Left = Left {
    subject: Subject::I2c,
    capabilities: 0,
    bounding: Some(0),
    descriptors: 256,
    processes: Some(0),
    address_space: None,
    data: Some(32 << 20),
    file_size: Some(1 << 20),
};

/// `CAP_KILL`, `CAP_SETGID`, `CAP_SETUID` and `CAP_SETPCAP`.
pub(crate) const OF_SUPERVISOR: u64 = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;

pub(crate) const LEFT: &[Left] = &[
    BACKEND,
    Left { subject: Subject::Gpio, ..BACKEND },
    Left { subject: Subject::Simulated, file_size: None, ..BACKEND },
    Left { subject: Subject::I2cOnXen, address_space: Some(256 << 20), ..BACKEND },
    // It starts as an unprivileged user, which must not change the bounding set.
    Left {
        subject: Subject::Worker,
        bounding: None,
        descriptors: 512,
        processes: None,
        address_space: Some(256 << 20),
        ..BACKEND
    },
    Left { subject: Subject::Program, processes: Some(64), data: Some(64 << 20), ..BACKEND },
    Left {
        subject: Subject::Supervisor,
        capabilities: OF_SUPERVISOR,
        bounding: Some(OF_SUPERVISOR),
        descriptors: 4096,
        processes: None,
        data: None,
        file_size: None,
        ..BACKEND
    },
];

impl Left {
    /// Compares the rights with what the kernel reports.
    pub(crate) fn check(self) -> Result<(), Failed> {
        let directory = tempfile::tempdir()?;
        let mut command = command("wait", self.subject, directory.path())?;
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let seen = await_confinement(&mut child).and_then(|()| Ok(Seen::of(&child.id().to_string())?));
        // The process ends at the end of its input.
        drop(child.stdin.take());
        child.wait()?;
        let (seen, before) = (seen?, Seen::of("self")?);
        for (what, seen, expected) in [
            ("NoNewPrivs", seen.status("NoNewPrivs")?, 1),
            ("CapInh", seen.status("CapInh")?, 0),
            ("CapPrm", seen.status("CapPrm")?, self.capabilities),
            ("CapEff", seen.status("CapEff")?, self.capabilities),
            ("CapAmb", seen.status("CapAmb")?, 0),
            ("CapBnd", seen.status("CapBnd")?, self.bounding.map_or_else(|| before.status("CapBnd"), Ok)?),
        ] {
            equal(what, seen, expected)?;
        }
        for (what, limit) in [
            ("Max open files", Some(self.descriptors)),
            ("Max processes", self.processes),
            ("Max address space", self.address_space),
            ("Max data size", self.data),
            ("Max file size", self.file_size),
            ("Max core file size", Some(0)),
        ] {
            // A lower limit stays.
            let expected = before.limit(what)?.map(|before| before.min(limit.unwrap_or(NONE)));
            equal(what, seen.limit(what)?, expected)?;
        }
        Ok(())
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Result<(), Failed> {
    if seen == expected { Ok(()) } else { Err(format!("{what}: {seen:x?}, not {expected:x?}").into()) }
}

/// Waits until the process reports that it is confined.
fn await_confinement(child: &mut Child) -> Result<(), Failed> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    if line == "confined\n" {
        return Ok(());
    }
    let mut error = String::new();
    child.stderr.take().ok_or("no errors")?.read_to_string(&mut error)?;
    Err(error.into())
}

/// The status and limits of a process as the kernel reports them.
struct Seen {
    status: String,
    limits: String,
}

impl Seen {
    fn of(process: &str) -> std::io::Result<Self> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}"));
        Ok(Self { status: read("status")?, limits: read("limits")? })
    }

    /// A number of the status. All of them are hexadecimal or one digit.
    fn status(&self, name: &str) -> Result<u64, Failed> {
        let mut values = self.status.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        let value = values.next().ok_or_else(|| format!("no {name}"))?;
        Ok(u64::from_str_radix(value, 16)?)
    }

    /// The soft and the hard limit.
    fn limit(&self, name: &str) -> Result<[u64; 2], Failed> {
        let mut values = self.limits.lines().filter_map(|line| line.strip_prefix(name));
        let mut words = values.next().unwrap_or_default().split_whitespace();
        let mut number = || match words.next() {
            Some("unlimited") => Ok(NONE),
            word => word.unwrap_or_default().parse(),
        };
        Ok([number()?, number()?])
    }
}
