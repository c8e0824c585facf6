// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The confinement of the driver domain's processes, as its kernel reports it. The tests of crate
//! `confinement` try what a confined process must not do.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::host::machine::{GUEST_A, Machine};
use e2e::request::End;

use crate::LIMIT;

const SHIM: &str = "/usr/bin/xen-frontend-shim";
const CONFIG: &str = "/etc/xen-frontend-shim.toml";

/// Prints identity, capabilities, limits and descriptors of each process. The shell has these programs built
/// in.
const PROCESSES: &str = r#"
for process in /proc/[0-9]*; do
    [ "$(readlink $process/exe)" ] || continue
    echo "process ${process#/proc/}"
    echo "command: $(tr '\0' ' ' <$process/cmdline)"
    grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' $process/status
    grep -E '^Max (open files|core file size|data size)' $process/limits
    echo "output: $(grep ^flags $process/fdinfo/2)"
    for descriptor in $process/fd/*; do echo "opens: $(readlink $descriptor)"; done
done 2>/dev/null"#;

/// A process of the appliance.
#[derive(Debug, Default)]
struct Process {
    id: String,
    /// The lines of [`PROCESSES`], by the word before the colon.
    facts: BTreeMap<String, String>,
    limits: String,
    opens: Vec<String>,
}

impl Process {
    fn fact(&self, name: &str) -> &str {
        self.facts.get(name).map_or("", String::as_str)
    }

    fn command(&self) -> &str {
        self.fact("command")
    }

    fn is_worker(&self) -> bool {
        self.command().contains(" worker ")
    }

    fn is_backend(&self) -> bool {
        self.command().contains("/usr/bin/backend ")
    }

    fn is_supervisor(&self) -> bool {
        self.command().starts_with(&format!("{SHIM} run "))
    }

    /// Returns the number of its descriptors of device nodes whose path begins with `path`.
    fn count(&self, path: &str) -> usize {
        self.opens.iter().filter(|open| open.starts_with(path)).count()
    }

    /// Adds a line of [`PROCESSES`].
    fn take(&mut self, line: &str) {
        match line.split_once(':') {
            _ if line.starts_with("Max ") => {
                self.limits += &line.split_whitespace().collect::<Vec<_>>().join(" ");
                self.limits += "\n";
            }
            Some(("opens", path)) => self.opens.push(path.trim().to_owned()),
            Some((name, value)) => {
                self.facts.insert(name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            None => {}
        }
    }
}

/// Returns the supervisor, the workers and the backends.
fn processes(machine: &Machine) -> Result<Vec<Process>> {
    let text = machine.driver_domain.check(&["sh", "-c", PROCESSES], LIMIT)?;
    let mut all: Vec<Process> = Vec::new();
    for line in text.lines() {
        if let Some(id) = line.strip_prefix("process ") {
            all.push(Process { id: id.to_owned(), ..Process::default() });
        } else if let Some(process) = all.last_mut() {
            process.take(line);
        }
    }
    all.retain(|process| process.is_supervisor() || process.is_worker() || process.is_backend());
    Ok(all)
}

/// Returns the users (real, effective, saved, file system) of the processes of a guest.
fn user(domid: u16) -> String {
    let uid = (10000 + domid).to_string();
    [uid.as_str(); 4].join(" ")
}

/// An empty set of capabilities.
const NOTHING: &str = "0000000000000000";

pub(crate) fn every_process_has_given_up_its_rights(machine: &Machine) -> Result<()> {
    let processes = processes(machine)?;
    let count = |kind: fn(&Process) -> bool| processes.iter().filter(|process| kind(process)).count();
    let counts = [count(Process::is_supervisor), count(Process::is_worker), count(Process::is_backend)];
    ensure!(counts == [1, 2, 4], "supervisor, workers and backends: {counts:?}, of {processes:?}");
    for process in &processes {
        let what = || format!("{} {}", process.id, process.command());
        let modes = [process.fact("NoNewPrivs"), process.fact("Seccomp")];
        ensure!(modes == ["1", "2"], "{}: no_new_privs and seccomp are {modes:?}", what());
        ensure!(process.limits.contains("Max core file size 0 0 "), "{}: {}", what(), process.limits);
        if !process.is_supervisor() {
            require_confined(process).with_context(what)?;
        }
    }
    let supervisor = processes.iter().find(|process| process.is_supervisor()).context("no supervisor")?;
    // CAP_KILL, CAP_SETGID, CAP_SETUID and CAP_SETPCAP: bits 5 to 8.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        ensure!(
            supervisor.fact(set) == "00000000000001e0",
            "the supervisor's {set} is {}",
            supervisor.fact(set)
        );
    }
    Ok(())
}

/// Checks users, groups, capabilities, limits and descriptors of a worker or a backend.
fn require_confined(process: &Process) -> Result<()> {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        ensure!(process.fact(set) == NOTHING, "its {set} is {}", process.fact(set));
    }
    let users: Vec<_> = [GUEST_A, GUEST_A + 1].map(user).to_vec();
    ensure!(users.iter().any(|user| user == process.fact("Uid")), "its users are {}", process.fact("Uid"));
    ensure!(process.fact("Uid") == process.fact("Gid"), "its groups are {}", process.fact("Gid"));
    ensure!(process.fact("Groups").is_empty(), "its other groups are {}", process.fact("Groups"));
    ensure!(process.limits.contains("Max data size 33554432 33554432 "), "{}", process.limits);
    // The last octal digit of the flags has the access mode, O_WRONLY: the process cannot read the console.
    ensure!(process.fact("output").ends_with('1'), "its standard error has {}", process.fact("output"));
    let (descriptors, privcmds) = if process.is_worker() { (512, 1) } else { (256, 0) };
    let limit = format!("Max open files {descriptors} {descriptors} ");
    ensure!(process.limits.contains(&limit), "{}", process.limits);
    ensure!(process.count("/dev/xen/privcmd") == privcmds, "it has {:?}", process.opens);
    if process.is_worker() {
        ensure!(process.count("/dev/i2c") + process.count("/dev/gpio") == 0, "it has {:?}", process.opens);
    } else {
        ensure!(process.count("/dev/xen/evtchn") == 0, "it has {:?}", process.opens);
        let hardware = process.count("/dev/i2c-") > 0 || process.count("/dev/gpiochip") > 0;
        ensure!(hardware, "it has no descriptor of its hardware: {:?}", process.opens);
    }
    Ok(())
}

/// The attempts with a descriptor of each node, and whether each succeeds for the guest to which the
/// descriptor is restricted.
const ATTEMPTS: [(&str, &[(&str, bool)]); 3] = [
    // The policy forbids foreign pages even of the own guest: it grants its pages.
    ("/dev/xen/privcmd", &[("call", true), ("map-foreign", false)]),
    ("/dev/xen/gntdev", &[("map", true), ("copy-from", true), ("copy-to", true), ("restrict", true)]),
    ("/dev/xen/evtchn", &[("bind", true), ("bind-static", false), ("bind-virq", false), ("notify", false)]),
];

/// Tries the descriptors of each worker and backend on both guests. A restriction is a property of the open
/// file, so the attempts use the open files of these processes.
pub(crate) fn a_process_reaches_its_own_guest_only(machine: &Machine) -> Result<()> {
    let processes = processes(machine)?;
    let domains = [GUEST_A, GUEST_A + 1];
    let mut tried = 0;
    for process in processes.iter().filter(|process| !process.is_supervisor()) {
        let own = domains.into_iter().find(|domain| process.fact("Uid") == user(*domain));
        let own = own.with_context(|| format!("the process does not run as a guest's user: {process:?}"))?;
        let [first, second] = domains.map(|domain| domain.to_string());
        let text = machine.driver_domain.check(&["agent", "borrow", &process.id, &first, &second], LIMIT)?;
        let mut expected = 0;
        for (node, attempts) in ATTEMPTS {
            for (attempt, of_own) in attempts {
                for domain in domains {
                    let (count, start) = (process.count(node), format!("{domain} {attempt}: "));
                    let outcomes: Vec<_> =
                        text.lines().filter_map(|line| line.strip_prefix(&start)).collect();
                    let done = outcomes.iter().filter(|outcome| **outcome == "done").count();
                    let should = if *of_own && domain == own { count } else { 0 };
                    ensure!(outcomes.len() == count && done == should, "{}:\n{text}", process.command());
                    expected += count;
                }
            }
        }
        ensure!(text.lines().count() == expected && expected > 0, "{}:\n{text}", process.command());
        require_reasons(&text).with_context(|| process.command().to_owned())?;
        tried += 1;
    }
    ensure!(tried == 6, "two workers and four backends: {processes:?}");
    Ok(())
}

/// Checks that each refusal has the error of the descriptor's restriction, not that of another check.
fn require_reasons(text: &str) -> Result<()> {
    let reason = |line: &str| match line.split([' ', ':']).nth(1)? {
        "call" | "map" | "copy-from" | "copy-to" => Some("Operation not permitted"),
        // The policy speaks for the own guest, and the restriction for the other.
        "map-foreign" => Some("ermi"),
        "restrict" => Some("Invalid argument"),
        "notify" => Some("not connected"),
        _ => Some("Permission denied"),
    };
    for line in text.lines().filter(|line| line.contains(": refused: ")) {
        let reason = reason(line).unwrap_or_default();
        ensure!(line.contains(reason), "not for the reason {reason:?}: {line}");
    }
    Ok(())
}

pub(crate) fn a_guests_user_opens_no_device(machine: &Machine) -> Result<()> {
    let list = "echo /dev/i2c-* /dev/gpiochip* /dev/xen/* /dev/mem /dev/console /run/xen-frontend-shim";
    let nodes = machine.driver_domain.check(&["sh", "-c", list], LIMIT)?;
    let nodes: Vec<&str> = nodes.split_whitespace().filter(|path| !path.contains('*')).collect();
    ensure!(nodes.len() >= 8, "fewer device nodes than expected: {nodes:?}");
    let user = (10000 + GUEST_A).to_string();
    let attempt = [&["agent", "open-as", &user], nodes.as_slice()].concat();
    let text = machine.driver_domain.check(&attempt, LIMIT)?;
    ensure!(text.lines().count() == nodes.len(), "not one line for each of {nodes:?}:\n{text}");
    ensure!(text.lines().all(|line| line.contains(": refused: ")), "not all were refused:\n{text}");
    // Root can open a node, so the user is the reason of the refusals above.
    let root = machine.driver_domain.check(&["agent", "open-as", "0", "/dev/xen/gntdev"], LIMIT)?;
    ensure!(root == "/dev/xen/gntdev: done", "root: {root}");
    Ok(())
}

pub(crate) fn check_finds_nothing_missing(machine: &Machine) -> Result<()> {
    const OWN: &str = "guest-b: backend of gpio: /usr/bin/backend, which confines itself";
    let text = machine.driver_domain.check(&[SHIM, "check"], LIMIT)?;
    let bad: Vec<&str> = text.lines().filter(|line| !line.starts_with("ok ")).collect();
    ensure!(bad.is_empty(), "{}", bad.join("\n"));
    for expected in ["/dev/xen/privcmd", "Landlock", "guest-a: domain 2", OWN] {
        ensure!(text.lines().any(|line| line.ends_with(expected)), "no line about {expected}: {text}");
    }
    Ok(())
}

pub(crate) fn check_lists_what_is_missing(machine: &Machine) -> Result<()> {
    let broken = "sed -e 's/^domid = 3/domid = 77/' -e 's,/usr/bin/backend,/usr/bin/no-backend,' \
                  -e 's/^irq = 33/irq = 99/'";
    let command = format!("{broken} {CONFIG} >/tmp/broken.toml && exec {SHIM} check /tmp/broken.toml");
    let output = machine.driver_domain.run(&["sh", "-c", &command], LIMIT)?;
    ensure!(output.end == End::Exited(1), "{:?}: {}", output.end, output.text());
    let text = output.text();
    let expected = [
        ("missing  guest-b: domain 77: no domain has the number 77", 1),
        ("there is no /usr/bin/no-backend: install it", 4),
        ("i2c0 has 99: Xen keeps 33 to 43 for virtio", 2),
    ];
    for (expected, times) in expected {
        let count = text.lines().filter(|line| line.contains(expected)).count();
        ensure!(count == times, "{expected}: {count} of {times} times in {text}");
    }
    ensure!(text.lines().filter(|line| line.starts_with("missing ")).count() == 7, "{text}");
    Ok(())
}
