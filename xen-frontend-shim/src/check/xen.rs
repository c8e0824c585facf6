// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What Xen lets the driver domain do to each guest. Nothing that is tried here changes what a guest sees.

use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;
use xen_bindings::{DomId, IoreqServer, Irq, IrqFd, Privcmd};

use super::Finding;
use crate::config::{Config, Guest, INTERRUPTS};

/// No domain has this number: it is the last before those that mean something else (Xen's `xen.h`, DOMID_FIRST_RESERVED).
const NOBODY: u16 = 0x7fef;

/// What is tried, in this order: each step needs the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Any call of a device model.
    Call,
    /// Which ioreq servers there are. None is made: a supervisor that starts just then would take it for its own.
    Servers,
    /// How the guest is.
    State,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let Ok(privcmd) = Privcmd::open() else {
        // That is a finding of its own.
        return Vec::new();
    };
    let mut findings = vec![interface(&privcmd), eventfds(&privcmd)];
    findings
        .extend(config.guest.iter().map(|guest| judge(guest, |step| attempt(&privcmd, guest.domid, step))));
    findings
}

/// Xen looks at the version of the interface first, and then finds that there is no such domain.
fn interface(privcmd: &Privcmd) -> Finding {
    let answer = privcmd.unpause(DomId::new(NOBODY)).err().and_then(|error| errno(&error));
    interface_by(answer)
}

fn interface_by(answer: Option<Errno>) -> Finding {
    const WHAT: &str = "Xen's interface to let guests run (domctl)";
    match answer {
        Some(Errno::SRCH) => Finding::ok(WHAT),
        Some(Errno::ACCESS) => Finding::missing(
            WHAT,
            "Xen's version of it is not known: this program knows those from Xen 4.20 (0x17) to 0x1f",
        ),
        Some(Errno::PERM) => Finding::missing(WHAT, UNRESTRICTED),
        Some(error) => Finding::missing(WHAT, format!("Xen's answer is not understood: {error}")),
        None => Finding::missing(WHAT, "Xen has unpaused a domain that does not exist"),
    }
}

/// The kernel does not ask Xen before there is something to signal.
fn eventfds(privcmd: &Privcmd) -> Finding {
    const WHAT: &str = "kicks and interrupts by the kernel (ioeventfd, irqfd)";
    let assigned = EventFd::new(0)
        .map(|eventfd| IrqFd::assign(privcmd, DomId::new(NOBODY), Irq::new(*INTERRUPTS.start()), &eventfd));
    match assigned {
        Ok(Ok(_)) => Finding::ok(WHAT),
        Ok(Err(error)) if error.is_unsupported() => {
            Finding::weak(WHAT, "works, but slower: build the kernel with CONFIG_XEN_PRIVCMD_EVENTFD=y")
        }
        Ok(Err(error)) => Finding::weak(WHAT, format!("the kernel refuses: {error}")),
        Err(error) => Finding::weak(WHAT, format!("there is no eventfd: {error}")),
    }
}

fn attempt(privcmd: &Privcmd, domid: u16, step: Step) -> Result<(), Errno> {
    let guest = DomId::new(domid);
    let result = match step {
        Step::Call => privcmd.nr_vcpus(guest).map(drop),
        Step::Servers => IoreqServer::list(privcmd, guest).map(drop),
        Step::State => privcmd.domain_state(guest).map(drop),
    };
    result.map_err(|error| errno(&error).unwrap_or(Errno::IO))
}

fn errno(error: &xen_bindings::Error) -> Option<Errno> {
    Errno::from_io_error(error.io())
}

const UNRESTRICTED: &str = "add xen_privcmd.unrestricted=1 to the command line of the driver domain's kernel: Linux lets only \
                            domain 0 speak to Xen of other domains";

fn judge(guest: &Guest, attempt: impl Fn(Step) -> Result<(), Errno>) -> Finding {
    let what = format!("{}: domain {}", guest.name, guest.domid);
    for step in [Step::Call, Step::Servers, Step::State] {
        if let Err(error) = attempt(step) {
            return Finding::missing(what, advice(step, error, guest));
        }
    }
    Finding::ok(what)
}

fn advice(step: Step, error: Errno, guest: &Guest) -> String {
    let (name, domid) = (&guest.name, guest.domid);
    let rule = |right: &str| {
        format!(
            "Xen's policy forbids it: say `allow DRIVER GUEST:{right};` of their types, or allow_service(DRIVER, GUEST), \
             which has all that is needed (images/xen/policy)"
        )
    };
    match (step, error) {
        (_, Errno::SRCH) => format!(
            "no domain has the number {domid}: Xen counts the domains of the host device tree from 1, so see which \
             place {name} has there, and correct its `domid`"
        ),
        (_, Errno::PERM) => UNRESTRICTED.to_owned(),
        (Step::Call | Step::Servers, Errno::ACCESS) => rule("hvm dm"),
        (Step::State, Errno::ACCESS) => rule("domain getdomaininfo"),
        (_, Errno::NOSYS | Errno::OPNOTSUPP) => {
            "build Xen with CONFIG_IOREQ_SERVER=y, for which it needs CONFIG_EXPERT=y".to_owned()
        }
        (Step::Servers, Errno::NOSPC) => {
            format!(
                "{name} has as many ioreq servers as Xen allows: end the other device models that serve it"
            )
        }
        (Step::Call, _) => format!("Xen does not say how many vCPUs it has: {error}"),
        (Step::Servers, _) => format!("Xen does not say who serves it: {error}"),
        (Step::State, _) => format!("Xen does not say how it is: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    /// What is said when `step` is answered with `error`.
    fn line(step: Step, error: Errno) -> String {
        let guest = &config().guest[0];
        let finding = judge(guest, |tried| if tried == step { Err(error) } else { Ok(()) });
        assert!(finding.is_missing());
        finding.to_string()
    }

    #[test]
    fn a_guest_that_may_be_served() {
        let finding = judge(&config().guest[0], |_| Ok(()));
        assert_eq!(finding.to_string(), "ok       guest-a: domain 2");
    }

    #[test]
    fn each_refusal_of_xen_says_what_to_do() {
        let cases = [
            (Step::Call, Errno::SRCH, "no domain has the number 2"),
            (Step::Call, Errno::PERM, "xen_privcmd.unrestricted=1"),
            (Step::Call, Errno::ACCESS, "allow DRIVER GUEST:hvm dm;"),
            (Step::Call, Errno::NOSYS, "CONFIG_IOREQ_SERVER=y"),
            (Step::Servers, Errno::OPNOTSUPP, "CONFIG_IOREQ_SERVER=y"),
            (Step::Servers, Errno::NOMEM, "does not say who serves it: "),
            (Step::State, Errno::ACCESS, "allow DRIVER GUEST:domain getdomaininfo;"),
        ];
        for (step, error, expected) in cases {
            let line = line(step, error);
            assert!(line.starts_with("missing  guest-a: domain 2: ") && line.contains(expected), "{line}");
        }
    }

    #[test]
    fn an_interface_that_is_not_known_is_told_from_a_kernel_that_refuses() {
        assert!(interface_by(Some(Errno::SRCH)).is_ok());
        assert!(interface_by(Some(Errno::ACCESS)).to_string().contains("0x17"));
        assert!(interface_by(Some(Errno::PERM)).to_string().contains("unrestricted=1"));
        assert!(interface_by(None).is_missing());
    }
}
