// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Linux: `include/uapi/xen/evtchn.h`.

use std::mem::size_of;

use rustix::ioctl::Opcode;

use super::none;

/// `IOCTL_EVTCHN_BIND_VIRQ`.
pub const IOCTL_EVTCHN_BIND_VIRQ: Opcode = none::<BindVirq>(b'E', 0);
/// `IOCTL_EVTCHN_BIND_INTERDOMAIN`.
pub const IOCTL_EVTCHN_BIND_INTERDOMAIN: Opcode = none::<BindInterdomain>(b'E', 1);
/// `IOCTL_EVTCHN_UNBIND`.
pub const IOCTL_EVTCHN_UNBIND: Opcode = none::<PortArg>(b'E', 3);
/// `IOCTL_EVTCHN_NOTIFY`.
pub const IOCTL_EVTCHN_NOTIFY: Opcode = none::<PortArg>(b'E', 4);
/// `IOCTL_EVTCHN_RESTRICT_DOMID`.
pub const IOCTL_EVTCHN_RESTRICT_DOMID: Opcode = none::<RestrictDomId>(b'E', 6);
/// `IOCTL_EVTCHN_BIND_STATIC`.
pub const IOCTL_EVTCHN_BIND_STATIC: Opcode = none::<PortArg>(b'E', 7);

/// `struct ioctl_evtchn_bind_virq`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct BindVirq {
    pub virq: u32,
}

/// `struct ioctl_evtchn_bind_interdomain`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct BindInterdomain {
    pub remote_domain: u32,
    pub remote_port: u32,
}

/// `struct ioctl_evtchn_unbind`, `struct ioctl_evtchn_notify` and `struct ioctl_evtchn_bind`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct PortArg {
    pub port: u32,
}

/// `struct ioctl_evtchn_restrict_domid`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RestrictDomId {
    pub domid: u16,
}

const _: () = {
    assert!(size_of::<BindVirq>() == 4);
    assert!(size_of::<BindInterdomain>() == 8);
    assert!(size_of::<PortArg>() == 4);
    assert!(size_of::<RestrictDomId>() == 2);
};
