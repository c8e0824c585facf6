// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Xen: `xen/include/public/domctl.h`, as far as unpausing a domain needs it.

use std::mem::size_of;

/// `__HYPERVISOR_domctl`, from Xen's `xen.h`.
pub const HYPERVISOR_DOMCTL: u64 = 36;
/// `XEN_DOMCTL_unpausedomain`.
pub const XEN_DOMCTL_UNPAUSEDOMAIN: u32 = 4;
/// `XEN_DOMCTL_INTERFACE_VERSION` of Xen 4.20, the oldest that this crate asks for.
pub const XEN_DOMCTL_INTERFACE_VERSION_FIRST: u32 = 0x17;
/// The newest version that this crate asks for. Unpausing has no parameters, so versions to come will not change it.
pub const XEN_DOMCTL_INTERFACE_VERSION_LAST: u32 = 0x1f;

/// `struct xen_domctl`. The union is larger here than in any version of Xen so far: Xen copies its own size.
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

const _: () = assert!(size_of::<Domctl>() == 16 + 256);
