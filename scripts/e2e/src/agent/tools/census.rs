// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who there is of the shim and the backends, and what each holds: a line per process, `name=value` with
//! spaces between. Who compares two of them sees what has died and what leaks (see [`crate::host::census`]).

use std::fs::{read_dir, read_link, read_to_string};
use std::path::Path;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::arguments::Failure;

/// The programs that count.
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

/// The line of a process, unless it is another program, or has just ended.
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
    // By what it was started as, a backend says which device it serves, and a worker which guest.
    let command = read_to_string(place.join("cmdline")).ok()?.replace('\0', " ");
    Some(format!(
        "pid={pid} program={program} descriptors={descriptors} threads={threads} resident={resident} \
         nanoseconds={nanoseconds} command={}",
        command.trim_end()
    ))
}

/// A line for each thread of each program: its number, that of its process, the program and its arguments.
pub(super) fn threads() -> Result<(), Failure> {
    for entry in read_dir("/proc")? {
        let place = entry?.path();
        // A process may just have ended; what is no process has no program.
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
