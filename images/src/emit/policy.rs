// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The FLASK policy: a type for each domain, and the rules between them.
//!
//! The rules are macros of `images/xen/policy/appliance.te`; this module only says for which domains they hold. The
//! classes and their permissions are those of the Xen that will enforce the policy, so they come with the artefacts.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::plan::Plan;

/// What Xen provides, in the order in which the compiler wants it.
pub const FROM_XEN: [&str; 3] = ["flask/security_classes", "flask/initial_sids", "flask/access_vectors"];

const APPLIANCE: &str = include_str!("../../xen/policy/appliance.te");
const CONTEXTS: &str = include_str!("../../xen/policy/contexts.te");

/// The type of the driver domain.
pub const DRIVER_TYPE: &str = "driver_t";

/// Whether a domain of this type would get the rights of another, or the policy would not compile: the appliance's own
/// policy has a type of that name already.
pub fn is_taken(policy_type: &str) -> bool {
    let declared = APPLIANCE.lines().chain(CONTEXTS.lines()).filter_map(|line| line.strip_prefix("type "));
    let mut names = declared.filter_map(|rest| rest.split([',', ';']).next());
    policy_type == DRIVER_TYPE || names.any(|name| name.trim() == policy_type)
}

/// The newest format that Xen's security server reads (`POLICYDB_VERSION_MAX`).
const FORMAT: &str = "30";

/// The lines about this manifest's domains.
pub fn domains(plan: &Plan<'_>) -> String {
    let types: Vec<_> = plan.guests.iter().map(|guest| guest.policy_type()).collect();
    let mut text = format!("declare_driver_domain({DRIVER_TYPE})\n");
    for guest in &types {
        // Writing to a string does not fail.
        let _ = writeln!(text, "declare_guest({guest})");
    }
    for guest in &types {
        let _ = writeln!(text, "allow_service({DRIVER_TYPE}, {guest})");
    }
    for guest in &types {
        for other in types.iter().filter(|other| *other != guest) {
            let _ = writeln!(text, "assert_apart({guest}, {other})");
        }
    }
    text
}

/// Compiles the policy to `output`, by way of its source `output` plus `.conf`, which a reviewer may want to see.
///
/// # Errors
///
/// A tool is missing, or it refused the policy.
pub fn compile(plan: &Plan<'_>, files: &Path, output: &Path) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let write = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        std::fs::write(&path, text).map(|()| path)
    };
    let sections = FROM_XEN.map(|name| files.join(name));
    let own = [
        write("appliance.te", APPLIANCE)?,
        write("domains.te", &domains(plan))?,
        write("contexts.te", CONTEXTS)?,
    ];
    let source = output.with_extension("conf");
    let expanded = std::fs::File::create(&source)?;
    run(Command::new("m4").args(sections).args(own).stdout(expanded))?;
    run(Command::new("checkpolicy")
        .args(["-t", "Xen", "-c", FORMAT, "-o"])
        .arg(output)
        .arg(&source)
        .stdout(Stdio::null()))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let output = child.and_then(std::process::Child::wait_with_output).with_context(|| {
        format!("cannot run {program}, which compiles the policy: install it (scripts/setup does)")
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} refused the policy:\n{}", said.trim_end());
    Ok(())
}
