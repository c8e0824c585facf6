// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors: the call, the domain, the answer of the kernel or Xen, and the usual remedy.
//!
//! Linux returns Xen's error numbers unchanged, so one number has several causes. The call distinguishes them
//! as far as possible.

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
    GetIoreqServerInfo = "query ioreq server",
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
    MapForeign = "map foreign page",
    /// `mmap` of a descriptor of privcmd and `IOCTL_PRIVCMD_MMAP_RESOURCE`, for another resource.
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
    InsertGrants = "insert grants to map",
    /// `mmap` of a descriptor of gntdev, which maps the grants.
    MapGrants = "map grants",
    /// `IOCTL_GNTDEV_UNMAP_GRANT_REF`.
    UnmapGrants = "unmap grants",
    /// `IOCTL_GNTDEV_GRANT_COPY`.
    GrantCopy = "grant copy",
    /// Duplicating a descriptor.
    Duplicate = "duplicate descriptor",
}

/// A failed call.
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

    /// The failed call.
    #[must_use]
    pub fn call(&self) -> Call {
        self.call
    }

    /// The domain of the call.
    #[must_use]
    pub fn domain(&self) -> Option<DomId> {
        self.domain
    }

    /// The answer of the kernel or Xen.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// Whether the kernel or Xen does not support the call.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOTTY | Errno::NOSYS | Errno::OPNOTSUPP))
    }

    /// Whether the kernel or Xen denies the call.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(Errno::PERM | Errno::ACCESS))
    }

    fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// The usual cause or remedy.
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

impl From<Error> for io::Error {
    /// Keeps the kind of the error, and its text with call, domain and hint.
    fn from(error: Error) -> Self {
        Self::new(error.source.kind(), error)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

const NOT_XEN: &str = "is this a Xen domain, and the kernel built with CONFIG_XEN_PRIVCMD, \
                       CONFIG_XEN_DEV_EVTCHN and CONFIG_XEN_GNTDEV?";
const NOT_ROOT: &str = "opening it needs root";
const RESTRICTED: &str = "the kernel of an unprivileged domain needs xen_privcmd.unrestricted=1 on its \
                          command line; or this descriptor is restricted to another domain";
const OTHER_DOMAIN: &str = "this descriptor is restricted to another domain";
const OTHER_DOMAIN_OR_POLICY: &str =
    "this descriptor is restricted to another domain, or Xen's security policy forbids it";
const POLICY: &str = "Xen's security policy does not allow this domain to do it";
const POLICY_OR_VERSION: &str =
    "Xen's security policy forbids it, or Xen's domctl interface is newer than this program supports";
const NO_IOREQ: &str = "Xen needs CONFIG_IOREQ_SERVER";
const NO_EVENTFD: &str = "the kernel lacks CONFIG_XEN_PRIVCMD_EVENTFD";
const NO_RESTRICTION: &str = "the kernel lacks the patch 0004-xen-gntdev of images/linux/patches, without \
                              which a process can access the grants of all guests: build it with that patch";
const NO_DOMAIN: &str = "there is no such domain";
const EVENTFD_IN_USE: &str = "this eventfd is assigned already; every queue needs one of its own";
const PAGE_IN_USE: &str = "another process has assigned another domain's ioreq page at the same address";
const CHANNEL_IN_USE: &str =
    "the channel is not meant for this domain, or another process still has it bound";
const VIRQ_IN_USE: &str = "another process of this domain has it";
const NOT_GRANTED: &str = "the domain has not granted these pages, or Xen's policy forbids it";
const TOO_MANY_SERVERS: &str = "the domain has as many ioreq servers as Xen allows";
const RANGE_IN_USE: &str = "the range overlaps one that is mapped already";
const NO_SPI: &str = "only SPIs that Xen itself does not use can be raised";

fn hint(call: Call, errno: Errno) -> Option<&'static str> {
    specific_hint(call, errno).or_else(|| general_hint(errno))
}

/// The meaning of an error number for one call only.
fn specific_hint(call: Call, errno: Errno) -> Option<&'static str> {
    use Call as C;
    use Errno as E;
    let hint = match (call, errno) {
        (C::OpenPrivcmd | C::OpenEvtchn | C::OpenGntdev, E::NOENT | E::NODEV) => NOT_XEN,
        (C::OpenPrivcmd | C::OpenEvtchn | C::OpenGntdev, _) => NOT_ROOT,
        (
            C::AssignIoEventFd | C::AssignIrqFd | C::DeassignIoEventFd | C::DeassignIrqFd,
            E::NOTTY | E::NOSYS | E::OPNOTSUPP,
        ) => NO_EVENTFD,
        (C::AssignIoEventFd | C::AssignIrqFd, E::BUSY) => EVENTFD_IN_USE,
        (C::AssignIoEventFd, E::INVAL) => PAGE_IN_USE,
        (C::Unpause | C::GetDomainInfo | C::SetVirqHandler, E::ACCESS) => POLICY_OR_VERSION,
        (C::BindInterdomain, E::INVAL) => CHANNEL_IN_USE,
        (C::BindVirq, E::EXIST) => VIRQ_IN_USE,
        (C::MapGrants, E::INVAL) => NOT_GRANTED,
        (C::CreateIoreqServer, E::NOSPC) => TOO_MANY_SERVERS,
        (C::MapIoRange, E::EXIST) => RANGE_IN_USE,
        (C::SetIrqLevel, E::INVAL) => NO_SPI,
        (C::MapIoreqPage, E::OPNOTSUPP | E::INVAL) => NO_IOREQ,
        (C::RestrictPrivcmd | C::RestrictGntdev, E::INVAL)
        | (C::RestrictEvtchn, E::ACCESS)
        | (C::InsertGrants | C::GrantCopy, E::PERM) => OTHER_DOMAIN,
        (C::RestrictGntdev, E::NOTTY) => NO_RESTRICTION,
        (C::BindInterdomain | C::BindVirq | C::BindStatic, E::ACCESS) => OTHER_DOMAIN_OR_POLICY,
        _ => return None,
    };
    Some(hint)
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
    fn text_names_the_call_the_domain_and_the_remedy() {
        let text = text(Call::CreateIoreqServer, Errno::PERM);
        assert!(text.starts_with("create ioreq server, domain 2: Operation not permitted"), "{text}");
        assert!(text.contains("xen_privcmd.unrestricted=1"), "{text}");
    }

    #[test]
    fn io_error_keeps_kind_and_text() {
        let text = text(Call::MapIoRange, Errno::EXIST);
        let error = io::Error::from(Error::new(Call::MapIoRange, Some(DomId::new(2)), Errno::EXIST));
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::AlreadyExists, text));
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
    fn denial_by_the_policy_names_the_policy() {
        assert!(text(Call::MapForeign, Errno::ACCESS).contains("security policy"));
        assert!(Error::new(Call::MapForeign, None, Errno::ACCESS).is_denied());
    }

    #[test]
    fn error_without_known_cause_has_no_hint() {
        assert!(text(Call::Notify, Errno::NOMEM).ends_with("(os error 12)"));
    }
}
