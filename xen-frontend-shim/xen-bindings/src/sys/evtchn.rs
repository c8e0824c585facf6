// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ioctls of `/dev/xen/evtchn` (Linux 6.12, `drivers/xen/evtchn.c`).

use std::os::fd::BorrowedFd;

use rustix::io::Result;

use super::exchange;
use crate::abi::evtchn as abi;

/// `IOCTL_EVTCHN_BIND_INTERDOMAIN`. Returns the local port.
pub(crate) fn bind_interdomain(fd: BorrowedFd<'_>, domain: u16, port: u32) -> Result<u32> {
    let mut call = abi::BindInterdomain { remote_domain: domain.into(), remote_port: port };
    // SAFETY: the kernel reads this structure and returns the port.
    unsafe { exchange(fd, abi::IOCTL_EVTCHN_BIND_INTERDOMAIN, &mut call) }
}

/// `IOCTL_EVTCHN_BIND_VIRQ`. Returns the local port.
pub(crate) fn bind_virq(fd: BorrowedFd<'_>, virq: u32) -> Result<u32> {
    // SAFETY: the kernel reads this structure and returns the port.
    unsafe { exchange(fd, abi::IOCTL_EVTCHN_BIND_VIRQ, &mut abi::BindVirq { virq }) }
}

/// `IOCTL_EVTCHN_BIND_STATIC`.
pub(crate) fn bind_static(fd: BorrowedFd<'_>, port: u32) -> Result<()> {
    // SAFETY: the kernel reads this structure.
    unsafe { exchange(fd, abi::IOCTL_EVTCHN_BIND_STATIC, &mut abi::PortArg { port }) }.map(drop)
}

/// `IOCTL_EVTCHN_UNBIND`.
pub(crate) fn unbind(fd: BorrowedFd<'_>, port: u32) -> Result<()> {
    // SAFETY: the kernel reads this structure.
    unsafe { exchange(fd, abi::IOCTL_EVTCHN_UNBIND, &mut abi::PortArg { port }) }.map(drop)
}

/// `IOCTL_EVTCHN_NOTIFY`.
pub(crate) fn notify(fd: BorrowedFd<'_>, port: u32) -> Result<()> {
    // SAFETY: the kernel reads this structure.
    unsafe { exchange(fd, abi::IOCTL_EVTCHN_NOTIFY, &mut abi::PortArg { port }) }.map(drop)
}

/// `IOCTL_EVTCHN_RESTRICT_DOMID`.
pub(crate) fn restrict(fd: BorrowedFd<'_>, domid: u16) -> Result<()> {
    // SAFETY: the kernel reads this structure.
    unsafe { exchange(fd, abi::IOCTL_EVTCHN_RESTRICT_DOMID, &mut abi::RestrictDomId { domid }) }.map(drop)
}
