// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The remedy for each error of an attempt.

use rustix::io::Errno;
use shim_config::Guest;

use super::Step;

pub(super) const UNRESTRICTED: &str = "add xen_privcmd.unrestricted=1 to the command line of the driver \
                                       domain's kernel: Linux lets only domain 0 call Xen about other \
                                       domains";

/// The remedy when `step` fails with `error`.
pub(super) fn advice(step: Step, error: Errno, guest: &Guest) -> String {
    let (name, domid) = (&guest.name, guest.domid);
    match (step, error) {
        (_, Errno::SRCH) => format!(
            "no domain has the number {domid}: Xen counts the domains of the host device tree from 1; \
             correct the `domid` of {name} to its position there"
        ),
        (_, Errno::PERM) => UNRESTRICTED.to_owned(),
        (Step::GrantTable, _) => format!(
            "Xen lets this domain map the grant table of {name}, and with it all of its memory: build Xen \
             with our patches (images/xen/patches) and a policy without `DRIVER GUEST:domain2 \
             resource_map_grant_table`"
        ),
        (_, Errno::ACCESS) => format!(
            "Xen's policy forbids it: add `allow {};` with their types, or {}(DRIVER, GUEST), which has all \
             that is needed (images/xen/policy)",
            rule(step),
            policy_macro(step)
        ),
        (_, Errno::NOSYS | Errno::OPNOTSUPP) => {
            "build Xen with CONFIG_IOREQ_SERVER=y, which needs CONFIG_EXPERT=y".to_owned()
        }
        (Step::Servers, Errno::NOSPC) => {
            format!(
                "{name} has as many ioreq servers as Xen allows: end the other device models that serve it"
            )
        }
        (_, error) => format!("cannot {}: {error}", action(step)),
    }
}

/// The rule of Xen's policy that permits a step.
fn rule(step: Step) -> &'static str {
    match step {
        Step::DeviceModel | Step::Servers => "DRIVER GUEST:hvm dm",
        Step::DomainState => "DRIVER GUEST:domain getdomaininfo",
        Step::IoreqPage => "DRIVER GUEST:domain2 resource_map",
        // FLASK checks a copy from the domain of the source to the domain of the destination.
        Step::Read => "GUEST DRIVER:grant copy",
        Step::Write => "DRIVER GUEST:grant copy",
        Step::Ram => "DRIVER GUEST:mmu { map_read map_write }",
        Step::GrantTable => "DRIVER GUEST:domain2 resource_map_grant_table",
    }
}

/// The macro of the policy that has the rule.
fn policy_macro(step: Step) -> &'static str {
    match step {
        Step::Read | Step::Write => "allow_grants",
        Step::Ram => "allow_memory",
        _ => "allow_service",
    }
}

fn action(step: Step) -> &'static str {
    match step {
        Step::DeviceModel => "query its number of vCPUs",
        Step::Servers => "query its ioreq servers",
        Step::DomainState => "query its state",
        Step::IoreqPage => "map the page of an ioreq server",
        Step::Read => "copy from its granted pages",
        Step::Write => "copy to its granted pages",
        Step::Ram => "map a page of its RAM",
        Step::GrantTable => "map its grant table",
    }
}
