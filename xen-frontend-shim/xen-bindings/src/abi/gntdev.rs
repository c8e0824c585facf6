// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Linux: `include/uapi/xen/gntdev.h`, and the flags and statuses of a copy from Xen's `grant_table.h`.

use std::mem::size_of;

use rustix::ioctl::Opcode;

use super::none;

/// `IOCTL_GNTDEV_MAP_GRANT_REF`.
pub const IOCTL_GNTDEV_MAP_GRANT_REF: Opcode = none::<MapGrantRef>(b'G', 0);
/// `IOCTL_GNTDEV_UNMAP_GRANT_REF`.
pub const IOCTL_GNTDEV_UNMAP_GRANT_REF: Opcode = none::<UnmapGrantRef>(b'G', 1);
/// `IOCTL_GNTDEV_GRANT_COPY`.
pub const IOCTL_GNTDEV_GRANT_COPY: Opcode = none::<GrantCopy>(b'G', 8);
/// `IOCTL_GNTDEV_RESTRICT_DOMID`, from our patch to Linux.
pub const IOCTL_GNTDEV_RESTRICT_DOMID: Opcode = none::<RestrictDomId>(b'G', 32);

/// `GNTCOPY_source_gref`: the segment's source is a grant.
pub const GNTCOPY_SOURCE_GREF: u16 = 1 << 0;
/// `GNTCOPY_dest_gref`: the segment's destination is a grant.
pub const GNTCOPY_DEST_GREF: u16 = 1 << 1;

/// `GNTST_okay`.
pub const GNTST_OKAY: i16 = 0;
/// `GNTST_general_error`.
pub const GNTST_GENERAL_ERROR: i16 = -1;
/// `GNTST_bad_domain`.
pub const GNTST_BAD_DOMAIN: i16 = -2;
/// `GNTST_bad_gntref`.
pub const GNTST_BAD_GNTREF: i16 = -3;
/// `GNTST_permission_denied`.
pub const GNTST_PERMISSION_DENIED: i16 = -8;
/// `GNTST_bad_page`.
pub const GNTST_BAD_PAGE: i16 = -9;
/// `GNTST_bad_copy_arg`.
pub const GNTST_BAD_COPY_ARG: i16 = -10;
/// `GNTST_address_too_big`.
pub const GNTST_ADDRESS_TOO_BIG: i16 = -11;
/// `GNTST_eagain`.
pub const GNTST_EAGAIN: i16 = -12;

/// `struct ioctl_gntdev_grant_ref`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct GrantRef {
    pub domid: u32,
    pub ref_: u32,
}

/// `struct ioctl_gntdev_map_grant_ref`, with the first of its `count` references.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct MapGrantRef {
    pub count: u32,
    pub pad: u32,
    pub index: u64,
    pub refs: [GrantRef; 1],
}

/// `struct ioctl_gntdev_unmap_grant_ref`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct UnmapGrantRef {
    pub index: u64,
    pub count: u32,
    pub pad: u32,
}

/// The `foreign` member of the union in `struct gntdev_grant_copy_segment`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Foreign {
    pub ref_: u32,
    pub offset: u16,
    pub domid: u16,
}

/// One end of a segment: the union in `struct gntdev_grant_copy_segment`, as 64 bits.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CopyEnd(u64);

impl CopyEnd {
    /// The `virt` member.
    #[must_use]
    pub const fn virt(address: u64) -> Self {
        Self(address)
    }

    /// The `foreign` member.
    #[must_use]
    pub const fn foreign(foreign: Foreign) -> Self {
        let [a, b, c, d] = foreign.ref_.to_le_bytes();
        let [e, f] = foreign.offset.to_le_bytes();
        let [g, h] = foreign.domid.to_le_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// `struct gntdev_grant_copy_segment`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct GrantCopySegment {
    pub source: CopyEnd,
    pub dest: CopyEnd,
    pub len: u16,
    pub flags: u16,
    pub status: i16,
}

/// `struct ioctl_gntdev_grant_copy`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct GrantCopy {
    pub count: u32,
    pub segments: u64,
}

/// `struct ioctl_gntdev_restrict_domid`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RestrictDomId {
    pub domid: u32,
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<GrantRef>() == 8);
    assert!(size_of::<MapGrantRef>() == 24);
    assert!(size_of::<UnmapGrantRef>() == 16);
    assert!(size_of::<Foreign>() == size_of::<CopyEnd>());
    assert!(size_of::<GrantCopySegment>() == 24);
    assert!(size_of::<GrantCopy>() == 16);
    assert!(size_of::<RestrictDomId>() == 8);
};
