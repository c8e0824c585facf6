// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lists the processes of shim and backends with their resources: a line of `name=value` for each process.
//! [`crate::host::census`] compares two lists to find ended processes and leaks.

use std::fs::{read_dir, read_link, read_to_string};
use std::path::Path;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::arguments::Failure;

/// The programs whose processes are listed.
const PROGRAMS: [&str; 2] = ["backend", "xen-frontend-shim"];

pub(super) fn census() -> Result<(), Failure> {
    for entry in read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok())
            && let Some(line) = process(pid)
        {
            println!("{line}");
        }
    }
    Ok(())
}

/// Returns the line of a process, or [`None`] if it runs another program or has ended.
fn process(pid: i32) -> Option<String> {
    let place = Path::new("/proc").join(pid.to_string());
    let program = read_link(place.join("exe")).ok()?;
    let program = program.file_name()?.to_str()?;
    if !PROGRAMS.contains(&program) {
        return None;
    }
    let status = read_to_string(place.join("status")).ok()?;
    let field = |name: &str| -> Option<&str> {
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
    };
    let descriptors = read_dir(place.join("fd")).ok()?.count();
    let (threads, resident) = (field("Threads:")?, field("VmRSS:")?);
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).ok()?;
    let used = clock_gettime(clock).ok()?;
    let nanoseconds = i128::from(used.tv_sec()) * 1_000_000_000 + i128::from(used.tv_nsec());
    // The command line of a backend names its device, that of a worker its guest.
    let command = read_to_string(place.join("cmdline")).ok()?.replace('\0', " ");
    Some(format!(
        "pid={pid} program={program} descriptors={descriptors} threads={threads} resident={resident} \
         nanoseconds={nanoseconds} command={}",
        command.trim_end()
    ))
}

/// Prints a line for each thread of each program: its number, the program and the command line.
pub(super) fn threads() -> Result<(), Failure> {
    for entry in read_dir("/proc")? {
        let place = entry?.path();
        // Fails for entries that are not processes, and for a process that has ended.
        let Ok(program) = read_link(place.join("exe")) else { continue };
        let program = program.file_name().and_then(|name| name.to_str()).unwrap_or("?");
        let command = read_to_string(place.join("cmdline")).unwrap_or_default().replace('\0', " ");
        let Ok(threads) = read_dir(place.join("task")) else { continue };
        for thread in threads {
            let thread = thread?.file_name();
            println!("thread={} program={program} command={}", thread.display(), command.trim_end());
        }
    }
    Ok(())
}
