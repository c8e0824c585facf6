// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What Xen lets the driver domain do to each guest. Nothing that is tried here changes what a guest sees.
//!
//! So what the policy allows is asked by naming what is not there, where Xen looks at the policy first (Xen 4.20,
//! `common/memory.c`: `acquire_resource`, `common/grant_table.c`: `gnttab_copy_one`). This does not do for all rights:
//!
//! - to bind an event channel and to send by it: Xen looks at the channel first, and each channel is some server's;
//! - to unmap a grant: Xen looks at the mapping first;
//! - to map a grant: Linux says EINVAL whatever Xen says (`drivers/xen/gntdev.c`: `gntdev_map_grant_pages`);
//! - to unpause: a guest that is held would run.
//!
//! Who tries one of these in vain says so by itself.
//!
//! One thing more is asked: that Xen refuses the guest's grant table, as a Xen without our patches would not.

use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;
use xen_bindings::grant_copy::CrossesPage;
use xen_bindings::{
    CopyBatch, DomId, Gntdev, GrantRef, GrantStatus, IoreqServer, IoreqServerId, Irq, IrqFd, Privcmd,
    Resource,
};

use super::Finding;
use shim_config::{Config, Guest, INTERRUPTS};

/// No domain has this number: it is the last before those that mean something else (Xen's `xen.h`, DOMID_FIRST_RESERVED).
const NOBODY: u16 = 0x7fef;

/// No guest has an ioreq server of this number: there are 8 at most.
const NO_SERVER: u16 = u16::MAX;

/// No grant table reaches that far.
const NO_GRANT: u32 = u32::MAX;

/// No grant table has so many frames.
const NO_FRAME: u32 = u32::MAX - 1;

/// What is tried, in this order: each step needs the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Any call of a device model.
    Call,
    /// Which ioreq servers there are. None is made: a supervisor that starts just then would take it for its own.
    Servers,
    /// How the guest is.
    State,
    /// The page of a server's requests.
    Page,
    /// A copy from a page of the guest's.
    Read,
    /// A copy to a page of the guest's.
    Write,
    /// The guest's grant table, which Xen has to refuse.
    GrantTable,
}

const STEPS: [Step; 7] =
    [Step::Call, Step::Servers, Step::State, Step::Page, Step::Read, Step::Write, Step::GrantTable];

/// The ways to Xen.
struct Xen {
    privcmd: Privcmd,
    /// None that can be opened is a finding of its own.
    gntdev: Option<Gntdev>,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let Ok(privcmd) = Privcmd::open() else {
        // That is a finding of its own.
        return Vec::new();
    };
    let mut findings = vec![interface(&privcmd), eventfds(&privcmd)];
    // One of its own: what is restricted stays so.
    findings.extend(Gntdev::open().ok().map(|gntdev| restriction(&gntdev)));
    let xen = Xen { privcmd, gntdev: Gntdev::open().ok() };
    findings.extend(config.guest.iter().map(|guest| judge(guest, |step| attempt(&xen, guest.domid, step))));
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

/// Whether a process can be kept to the grants of its guest. Without that, none is served.
fn restriction(gntdev: &Gntdev) -> Finding {
    const WHAT: &str = "grants of one guest only (gntdev)";
    match gntdev.restrict(DomId::new(NOBODY)) {
        Ok(()) => Finding::ok(WHAT),
        Err(error) => Finding::missing(WHAT, format!("no guest is served: {error}")),
    }
}

fn attempt(xen: &Xen, domid: u16, step: Step) -> Result<(), Errno> {
    let (guest, privcmd) = (DomId::new(domid), &xen.privcmd);
    let result = match step {
        Step::Call => privcmd.nr_vcpus(guest).map(drop),
        Step::Servers => IoreqServer::list(privcmd, guest).map(drop),
        Step::State => privcmd.domain_state(guest).map(drop),
        Step::Page => IoreqServer::adopt(privcmd, guest, IoreqServerId::new(NO_SERVER)).page().map(drop),
        Step::GrantTable => {
            let answer = privcmd.map_resource(guest, Resource::GrantTable, NO_FRAME).err();
            return refused(answer.as_ref().and_then(errno));
        }
        Step::Read | Step::Write => {
            return xen.gntdev.as_ref().map_or(Ok(()), |gntdev| copy(gntdev, guest, step));
        }
    };
    result.or_else(|error| beyond_policy(step, errno(&error).unwrap_or(Errno::IO)))
}

/// That there is no such server is found when the policy has allowed to look.
fn beyond_policy(step: Step, error: Errno) -> Result<(), Errno> {
    if (step, error) == (Step::Page, Errno::NOENT) { Ok(()) } else { Err(error) }
}

/// A Xen that does not refuse by its policy goes on and finds that there is no such frame.
fn refused(answer: Option<Errno>) -> Result<(), Errno> {
    match answer {
        Some(Errno::ACCESS) => Ok(()),
        Some(error) => Err(error),
        None => Err(Errno::INVAL),
    }
}

/// Copies a byte from or to what the guest cannot have granted.
fn copy(gntdev: &Gntdev, guest: DomId, step: Step) -> Result<(), Errno> {
    let (mut byte, mut batch, grant) = ([0], CopyBatch::new(), GrantRef::new(NO_GRANT));
    let added = match step {
        Step::Write => batch.to_guest(guest, grant, 0, &[0]),
        _ => batch.from_guest(guest, grant, 0, &mut byte),
    };
    // One byte does not.
    added.map_err(|CrossesPage| Errno::INVAL)?;
    gntdev.copy(&mut batch).map_err(|error| errno(&error).unwrap_or(Errno::IO))?;
    batch.statuses().try_for_each(permitted)
}

/// That there is no such grant, or whatever else is wrong with the page, is found when the policy has allowed to look.
fn permitted(status: GrantStatus) -> Result<(), Errno> {
    match status {
        GrantStatus::PermissionDenied => Err(Errno::ACCESS),
        GrantStatus::BadDomain => Err(Errno::SRCH),
        _ => Ok(()),
    }
}

fn errno(error: &xen_bindings::Error) -> Option<Errno> {
    Errno::from_io_error(error.io())
}

const UNRESTRICTED: &str = "add xen_privcmd.unrestricted=1 to the command line of the driver domain's kernel: Linux lets only \
                            domain 0 speak to Xen of other domains";

fn judge(guest: &Guest, attempt: impl Fn(Step) -> Result<(), Errno>) -> Finding {
    let what = format!("{}: domain {}", guest.name, guest.domid);
    for step in STEPS {
        if let Err(error) = attempt(step) {
            return Finding::missing(what, advice(step, error, guest));
        }
    }
    Finding::ok(what)
}

fn advice(step: Step, error: Errno, guest: &Guest) -> String {
    let (name, domid) = (&guest.name, guest.domid);
    let rule = |rule: &str| {
        format!(
            "Xen's policy forbids it: say `allow {rule};` of their types, or allow_service(DRIVER, GUEST), which has all that \
             is needed (images/xen/policy)"
        )
    };
    match (step, error) {
        (_, Errno::SRCH) => format!(
            "no domain has the number {domid}: Xen counts the domains of the host device tree from 1, so see which \
             place {name} has there, and correct its `domid`"
        ),
        (_, Errno::PERM) => UNRESTRICTED.to_owned(),
        (Step::Call | Step::Servers, Errno::ACCESS) => rule("DRIVER GUEST:hvm dm"),
        (Step::State, Errno::ACCESS) => rule("DRIVER GUEST:domain getdomaininfo"),
        (Step::Page, Errno::ACCESS) => rule("DRIVER GUEST:domain2 resource_map"),
        // FLASK looks at a copy from the domain that has the source to the one that has the destination.
        (Step::Read, Errno::ACCESS) => rule("GUEST DRIVER:grant copy"),
        (Step::Write, Errno::ACCESS) => rule("DRIVER GUEST:grant copy"),
        (Step::GrantTable, _) => format!(
            "Xen lets this domain map the grant table of {name}, and with it all of its memory: build Xen with our patches \
             (images/xen/patches), and a policy that does not say `DRIVER GUEST:domain2 resource_map_grant_table`"
        ),
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
        (Step::Page, _) => format!("Xen does not look for a page of requests: {error}"),
        (Step::Read, _) => format!("nothing can be copied from it: {error}"),
        (Step::Write, _) => format!("nothing can be copied to it: {error}"),
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
            (Step::Page, Errno::ACCESS, "allow DRIVER GUEST:domain2 resource_map;"),
            (Step::Page, Errno::NOMEM, "does not look for a page of requests: "),
            (Step::Read, Errno::ACCESS, "allow GUEST DRIVER:grant copy;"),
            (Step::Write, Errno::ACCESS, "allow DRIVER GUEST:grant copy;"),
            (Step::Write, Errno::FAULT, "nothing can be copied to it: "),
            (Step::GrantTable, Errno::INVAL, "build Xen with our patches"),
        ];
        for (step, error, expected) in cases {
            let line = line(step, error);
            assert!(line.starts_with("missing  guest-a: domain 2: ") && line.contains(expected), "{line}");
        }
    }

    #[test]
    fn what_is_not_there_is_looked_for_where_the_policy_allows_it() {
        assert_eq!(beyond_policy(Step::Page, Errno::NOENT), Ok(()));
        assert_eq!(beyond_policy(Step::Page, Errno::ACCESS), Err(Errno::ACCESS));
        assert_eq!(beyond_policy(Step::Servers, Errno::NOENT), Err(Errno::NOENT));
        assert_eq!(refused(Some(Errno::ACCESS)), Ok(()));
        assert_eq!(refused(Some(Errno::INVAL)), Err(Errno::INVAL));
        assert_eq!(refused(None), Err(Errno::INVAL));
        assert_eq!(permitted(GrantStatus::BadGrantRef), Ok(()));
        assert_eq!(permitted(GrantStatus::PermissionDenied), Err(Errno::ACCESS));
        assert_eq!(permitted(GrantStatus::BadDomain), Err(Errno::SRCH));
    }

    #[test]
    fn a_kernel_that_cannot_restrict_grants_is_told_the_patch() {
        let line = restriction(&Gntdev::from_fd(tempfile::tempfile().unwrap().into())).to_string();
        assert!(
            line.starts_with("missing  grants of one guest only (gntdev): no guest is served: "),
            "{line}"
        );
        assert!(line.contains("0004-xen-gntdev"), "{line}");
    }

    #[test]
    fn each_step_asks() {
        let wrong = || tempfile::tempfile().unwrap().into();
        let mut xen = Xen { privcmd: Privcmd::from_fd(wrong()), gntdev: Some(Gntdev::from_fd(wrong())) };
        for step in STEPS {
            assert_eq!(attempt(&xen, 2, step), Err(Errno::NOTTY), "{step:?}");
        }
        xen.gntdev = None;
        assert_eq!(attempt(&xen, 2, Step::Read), Ok(()));
    }

    #[test]
    fn an_interface_that_is_not_known_is_told_from_a_kernel_that_refuses() {
        assert!(interface_by(Some(Errno::SRCH)).is_ok());
        assert!(interface_by(Some(Errno::ACCESS)).to_string().contains("0x17"));
        assert!(interface_by(Some(Errno::PERM)).to_string().contains("unrestricted=1"));
        assert!(interface_by(None).is_missing());
    }
}
