// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Xen: the part of `xen/include/public/domctl.h` that unpauses a domain and reports its end, and related
//! numbers of `xen.h` and `sched.h`.

use std::mem::size_of;

/// `__HYPERVISOR_domctl`, from Xen's `xen.h`.
pub const HYPERVISOR_DOMCTL: u64 = 36;
/// `XEN_DOMCTL_unpausedomain`.
pub const XEN_DOMCTL_UNPAUSEDOMAIN: u32 = 4;
/// `XEN_DOMCTL_getdomaininfo`.
pub const XEN_DOMCTL_GETDOMAININFO: u32 = 5;
/// `XEN_DOMCTL_set_virq_handler`.
pub const XEN_DOMCTL_SET_VIRQ_HANDLER: u32 = 66;
/// `XEN_DOMCTL_INTERFACE_VERSION` of Xen 4.20, the oldest version that this crate tries.
pub const XEN_DOMCTL_INTERFACE_VERSION_FIRST: u32 = 0x17;
/// The newest version that this crate tries. The domctls used here have been the same in all versions so far:
/// they have no parameters, or use the first word of them.
pub const XEN_DOMCTL_INTERFACE_VERSION_LAST: u32 = 0x1f;

/// `VIRQ_DOM_EXC`, from Xen's `xen.h`.
pub const VIRQ_DOM_EXC: u32 = 3;

/// `XEN_DOMINF_dying`.
pub const XEN_DOMINF_DYING: u32 = 1 << 0;
/// `XEN_DOMINF_shutdown`.
pub const XEN_DOMINF_SHUTDOWN: u32 = 1 << 2;

/// `SHUTDOWN_poweroff`.
pub const SHUTDOWN_POWEROFF: u8 = 0;
/// `SHUTDOWN_reboot`.
pub const SHUTDOWN_REBOOT: u8 = 1;
/// `SHUTDOWN_suspend`.
pub const SHUTDOWN_SUSPEND: u8 = 2;
/// `SHUTDOWN_crash`.
pub const SHUTDOWN_CRASH: u8 = 3;
/// `SHUTDOWN_watchdog`.
pub const SHUTDOWN_WATCHDOG: u8 = 4;

/// `struct xen_domctl`, with a union at least as large as in any version of Xen so far: Xen copies its own
/// size.
#[derive(Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Domctl {
    pub cmd: u32,
    pub interface_version: u32,
    pub domain: u16,
    pub pad: [u16; 3],
    pub u: [u64; 32],
}

/// The offset of the flags of `XEN_DOMCTL_getdomaininfo` in the union.
pub const DOMAININFO_FLAGS_OFFSET: usize = 4;

/// The flags in the answer to `XEN_DOMCTL_getdomaininfo`.
#[must_use]
pub const fn domaininfo_flags(answer: &Domctl) -> u32 {
    let [_, _, _, _, a, b, c, d] = answer.u[0].to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

const _: () = assert!(size_of::<Domctl>() == 16 + 256);
