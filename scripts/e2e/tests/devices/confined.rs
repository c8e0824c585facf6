// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the daemons of other projects have kept of their rights, as the kernel of the driver domain sees
//! them. That the same role refuses the rest is tested in crate `confinement`.

use anyhow::{Result, ensure};
use e2e::host::machine::{GUEST_A, Machine};

use crate::LIMIT;
use crate::daemon::{Daemon, script};

/// The attempts on grants with a descriptor of gntdev, which all succeed for its own guest only.
const ATTEMPTS: [&str; 4] = ["map", "copy-from", "copy-to", "restrict"];

/// A daemon runs as its own user and group without capabilities, confined, and has no other node of Xen than
/// gntdev.
pub(crate) fn daemon_has_given_up_its_rights(machine: &Machine, daemon: Daemon) -> Result<()> {
    let pid = daemon.pid(machine)?;
    let status = format!(
        "grep -E '^(Uid|Gid|Groups|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/{pid}/status | \
         tr -s '\\t ' ' '; for fd in /proc/{pid}/fd/*; do readlink $fd; done | grep ^/dev/xen/ | sort -u"
    );
    let seen = script(&machine.driver_domain, &status)?;
    let seen: Vec<_> = seen.lines().map(str::trim_end).collect();
    let (user, none) = ([daemon.user.to_string().as_str(); 4].join(" "), "0000000000000000");
    let expected = [
        format!("Uid: {user}"),
        format!("Gid: {user}"),
        "Groups:".to_owned(),
        format!("CapPrm: {none}"),
        format!("CapEff: {none}"),
        format!("CapBnd: {none}"),
        format!("CapAmb: {none}"),
        "NoNewPrivs: 1".to_owned(),
        "Seccomp: 2".to_owned(),
        "/dev/xen/gntdev".to_owned(),
    ];
    ensure!(seen == expected, "{}: {seen:#?}", daemon.program);
    Ok(())
}

/// The descriptor of gntdev that a daemon has received maps and copies what its own guest has granted, and
/// nothing of the guest beside it.
pub(crate) fn daemon_reaches_its_own_guest_only(machine: &Machine, daemon: Daemon) -> Result<()> {
    let pid = daemon.pid(machine)?;
    let domains = [GUEST_A, GUEST_A + 1].map(|domain| domain.to_string());
    let [own, beside] = &domains;
    let text = machine.driver_domain.check(&["agent", "borrow", &pid, own, beside], LIMIT)?;
    let outcomes = |domain: &str, attempt: &str| -> Vec<&str> {
        let start = format!("{domain} {attempt}: ");
        text.lines().filter_map(|line| line.strip_prefix(start.as_str())).collect()
    };
    for attempt in ATTEMPTS {
        let [own, beside] = [outcomes(own, attempt), outcomes(beside, attempt)];
        ensure!(!own.is_empty() && own.iter().all(|outcome| *outcome == "done"), "{attempt}:\n{text}");
        let reason = if attempt == "restrict" { "Invalid argument" } else { "Operation not permitted" };
        let is_refused = |outcome: &&str| outcome.starts_with("refused: ") && outcome.contains(reason);
        ensure!(beside.len() == own.len() && beside.iter().all(is_refused), "{attempt}:\n{text}");
    }
    ensure!(text.lines().all(|line| ATTEMPTS.iter().any(|attempt| line.contains(attempt))), "{text}");
    Ok(())
}
