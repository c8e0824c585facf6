// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What Xen permits the driver domain for each guest. No attempt changes anything that a guest can notice.
//!
//! The policy is tested by operations on objects that do not exist, where Xen checks the policy first (Xen
//! 4.20, `common/memory.c`: `acquire_resource`; `common/grant_table.c`: `gnttab_copy_one`). Some rights
//! cannot be tested so:
//!
//! - binding an event channel and sending by it: Xen looks for the channel first, and all channels are in use
//!   by servers;
//! - unmapping a grant: Xen looks for the mapping first;
//! - mapping a grant: Linux reports EINVAL for every error of Xen
//!   (`drivers/xen/gntdev.c`: `gntdev_map_grant_pages`);
//! - unpausing: a paused guest would run.
//!
//! The process that lacks one of these rights reports it when it needs it.
//!
//! One more check: Xen must refuse to map the guest's grant table, which a Xen without our patches permits.

mod advice;

use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;
use xen_bindings::grant_copy::CrossesPage;
use xen_bindings::{
    CopyBatch, DomId, Gfn, Gntdev, GrantRef, GrantStatus, IoreqServer, IoreqServerId, Irq, IrqFd, Privcmd,
    Resource,
};

use super::Finding;
use crate::memory::address::PAGE;
use advice::{UNRESTRICTED, advice};
use shim_config::{Config, Guest, INTERRUPTS};

/// A domid that no domain has: the last one before the reserved ones (Xen's `xen.h`, DOMID_FIRST_RESERVED).
const NO_DOMAIN: u16 = 0x7fef;
/// A number that no ioreq server has: a guest has at most 8.
const NO_SERVER: u16 = u16::MAX;
/// A grant reference beyond every grant table.
const NO_GRANT: u32 = u32::MAX;
/// A frame beyond every grant table.
const NO_FRAME: u32 = u32::MAX - 1;

/// The attempts, in this order: each needs the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A device model operation.
    DeviceModel,
    /// The query of the ioreq servers. None is created, since a supervisor that starts then would adopt it.
    Servers,
    /// The query of the domain's state.
    DomainState,
    /// Mapping the page of an ioreq server.
    IoreqPage,
    /// A copy from a granted page.
    Read,
    /// A copy to a granted page.
    Write,
    /// Mapping a page of the RAM of a guest without grants.
    Ram,
    /// Mapping the guest's grant table, which Xen must refuse.
    GrantTable,
}

const STEPS: [Step; 8] = [
    Step::DeviceModel,
    Step::Servers,
    Step::DomainState,
    Step::IoreqPage,
    Step::Read,
    Step::Write,
    Step::Ram,
    Step::GrantTable,
];

/// The descriptors for the attempts.
struct Handles {
    privcmd: Privcmd,
    /// `None` if it cannot be opened, which is a finding of `kernel`.
    gntdev: Option<Gntdev>,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let Ok(privcmd) = Privcmd::open() else {
        // This is a finding of `kernel`.
        return Vec::new();
    };
    let mut findings = vec![interface(&privcmd), eventfds(&privcmd)];
    // This descriptor is restricted by the check and used for nothing else.
    findings.extend(Gntdev::open().ok().map(|gntdev| restriction(&gntdev)));
    let handles = Handles { privcmd, gntdev: Gntdev::open().ok() };
    let guests = config.guest.iter();
    findings.extend(guests.map(|guest| check_guest(guest, |step| attempt(&handles, guest, step))));
    findings
}

/// Checks the version of the domctl interface: Xen checks it before it finds that the domain does not exist.
fn interface(privcmd: &Privcmd) -> Finding {
    let answer = privcmd.unpause(DomId::new(NO_DOMAIN)).err().and_then(|error| errno(&error));
    interface_by(answer)
}

fn interface_by(answer: Option<Errno>) -> Finding {
    const WHAT: &str = "Xen's interface to let guests run (domctl)";
    match answer {
        Some(Errno::SRCH) => Finding::ok(WHAT),
        Some(Errno::ACCESS) => Finding::missing(
            WHAT,
            "its version is not known: this program supports those from Xen 4.20 (0x17) to 0x1f",
        ),
        Some(Errno::PERM) => Finding::missing(WHAT, UNRESTRICTED),
        Some(error) => Finding::missing(WHAT, format!("unexpected answer of Xen: {error}")),
        None => Finding::missing(WHAT, "Xen has unpaused a domain that does not exist"),
    }
}

/// Checks irqfd. The kernel does not call Xen before the eventfd is signalled.
fn eventfds(privcmd: &Privcmd) -> Finding {
    const WHAT: &str = "kicks and interrupts by the kernel (ioeventfd, irqfd)";
    let irq = Irq::new(*INTERRUPTS.start());
    match EventFd::new(0).map(|eventfd| IrqFd::assign(privcmd, DomId::new(NO_DOMAIN), irq, &eventfd)) {
        Ok(Ok(_)) => Finding::ok(WHAT),
        Ok(Err(error)) if error.is_unsupported() => {
            Finding::weak(WHAT, "works, but slower: build the kernel with CONFIG_XEN_PRIVCMD_EVENTFD=y")
        }
        Ok(Err(error)) => Finding::weak(WHAT, format!("the kernel refuses: {error}")),
        Err(error) => Finding::weak(WHAT, format!("cannot create an eventfd: {error}")),
    }
}

/// Checks that a gntdev descriptor can be restricted to the grants of one guest.
fn restriction(gntdev: &Gntdev) -> Finding {
    const WHAT: &str = "grants of one guest only (gntdev)";
    match gntdev.restrict(DomId::new(NO_DOMAIN)) {
        Ok(()) => Finding::ok(WHAT),
        Err(error) => Finding::missing(WHAT, format!("no guest is served: {error}")),
    }
}

/// Makes all attempts for a guest, up to the first that fails.
fn check_guest(guest: &Guest, attempt: impl Fn(Step) -> Result<(), Errno>) -> Finding {
    let what = format!("{}: domain {}", guest.name, guest.domid);
    for step in steps(guest) {
        if let Err(error) = attempt(step) {
            return Finding::missing(what, advice(step, error, guest));
        }
    }
    Finding::ok(what)
}

/// The attempts for a guest, whose backends copy from and to granted pages or map all of its RAM.
fn steps(guest: &Guest) -> impl Iterator<Item = Step> {
    let is_granted = guest.memory.is_empty();
    STEPS.into_iter().filter(move |step| match step {
        Step::Read | Step::Write => is_granted,
        Step::Ram => !is_granted,
        _ => true,
    })
}

fn attempt(handles: &Handles, configured: &Guest, step: Step) -> Result<(), Errno> {
    let (guest, privcmd) = (DomId::new(configured.domid), &handles.privcmd);
    let result = match step {
        Step::DeviceModel => privcmd.nr_vcpus(guest).map(drop),
        Step::Servers => IoreqServer::list(privcmd, guest).map(drop),
        Step::DomainState => privcmd.domain_state(guest).map(drop),
        Step::IoreqPage => IoreqServer::adopt(privcmd, guest, IoreqServerId::new(NO_SERVER)).page().map(drop),
        // The page is unmapped at once.
        Step::Ram => configured
            .memory
            .iter()
            .try_for_each(|bank| privcmd.map_foreign(guest, Gfn::new(bank.base / PAGE), 1).map(drop)),
        Step::GrantTable => {
            let answer = privcmd.map_resource(guest, Resource::GrantTable, NO_FRAME).err();
            return expect_denial(answer.as_ref().and_then(errno));
        }
        Step::Read | Step::Write => {
            return handles.gntdev.as_ref().map_or(Ok(()), |gntdev| copy(gntdev, guest, step));
        }
    };
    result.or_else(|error| beyond_policy(step, errno(&error).unwrap_or(Errno::IO)))
}

/// Xen reports a missing ioreq server after the policy has permitted the access.
fn beyond_policy(step: Step, error: Errno) -> Result<(), Errno> {
    if (step, error) == (Step::IoreqPage, Errno::NOENT) { Ok(()) } else { Err(error) }
}

/// A Xen whose policy permits the access reports a missing frame.
fn expect_denial(answer: Option<Errno>) -> Result<(), Errno> {
    match answer {
        Some(Errno::ACCESS) => Ok(()),
        Some(error) => Err(error),
        None => Err(Errno::INVAL),
    }
}

/// Copies a byte from or to a grant reference that does not exist.
fn copy(gntdev: &Gntdev, guest: DomId, step: Step) -> Result<(), Errno> {
    let (mut byte, mut batch, grant) = ([0], CopyBatch::new(), GrantRef::new(NO_GRANT));
    let added = match step {
        Step::Write => batch.to_guest(guest, grant, 0, &[0]),
        _ => batch.from_guest(guest, grant, 0, &mut byte),
    };
    // One byte crosses no page.
    added.map_err(|CrossesPage| Errno::INVAL)?;
    gntdev.copy(&mut batch).map_err(|error| errno(&error).unwrap_or(Errno::IO))?;
    batch.statuses().try_for_each(permitted)
}

/// Xen reports an unknown grant reference, or another error, after the policy has permitted the copy.
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

#[cfg(test)]
mod tests {
    use shim_config::MemoryBank;

    use super::super::tests::config;
    use super::*;

    const RAM: MemoryBank = MemoryBank { base: 0x4000_0000, size: 0x200_0000 };

    /// The finding when `step` fails with `error`.
    fn line(step: Step, error: Errno) -> String {
        let mut guest = config().guest.remove(0);
        if step == Step::Ram {
            guest.memory = vec![RAM];
        }
        let finding = check_guest(&guest, |tried| if tried == step { Err(error) } else { Ok(()) });
        assert!(finding.is_missing());
        finding.to_string()
    }

    #[test]
    fn guest_that_may_be_served_has_no_finding() {
        let finding = check_guest(&config().guest[0], |_| Ok(()));
        assert_eq!(finding.to_string(), "ok       guest-a: domain 2");
    }

    #[test]
    fn memory_of_a_guest_is_checked_as_its_backends_reach_it() {
        let mut guest = config().guest.remove(0);
        assert!(steps(&guest).all(|step| step != Step::Ram));
        guest.memory = vec![RAM];
        assert!(steps(&guest).all(|step| ![Step::Read, Step::Write].contains(&step)));
        assert!(steps(&guest).any(|step| step == Step::Ram));
    }

    #[test]
    fn each_refusal_of_xen_has_a_remedy() {
        let cases = [
            (Step::DeviceModel, Errno::SRCH, "no domain has the number 2"),
            (Step::DeviceModel, Errno::PERM, "xen_privcmd.unrestricted=1"),
            (Step::DeviceModel, Errno::ACCESS, "allow DRIVER GUEST:hvm dm;"),
            (Step::DeviceModel, Errno::NOSYS, "CONFIG_IOREQ_SERVER=y"),
            (Step::Servers, Errno::OPNOTSUPP, "CONFIG_IOREQ_SERVER=y"),
            (Step::Servers, Errno::NOMEM, "cannot query its ioreq servers: "),
            (Step::DomainState, Errno::ACCESS, "allow DRIVER GUEST:domain getdomaininfo;"),
            (Step::IoreqPage, Errno::ACCESS, "allow DRIVER GUEST:domain2 resource_map;"),
            (Step::Ram, Errno::ACCESS, "allow DRIVER GUEST:mmu { map_read map_write };"),
            (Step::Ram, Errno::NOMEM, "cannot map a page of its RAM: "),
            (Step::IoreqPage, Errno::NOMEM, "cannot map the page of an ioreq server: "),
            (Step::Read, Errno::ACCESS, "allow GUEST DRIVER:grant copy;"),
            (Step::Write, Errno::ACCESS, "allow DRIVER GUEST:grant copy;"),
            (Step::Write, Errno::FAULT, "cannot copy to its granted pages: "),
            (Step::GrantTable, Errno::INVAL, "build Xen with our patches"),
        ];
        for (step, error, expected) in cases {
            let line = line(step, error);
            assert!(line.starts_with("missing  guest-a: domain 2: ") && line.contains(expected), "{line}");
        }
    }

    #[test]
    fn missing_object_means_that_the_policy_permits() {
        assert_eq!(beyond_policy(Step::IoreqPage, Errno::NOENT), Ok(()));
        assert_eq!(beyond_policy(Step::IoreqPage, Errno::ACCESS), Err(Errno::ACCESS));
        assert_eq!(beyond_policy(Step::Servers, Errno::NOENT), Err(Errno::NOENT));
        assert_eq!(expect_denial(Some(Errno::ACCESS)), Ok(()));
        assert_eq!(expect_denial(Some(Errno::INVAL)), Err(Errno::INVAL));
        assert_eq!(expect_denial(None), Err(Errno::INVAL));
        assert_eq!(permitted(GrantStatus::BadGrantRef), Ok(()));
        assert_eq!(permitted(GrantStatus::PermissionDenied), Err(Errno::ACCESS));
        assert_eq!(permitted(GrantStatus::BadDomain), Err(Errno::SRCH));
    }

    #[test]
    fn kernel_that_cannot_restrict_grants_names_the_patch() {
        let line = restriction(&Gntdev::from_fd(tempfile::tempfile().unwrap().into())).to_string();
        assert!(
            line.starts_with("missing  grants of one guest only (gntdev): no guest is served: "),
            "{line}"
        );
        assert!(line.contains("0004-xen-gntdev"), "{line}");
    }

    #[test]
    fn each_step_calls_the_kernel() {
        let wrong = || tempfile::tempfile().unwrap().into();
        let guest = &config().guest[0];
        let guest = &Guest { memory: vec![RAM], ..guest.clone() };
        let mut handles =
            Handles { privcmd: Privcmd::from_fd(wrong()), gntdev: Some(Gntdev::from_fd(wrong())) };
        for step in STEPS {
            assert_eq!(attempt(&handles, guest, step), Err(Errno::NOTTY), "{step:?}");
        }
        handles.gntdev = None;
        assert_eq!(attempt(&handles, guest, Step::Read), Ok(()));
    }

    #[test]
    fn unknown_domctl_version_and_restricted_kernel_have_different_findings() {
        assert!(interface_by(Some(Errno::SRCH)).is_ok());
        assert!(interface_by(Some(Errno::ACCESS)).to_string().contains("0x17"));
        assert!(interface_by(Some(Errno::PERM)).to_string().contains("unrestricted=1"));
        assert!(interface_by(None).is_missing());
    }
}
