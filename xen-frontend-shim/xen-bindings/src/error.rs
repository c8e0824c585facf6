// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What went wrong: which call, for which domain, the kernel's or Xen's answer, and what usually helps.
//!
//! Linux hands Xen's error numbers through unchanged, so one number has several causes; the call tells them apart as far
//! as that is possible.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::ids::DomId;

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// A call into the kernel or through it into Xen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Call {
            $($(#[$doc])* $name,)+
        }

        impl fmt::Display for Call {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)+ })
            }
        }
    };
}

calls! {
    /// Opening `/dev/xen/privcmd`.
    OpenPrivcmd = "open /dev/xen/privcmd",
    /// Opening `/dev/xen/evtchn`.
    OpenEvtchn = "open /dev/xen/evtchn",
    /// Opening `/dev/xen/gntdev`.
    OpenGntdev = "open /dev/xen/gntdev",
    /// `IOCTL_PRIVCMD_RESTRICT`.
    RestrictPrivcmd = "restrict privcmd",
    /// `XEN_DMOP_create_ioreq_server`.
    CreateIoreqServer = "create ioreq server",
    /// `XEN_DMOP_get_ioreq_server_info`.
    GetIoreqServerInfo = "ask for ioreq server",
    /// `XEN_DMOP_destroy_ioreq_server`.
    DestroyIoreqServer = "destroy ioreq server",
    /// `XEN_DMOP_map_io_range_to_ioreq_server`.
    MapIoRange = "map I/O range to ioreq server",
    /// `XEN_DMOP_unmap_io_range_from_ioreq_server`.
    UnmapIoRange = "unmap I/O range from ioreq server",
    /// `XEN_DMOP_set_ioreq_server_state`.
    SetIoreqServerState = "set ioreq server state",
    /// `XEN_DMOP_set_irq_level`.
    SetIrqLevel = "set interrupt level",
    /// `XEN_DMOP_nr_vcpus`.
    NrVcpus = "query number of vCPUs",
    /// `mmap` of a descriptor of privcmd and `IOCTL_PRIVCMD_MMAP_RESOURCE`.
    MapIoreqPage = "map ioreq page",
    /// `mmap` of a descriptor of privcmd and `IOCTL_PRIVCMD_MMAPBATCH_V2`.
    MapForeignPage = "map foreign page",
    /// `mmap` of a descriptor of privcmd and `IOCTL_PRIVCMD_MMAP_RESOURCE`, of what is no ioreq page of ours.
    MapResource = "map resource",
    /// A hypercall that the policy forbids.
    Forbidden = "forbidden hypercall",
    /// `XEN_DOMCTL_unpausedomain`.
    Unpause = "unpause",
    /// `XEN_DOMCTL_getdomaininfo`.
    GetDomainInfo = "get domain info",
    /// `XEN_DOMCTL_set_virq_handler`.
    SetVirqHandler = "set handler of domain events",
    /// `IOCTL_PRIVCMD_IOEVENTFD`.
    AssignIoEventFd = "assign ioeventfd",
    /// `IOCTL_PRIVCMD_IOEVENTFD` with the deassign flag.
    DeassignIoEventFd = "deassign ioeventfd",
    /// `IOCTL_PRIVCMD_IRQFD`.
    AssignIrqFd = "assign irqfd",
    /// `IOCTL_PRIVCMD_IRQFD` with the deassign flag.
    DeassignIrqFd = "deassign irqfd",
    /// `IOCTL_EVTCHN_RESTRICT_DOMID`.
    RestrictEvtchn = "restrict evtchn",
    /// `IOCTL_EVTCHN_BIND_INTERDOMAIN`.
    BindInterdomain = "bind event channel",
    /// `IOCTL_EVTCHN_BIND_VIRQ`.
    BindVirq = "bind virtual interrupt",
    /// `IOCTL_EVTCHN_BIND_STATIC`.
    BindStatic = "bind static event channel",
    /// `IOCTL_EVTCHN_UNBIND`.
    Unbind = "unbind event channel",
    /// `IOCTL_EVTCHN_NOTIFY`.
    Notify = "notify event channel",
    /// `read` of a descriptor of evtchn.
    ReadPending = "read pending event channels",
    /// `write` to a descriptor of evtchn.
    Unmask = "unmask event channels",
    /// `IOCTL_GNTDEV_RESTRICT_DOMID`.
    RestrictGntdev = "restrict gntdev",
    /// `IOCTL_GNTDEV_MAP_GRANT_REF`.
    InsertGrants = "enter grants to map",
    /// `mmap` of a descriptor of gntdev, which maps the grants.
    MapGrants = "map grants",
    /// `IOCTL_GNTDEV_UNMAP_GRANT_REF`.
    UnmapGrants = "unmap grants",
    /// `IOCTL_GNTDEV_GRANT_COPY`.
    GrantCopy = "grant copy",
    /// Duplicating a descriptor.
    Duplicate = "duplicate descriptor",
}

/// A call that failed.
#[derive(Debug)]
pub struct Error {
    call: Call,
    domain: Option<DomId>,
    source: io::Error,
}

impl Error {
    pub(crate) fn new(call: Call, domain: Option<DomId>, source: impl Into<io::Error>) -> Self {
        Self { call, domain, source: source.into() }
    }

    /// The call that failed.
    #[must_use]
    pub fn call(&self) -> Call {
        self.call
    }

    /// The domain that the call was about.
    #[must_use]
    pub fn domain(&self) -> Option<DomId> {
        self.domain
    }

    /// The kernel's or Xen's answer.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// Whether the kernel or Xen does not have this call at all, so that the caller should do without it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOTTY | Errno::NOSYS | Errno::OPNOTSUPP))
    }

    /// Whether Xen or the kernel forbids the call.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(Errno::PERM | Errno::ACCESS))
    }

    fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// What usually causes this, as advice to the operator.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        hint(self.call, self.errno()?)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        if let Some(domain) = self.domain {
            write!(f, ", {domain}")?;
        }
        write!(f, ": {}", self.source)?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

const NOT_XEN: &str = "is this a Xen domain, and the kernel built with CONFIG_XEN_PRIVCMD, CONFIG_XEN_DEV_EVTCHN and \
                       CONFIG_XEN_GNTDEV?";
const RESTRICTED: &str = "the kernel of an unprivileged domain needs xen_privcmd.unrestricted=1 on its command line; \
                          or this descriptor is restricted to another domain";
const POLICY: &str = "Xen's security policy does not allow this domain to do it";
const NO_IOREQ: &str = "Xen needs CONFIG_IOREQ_SERVER";
const NO_EVENTFD: &str = "the kernel lacks CONFIG_XEN_PRIVCMD_EVENTFD";
const NO_RESTRICTION: &str = "the kernel lacks the patch 0004-xen-gntdev of images/linux/patches, without which a process \
                              reaches what any guest has granted: build it with that patch";
const NO_DOMAIN: &str = "there is no such domain";

fn hint(call: Call, errno: Errno) -> Option<&'static str> {
    specific_hint(call, errno).or_else(|| general_hint(errno))
}

/// What an error number means for one call only.
fn specific_hint(call: Call, errno: Errno) -> Option<&'static str> {
    match (call, errno) {
        (Call::OpenPrivcmd | Call::OpenEvtchn | Call::OpenGntdev, Errno::NOENT | Errno::NODEV) => {
            Some(NOT_XEN)
        }
        (Call::OpenPrivcmd | Call::OpenEvtchn | Call::OpenGntdev, _) => Some("opening it needs root"),
        (
            Call::AssignIoEventFd | Call::AssignIrqFd | Call::DeassignIoEventFd | Call::DeassignIrqFd,
            Errno::NOTTY | Errno::NOSYS | Errno::OPNOTSUPP,
        ) => Some(NO_EVENTFD),
        (Call::AssignIoEventFd | Call::AssignIrqFd, Errno::BUSY) => {
            Some("this eventfd is assigned already; every queue needs one of its own")
        }
        (Call::AssignIoEventFd, Errno::INVAL) => {
            Some("another domain's ioreq page is assigned at the same address, by another process")
        }
        (Call::Unpause | Call::GetDomainInfo | Call::SetVirqHandler, Errno::ACCESS) => Some(
            "Xen's security policy forbids it, or Xen's domctl interface is newer than this program knows",
        ),
        (Call::BindInterdomain, Errno::INVAL) => {
            Some("the channel is not meant for this domain, or another process still has it bound")
        }
        (Call::BindVirq, Errno::EXIST) => Some("another process of this domain has it"),
        (Call::MapGrants, Errno::INVAL) => {
            Some("the domain has not granted these pages, or Xen's policy forbids it")
        }
        (Call::CreateIoreqServer, Errno::NOSPC) => Some("the domain has as many ioreq servers as Xen allows"),
        (Call::MapIoRange, Errno::EXIST) => Some("the range overlaps one that is mapped already"),
        (Call::SetIrqLevel, Errno::INVAL) => Some("only SPIs that Xen itself does not use can be raised"),
        (Call::MapIoreqPage, Errno::OPNOTSUPP | Errno::INVAL) => Some(NO_IOREQ),
        (Call::RestrictPrivcmd | Call::RestrictGntdev, Errno::INVAL)
        | (Call::RestrictEvtchn, Errno::ACCESS)
        | (Call::InsertGrants | Call::GrantCopy, Errno::PERM) => {
            Some("this descriptor is restricted to another domain")
        }
        (Call::RestrictGntdev, Errno::NOTTY) => Some(NO_RESTRICTION),
        (Call::BindInterdomain | Call::BindVirq | Call::BindStatic, Errno::ACCESS) => {
            Some("this descriptor is restricted to another domain, or Xen's security policy forbids it")
        }
        _ => None,
    }
}

fn general_hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::PERM => Some(RESTRICTED),
        Errno::ACCESS => Some(POLICY),
        Errno::NOSYS | Errno::OPNOTSUPP => Some(NO_IOREQ),
        Errno::SRCH => Some(NO_DOMAIN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(call: Call, errno: Errno) -> String {
        Error::new(call, Some(DomId::new(2)), errno).to_string()
    }

    #[test]
    fn the_text_names_the_call_the_domain_and_the_remedy() {
        let text = text(Call::CreateIoreqServer, Errno::PERM);
        assert!(text.starts_with("create ioreq server, domain 2: Operation not permitted"), "{text}");
        assert!(text.contains("xen_privcmd.unrestricted=1"), "{text}");
    }

    #[test]
    fn missing_kernel_options_are_named() {
        for errno in [Errno::NOTTY, Errno::OPNOTSUPP] {
            assert!(text(Call::AssignIoEventFd, errno).contains("CONFIG_XEN_PRIVCMD_EVENTFD"));
            assert!(Error::new(Call::AssignIrqFd, None, errno).is_unsupported());
        }
        assert!(text(Call::NrVcpus, Errno::OPNOTSUPP).contains("CONFIG_IOREQ_SERVER"));
    }

    #[test]
    fn a_policy_denial_is_not_taken_for_the_kernels() {
        assert!(text(Call::MapForeignPage, Errno::ACCESS).contains("security policy"));
        assert!(Error::new(Call::MapForeignPage, None, Errno::ACCESS).is_denied());
    }

    #[test]
    fn an_error_without_known_cause_has_no_hint() {
        assert!(text(Call::Notify, Errno::NOMEM).ends_with("(os error 12)"));
    }
}
