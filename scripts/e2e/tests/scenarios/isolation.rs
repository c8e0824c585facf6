// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attempts of guest-b and of the driver domain at what they must not reach.

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::{GUEST_A, GUEST_B, Machine};
use serde_json::json;

use crate::LIMIT;
use crate::i2c::is_about;

const SENSOR: u16 = 0x48;
const EEPROM: u16 = 0x50;

/// Checks that a transfer fails and that no message to `address` is on the bus.
fn refused(machine: &Machine, guest: &Channel, messages: &[&str], address: u16) -> Result<()> {
    let mark = machine.i2c.mark()?;
    let command = [&["agent", "i2c", "0"], messages].concat();
    let output = guest.run(&command, LIMIT)?;
    ensure!(!output.succeeded(), "{messages:?} was carried out: {}", output.text());
    let entries = machine.i2c.since(mark)?;
    ensure!(
        !entries.iter().any(|entry| is_about(entry, address)),
        "{messages:?} on the bus: {}",
        json!(entries)
    );
    Ok(())
}

pub(crate) fn targets(machine: &Machine) -> Result<()> {
    let guest = &machine.guest_b;
    refused(machine, guest, &["w0x48:00", "r0x48:2"], SENSOR)?;
    refused(machine, guest, &["r0x48:2"], SENSOR)?;
    refused(machine, guest, &["w0x50:00ff"], EEPROM)?;
    // An address without a target fails, and guest-b's own target works: the adapter is in order.
    refused(machine, guest, &["r0x22:1"], 0x22)?;
    guest.check(&["agent", "i2c", "0", "w0x68:08", "r0x68:1"], LIMIT)?;
    Ok(())
}

pub(crate) fn second_message(machine: &Machine) -> Result<()> {
    let guest = &machine.guest_b;
    refused(machine, guest, &["w0x68:08", "r0x48:2"], SENSOR)?;
    refused(machine, guest, &["w0x68:08", "w0x50:00ff"], EEPROM)?;
    refused(machine, guest, &["r0x68:1", "w0x68:08", "r0x50:8"], EEPROM)
}

pub(crate) fn lines(machine: &Machine) -> Result<()> {
    let guest = &machine.guest_b;
    let listed = guest.check(&["agent", "gpio-lines", "gpiochip0"], LIMIT)?;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split('"').nth(1)).collect();
    let expected = ["relay", "door", "loop-out", "loop-in", "Wake, shared", ""];
    ensure!(names == expected, "guest-b has the lines {names:?}");
    for beyond in ["6", "7", "100"] {
        let output = guest.run(&["agent", "gpio-get", "gpiochip0", beyond], LIMIT)?;
        ensure!(!output.succeeded(), "guest-b has read line {beyond}");
    }
    let before = [machine.gpio.line(0)?, machine.gpio.line(1)?];
    for own in ["0", "1"] {
        let held = guest.start(&["agent", "gpio-hold", "gpiochip0", own, "1"])?;
        held.look_until(LIMIT, |output| output.text() == "held")?;
    }
    let after = [machine.gpio.line(0)?, machine.gpio.line(1)?];
    ensure!(before == after, "guest-a's lines were {before:?}, now they are {after:?}");
    Ok(())
}

/// The first page of guests' memory (Xen's public/arch-arm.h, GUEST_RAM0_BASE).
const FIRST_PAGE: &str = "0x40000";

pub(crate) fn foreign_pages(machine: &Machine) -> Result<()> {
    let domain = GUEST_A.to_string();
    let attempts = [
        // These pages exist: they have the kernel's image.
        ["agent", "map-foreign", &domain, FIRST_PAGE, "8"],
        // Guests use grant references from small numbers on. These are not in use.
        ["agent", "map-grant", &domain, "400", "8"],
    ];
    for attempt in attempts {
        let text = machine.driver_domain.check(&attempt, LIMIT)?;
        let refused = text.starts_with("mapped=0 refused=8 ");
        ensure!(refused, "{}: {text}", attempt.join(" "));
    }
    denied_by_flask(machine).context("Xen has refused, but not because of its policy")
}

/// Checks that Xen's policy denies the permission itself, whether or not the page exists.
fn denied_by_flask(machine: &Machine) -> Result<()> {
    let mark = machine.console.mark();
    machine.driver_domain.check(&["agent", "map-foreign", &GUEST_A.to_string(), FIRST_PAGE, "1"], LIMIT)?;
    let denial = machine.console.wait(mark, LIMIT, |line| {
        (line.text.contains("avc:  denied") && line.text.contains("map_")).then(|| line.text.clone())
    })?;
    denial.map(drop).context("no denial on Xen's console")
}

const MAPPED: &str = "mapped";
const DENIED: &str = "Permission denied (os error 13)";
const UNKNOWN: &str = "Operation not permitted (os error 1)";
const NO_SUCH: &str = "No such file or directory (os error 2)";
const INVALID: &str = "Invalid argument (os error 22)";

/// Tries to map resources of a guest: only the ioreq page of the shim's server is mapped. A domain that maps
/// the grant table can grant itself all of the guest's memory.
pub(crate) fn resources(machine: &Machine) -> Result<()> {
    for guest in [GUEST_A, GUEST_B] {
        let domain = guest.to_string();
        let servers = machine.driver_domain.check(&["agent", "ioreq-servers", &domain], LIMIT)?;
        let server: u16 =
            servers.trim_matches(['[', ']']).parse().with_context(|| format!("ioreq servers {servers}"))?;
        let (own, other) = (server.to_string(), (server + 1).to_string());
        let attempts = [
            ("ioreq-server", own.as_str(), "1", MAPPED),
            // On Arm a server has no page of buffered requests (0), and one ioreq page (1).
            ("ioreq-server", &own, "0", NO_SUCH),
            ("ioreq-server", &own, "2", INVALID),
            ("ioreq-server", &other, "1", NO_SUCH),
            ("grant-table", "0", "0", DENIED),
            ("grant-table", "0", "1", DENIED),
            ("grant-table", "0", "63", DENIED),
            ("grant-status", "0", "0", DENIED),
            ("vmtrace", "0", "0", DENIED),
            ("unknown", "0", "0", UNKNOWN),
        ];
        for (resource, id, frame, expected) in attempts {
            let attempt = ["agent", "map-resource", &domain, resource, id, frame];
            let text = machine.driver_domain.check(&attempt, LIMIT)?;
            ensure!(text == expected, "{}: {text}, not {expected}", attempt.join(" "));
        }
    }
    Ok(())
}

/// Tries to allocate event channels of a guest. The driver domain gets them only with an ioreq server.
pub(crate) fn event_channels(machine: &Machine) -> Result<()> {
    let text = machine.driver_domain.check(&["agent", "take-ports", &GUEST_A.to_string()], LIMIT)?;
    ensure!(text == format!("taken=0 {DENIED}"), "event channels of guest-a: {text}");
    Ok(())
}

/// Tries to enable an ioreq server whose page was not mapped. Xen would need the page at the guest's next
/// access.
pub(crate) fn no_page(machine: &Machine) -> Result<()> {
    let text = machine.driver_domain.check(&["agent", "enable-without-page", &GUEST_A.to_string()], LIMIT)?;
    // An access: at least the kick.
    let read = machine.guest_a.check(&["agent", "i2c", "0", "r0x48:2"], LIMIT);
    ensure!(text == INVALID, "enabling was not refused: {text}; then guest-a: {read:?}");
    read.map(drop)
}

/// Creates all ioreq servers and ranges that Xen allows, also over the guest's memory and devices that Xen
/// emulates: the guest continues to work.
pub(crate) fn overload(machine: &Machine) -> Result<()> {
    let guest = GUEST_A.to_string();
    let held = machine.driver_domain.start(&["agent", "overload", &guest])?;
    let text = held.look_until(LIMIT, |output| output.text().starts_with("servers="))?.text();
    machine.guest_a.check(&["agent", "i2c", "0", "r0x48:2"], LIMIT)?;
    machine.guest_a.check(&["sh", "-c", "dmesg"], LIMIT)?;
    machine.driver_domain.check(&["agent", "end-overload"], LIMIT)?;
    // Xen allows eight servers for a guest, one of which is the shim's, and 256 ranges of each server. Three
    // of the ranges are not counted: those over memory and emulated devices.
    ensure!(
        text == "servers=7 ranges=1789 No space left on device (os error 28)",
        "unexpected limits: {text}"
    );
    Ok(())
}

/// The calls of the driver domain about guest-a, itself or Xen that succeed, or fail for a reason other than
/// the policy. images/xen/policy/README.md has the whole table.
const NOT_REFUSED: &[&str] = &[
    // unpausedomain: the guest is not paused.
    "domain 2 Domctl(4, 1): Invalid argument (os error 22)",
    // getdomaininfo.
    "domain 2 Domctl(5, 1): 0",
    // irq_permission, which Arm does not have: FLASK returns EILSEQ for unexpected calls.
    "domain 2 Domctl(19, 1): Invalid or incomplete multibyte or wide character (os error 84)",
    // (test_)assign_device, deassign_device: the path of the device is read first, here from address 1.
    "domain 2 Domctl(37, 1): Bad address (os error 14)",
    "domain 2 Domctl(45, 1): Bad address (os error 14)",
    "domain 2 Domctl(47, 1): Bad address (os error 14)",
    "domain 1 Domctl(19, 1): Invalid or incomplete multibyte or wide character (os error 84)",
    "domain 1 Domctl(37, 1): Bad address (os error 14)",
    "domain 1 Domctl(45, 1): Bad address (os error 14)",
    // set_target: a domain cannot be its own target, which Xen checks first.
    "domain 1 Domctl(46, 1): Invalid argument (os error 22)",
    "domain 1 Domctl(47, 1): Bad address (os error 14)",
    // set_virq_handler: virtual interrupt 1 has no handler, as it is not global.
    "domain 1 Domctl(66, 1): Invalid argument (os error 22)",
    "domain 1 GrantTableSize: 0",
    // getenforce, policyvers, getbool (there are none), mls, getavc_threshold, avc_hashstats, get_peer_sid
    // (no such channel).
    "domain 1 Flask(2, 0): 1",
    "domain 1 Flask(10, 0): 30",
    "domain 1 Flask(11, 0): No such file or directory (os error 2)",
    "domain 1 Flask(14, 0): 0",
    "domain 1 Flask(16, 0): 512",
    "domain 1 Flask(18, 0): 0",
    "domain 1 Flask(23, 0): Invalid argument (os error 22)",
    // relabel_domain, of domain 0.
    "domain 1 Flask(24, 0): No such process (os error 3)",
    "domain 1 Flask(2, 1): 1",
    // setenforce to the present value. The value 0 is refused.
    "domain 1 Flask(3, 1): 0",
    "domain 1 Flask(10, 1): 30",
    "domain 1 Flask(11, 1): No such file or directory (os error 2)",
    "domain 1 Flask(14, 1): 0",
    "domain 1 Flask(16, 1): 512",
    "domain 1 Flask(18, 1): 0",
    "domain 1 Flask(23, 1): Invalid argument (os error 22)",
];

pub(crate) fn hypercalls(machine: &Machine) -> Result<()> {
    let text = machine.driver_domain.check(&["agent", "hypercalls", &GUEST_A.to_string()], LIMIT)?;
    let calls: Vec<&str> = text.lines().filter(|line| !line.starts_with("refused ")).collect();
    ensure!(calls == NOT_REFUSED, "not refused: {}", calls.join("\n"));
    // The guest and the driver domain still work.
    machine.guest_a.check(&["agent", "i2c", "0", "r0x48:2"], LIMIT)?;
    Ok(())
}
