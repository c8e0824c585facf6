// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mistakes in a configuration that was written or changed by hand. The image builder writes none of them.

mod program;

use std::collections::HashSet;
use std::hash::Hash;

use super::{Finding, Paths};
use shim_config::{Backend, Config, Device, Guest, INTERRUPTS, WINDOW_SIZE, WINDOWS};

pub(super) fn check(config: &Config, paths: &Paths) -> Vec<Finding> {
    let mut findings = vec![domains(config), users(config)];
    for guest in &config.guest {
        findings.push(windows(guest));
        findings.push(interrupts(guest));
        findings.extend(guest.device.iter().map(|device| backend(guest, device, paths)));
    }
    findings
}

/// The values that occur more than once, each once.
fn repeated<T: Copy + Eq + Hash>(values: impl Iterator<Item = T>) -> Vec<T> {
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    values.filter(|value| !seen.insert(*value) && twice.insert(*value)).collect()
}

fn domains(config: &Config) -> Finding {
    const WHAT: &str = "guests";
    if config.guest.is_empty() {
        return Finding::missing(
            WHAT,
            "the configuration has none: add a [[guest]], or build it from a manifest",
        );
    }
    let twice = repeated(config.guest.iter().map(|guest| guest.domid));
    let complaints =
        twice.iter().map(|domid| format!("domid {domid} is given to several of them: each is one domain"));
    let own = config.guest.iter().filter(|guest| guest.domid == config.domid).map(own);
    Finding::of(WHAT, &complaints.chain(own).collect::<Vec<_>>())
}

/// The complaint about a guest with the domid of the driver domain: Xen passes no accesses of a domain to
/// itself.
fn own(guest: &Guest) -> String {
    let Guest { name, domid, .. } = guest;
    format!(
        "{name} has domid {domid}, and so has the driver domain itself (`domid` at the top): use the \
         position of each among the domains of the host device tree, counted from 1"
    )
}

fn users(config: &Config) -> Finding {
    const WHAT: &str = "users";
    let uids = config.guest.iter().filter_map(|guest| guest.user).map(confinement::User::uid);
    let shared: Vec<_> = repeated(uids)
        .iter()
        .map(|uid| format!("user {uid} serves several guests: give each a `user` of its own"))
        .collect();
    if !shared.is_empty() {
        return Finding::missing(WHAT, shared.join("; "));
    }
    let without: Vec<_> =
        config.guest.iter().filter(|guest| guest.user.is_none()).map(|guest| guest.name.as_str()).collect();
    if without.is_empty() {
        return Finding::ok(WHAT);
    }
    Finding::weak(
        WHAT,
        format!("the processes of {} run as root: add `user = \"UID:GID\"` to it", without.join(" and ")),
    )
}

fn windows(guest: &Guest) -> Finding {
    let mut complaints = Vec::new();
    for device in &guest.device {
        let (name, base) = (&device.name, device.base);
        if !WINDOWS.contains(&base) || base % WINDOW_SIZE != 0 {
            complaints.push(format!(
                "{name} is at {base:#x}: use a multiple of {WINDOW_SIZE:#x} from {:#x} to below {:#x}, which \
                 Xen reserves for virtio",
                WINDOWS.start, WINDOWS.end
            ));
        }
    }
    for base in repeated(guest.device.iter().map(|device| device.base)) {
        complaints.push(format!("several devices are at {base:#x}"));
    }
    Finding::of(format!("{}: windows", guest.name), &complaints)
}

fn interrupts(guest: &Guest) -> Finding {
    let mut complaints = Vec::new();
    for device in guest.device.iter().filter(|device| !INTERRUPTS.contains(&device.irq)) {
        let (name, irq, first, last) = (&device.name, device.irq, INTERRUPTS.start(), INTERRUPTS.end());
        complaints.push(format!("{name} has {irq}: Xen keeps {first} to {last} for virtio"));
    }
    for irq in repeated(guest.device.iter().map(|device| device.irq)) {
        complaints.push(format!("several devices have {irq}"));
    }
    Finding::of(format!("{}: interrupts", guest.name), &complaints)
}

fn backend(guest: &Guest, device: &Device, paths: &Paths) -> Finding {
    let what = format!("{}: backend of {}", guest.name, device.name);
    match &device.backend {
        Backend::Program(program) => program::check(&what, program, paths),
        Backend::Socket(path) if paths.path(path).exists() => Finding::ok(what),
        Backend::Socket(path) if device.optional => Finding::weak(
            what,
            format!(
                "there is no socket {}: the guest starts without the device until a daemon listens there",
                path.display()
            ),
        ),
        Backend::Socket(path) => Finding::missing(
            what,
            format!("there is no socket {}: start the daemon that listens there", path.display()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, fake, lines};
    use super::*;
    use shim_config::Program;

    fn run(words: &[&str]) -> Backend {
        Backend::Program(Program::new(words.iter().map(|&word| word.to_owned()).collect()))
    }

    /// The findings about the sample configuration after `change`.
    fn complaint(change: impl Fn(&mut Config)) -> String {
        let (_directory, paths) = fake();
        let mut config = config();
        change(&mut config);
        lines(check(&config, &paths).iter().filter(|finding| !finding.is_ok()))
    }

    #[test]
    fn configuration_of_the_image_builder_has_no_findings() {
        assert_eq!(complaint(|_| ()), "");
    }

    #[test]
    fn each_mistake_is_one_line_with_the_remedy() {
        type Change = fn(&mut Config);
        let cases: &[(Change, &str)] = &[
            (|config| config.guest.clear(), "missing  guests: the configuration has none: add a [[guest]]"),
            (|config| config.guest[1].domid = 2, "missing  guests: domid 2 is given to several"),
            (
                |config| config.guest[1].domid = config.domid,
                "missing  guests: guest-b has domid 1, and so has the driver domain itself (`domid` at the \
                 top): ",
            ),
            (
                |config| config.guest[1].user = config.guest[0].user,
                "missing  users: user 10002 serves several",
            ),
            (|config| config.guest[1].user = None, "weak     users: the processes of guest-b run as root"),
            (
                |config| config.guest[0].device[0].base = 0x4000_0000,
                "missing  guest-a: windows: i2c0 is at 0x40000000",
            ),
            (
                |config| config.guest[0].device[0].base = 0x200_0100,
                "missing  guest-a: windows: i2c0 is at 0x2000100",
            ),
            (|config| config.guest[0].device[0].base = 0x200_0200, "several devices are at 0x2000200"),
            (
                |config| config.guest[0].device[0].irq = 44,
                "guest-a: interrupts: i2c0 has 44: Xen keeps 33 to 43",
            ),
            (|config| config.guest[0].device[0].irq = 34, "several devices have 34"),
            (
                |config| config.guest[0].device[0].backend = run(&["/no/such", "{fd}"]),
                "there is no /no/such: install it",
            ),
            (
                |config| config.guest[0].device[0].backend = run(&["no-such", "{fd}"]),
                "there is no no-such: install it",
            ),
            (
                |config| config.guest[0].device[0].backend = run(&["/dev/xen/evtchn", "{fd}"]),
                "/dev/xen/evtchn is no program: chmod +x it",
            ),
            (|config| config.guest[0].device[0].backend = run(&[]), "its `command` is empty"),
            (
                |config| config.guest[0].device[0].backend = Backend::Socket("/run/nobody".into()),
                "there is no socket /run/nobody: start the daemon",
            ),
        ];
        for (change, expected) in cases {
            let complaint = complaint(change);
            assert!(
                complaint.contains(expected) && complaint.lines().count() == 1,
                "{expected}: {complaint}"
            );
        }
    }
}
