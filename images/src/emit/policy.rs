// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The FLASK policy: a type for each domain, and the rules between them.
//!
//! The rules are macros of `images/xen/policy/appliance.te`, which this module applies to the domains of a
//! plan. The classes and permissions are those of the Xen that enforces the policy, so they come with its
//! artefacts.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::manifest::MemoryAccess;
use crate::plan::Plan;

/// The parts of the policy that come with Xen, in the order that the compiler requires.
pub const FROM_XEN: [&str; 3] = ["flask/security_classes", "flask/initial_sids", "flask/access_vectors"];

const APPLIANCE: &str = include_str!("../../xen/policy/appliance.te");
const CONTEXTS: &str = include_str!("../../xen/policy/contexts.te");

/// The type of the driver domain.
pub const DRIVER_TYPE: &str = "driver_t";

/// Whether the policy declares the type itself, so that a domain of it would share its rights or the policy
/// would not compile.
pub fn is_taken(policy_type: &str) -> bool {
    let declared = APPLIANCE.lines().chain(CONTEXTS.lines()).filter_map(|line| line.strip_prefix("type "));
    let mut names = declared.filter_map(|rest| rest.split([',', ';']).next());
    policy_type == DRIVER_TYPE || names.any(|name| name.trim() == policy_type)
}

/// The newest format that Xen's security server reads (`POLICYDB_VERSION_MAX`).
const FORMAT: &str = "30";

/// The part of the policy about the plan's domains.
pub fn domains(plan: &Plan<'_>) -> String {
    let types: Vec<_> = plan.guests.iter().map(|guest| guest.policy_type()).collect();
    let mut text = format!("declare_driver_domain({DRIVER_TYPE})\n");
    for guest in &types {
        // Writing to a string does not fail.
        let _ = writeln!(text, "declare_guest({guest})");
    }
    for (guest, guest_type) in plan.guests.iter().zip(&types) {
        let _ = writeln!(text, "allow_service({DRIVER_TYPE}, {guest_type})");
        let memory = match guest.guest.memory_access.value {
            MemoryAccess::Granted => "allow_grants",
            MemoryAccess::All => "allow_memory",
        };
        let _ = writeln!(text, "{memory}({DRIVER_TYPE}, {guest_type})");
    }
    for guest in &types {
        for other in types.iter().filter(|other| *other != guest) {
            let _ = writeln!(text, "assert_apart({guest}, {other})");
        }
    }
    text
}

/// Compiles the policy to `output`, and leaves its expanded source beside it, in `output` with `.conf`.
///
/// # Errors
///
/// m4 or checkpolicy cannot be run, or fails.
pub fn compile(plan: &Plan<'_>, files: &Path, output: &Path) -> Result<(), Error> {
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

fn run(command: &mut Command) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let output = child
        .and_then(std::process::Child::wait_with_output)
        .map_err(|error| Error::Start(program.clone(), error))?;
    Error::check_program(&program, &output)
}
