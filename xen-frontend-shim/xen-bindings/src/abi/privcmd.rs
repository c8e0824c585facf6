// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Linux: `include/uapi/xen/privcmd.h`.

use std::mem::size_of;

use rustix::ioctl::{Opcode, opcode};

use super::none;

/// `IOCTL_PRIVCMD_HYPERCALL`.
pub const IOCTL_PRIVCMD_HYPERCALL: Opcode = none::<Hypercall>(b'P', 0);
/// `IOCTL_PRIVCMD_MMAPBATCH_V2`.
pub const IOCTL_PRIVCMD_MMAPBATCH_V2: Opcode = none::<MmapBatchV2>(b'P', 4);
/// `IOCTL_PRIVCMD_DM_OP`.
pub const IOCTL_PRIVCMD_DM_OP: Opcode = none::<DmOp>(b'P', 5);
/// `IOCTL_PRIVCMD_RESTRICT`.
pub const IOCTL_PRIVCMD_RESTRICT: Opcode = none::<u16>(b'P', 6);
/// `IOCTL_PRIVCMD_MMAP_RESOURCE`.
pub const IOCTL_PRIVCMD_MMAP_RESOURCE: Opcode = none::<MmapResource>(b'P', 7);
/// `IOCTL_PRIVCMD_IRQFD`.
pub const IOCTL_PRIVCMD_IRQFD: Opcode = opcode::write::<IrqFd>(b'P', 8);
/// `IOCTL_PRIVCMD_IOEVENTFD`.
pub const IOCTL_PRIVCMD_IOEVENTFD: Opcode = opcode::write::<IoEventFd>(b'P', 9);

/// `PRIVCMD_IRQFD_FLAG_DEASSIGN`.
pub const PRIVCMD_IRQFD_FLAG_DEASSIGN: u32 = 1 << 0;
/// `PRIVCMD_IOEVENTFD_FLAG_DEASSIGN`.
pub const PRIVCMD_IOEVENTFD_FLAG_DEASSIGN: u32 = 1 << 0;

/// `struct privcmd_hypercall`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Hypercall {
    pub op: u64,
    pub arg: [u64; 5],
}

/// `struct privcmd_mmapbatch_v2`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct MmapBatchV2 {
    pub num: u32,
    pub dom: u16,
    pub addr: u64,
    pub arr: u64,
    pub err: u64,
}

/// `struct privcmd_dm_op_buf`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct DmOpBuf {
    pub uptr: u64,
    pub size: u64,
}

/// `struct privcmd_dm_op`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct DmOp {
    pub dom: u16,
    pub num: u16,
    pub ubufs: u64,
}

/// `struct privcmd_mmap_resource`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct MmapResource {
    pub dom: u16,
    pub type_: u32,
    pub id: u32,
    pub idx: u32,
    pub num: u64,
    pub addr: u64,
}

/// `struct privcmd_irqfd`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct IrqFd {
    pub dm_op: u64,
    pub size: u32,
    pub fd: u32,
    pub flags: u32,
    pub dom: u16,
    pub pad: [u8; 2],
}

/// `struct privcmd_ioeventfd`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct IoEventFd {
    pub ioreq: u64,
    pub ports: u64,
    pub addr: u64,
    pub addr_len: u32,
    pub event_fd: u32,
    pub vcpus: u32,
    pub vq: u32,
    pub flags: u32,
    pub dom: u16,
    pub pad: [u8; 2],
}

const _: () = {
    assert!(size_of::<Hypercall>() == 48);
    assert!(size_of::<MmapBatchV2>() == 32);
    assert!(size_of::<DmOpBuf>() == 16);
    assert!(size_of::<DmOp>() == 16);
    assert!(size_of::<MmapResource>() == 32);
    assert!(size_of::<IrqFd>() == 24);
    assert!(size_of::<IoEventFd>() == 48);
};
