// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Xen: `xen/include/public/hvm/dm_op.h`, and the numbers of the ioreq page from `memory.h`.

use std::mem::{offset_of, size_of};

/// `XEN_DMOP_create_ioreq_server`.
pub const XEN_DMOP_CREATE_IOREQ_SERVER: u32 = 1;
/// `XEN_DMOP_get_ioreq_server_info`.
pub const XEN_DMOP_GET_IOREQ_SERVER_INFO: u32 = 2;
/// `XEN_DMOP_map_io_range_to_ioreq_server`.
pub const XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER: u32 = 3;
/// `XEN_DMOP_unmap_io_range_from_ioreq_server`.
pub const XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER: u32 = 4;
/// `XEN_DMOP_set_ioreq_server_state`.
pub const XEN_DMOP_SET_IOREQ_SERVER_STATE: u32 = 5;
/// `XEN_DMOP_destroy_ioreq_server`.
pub const XEN_DMOP_DESTROY_IOREQ_SERVER: u32 = 6;
/// `XEN_DMOP_set_irq_level`.
pub const XEN_DMOP_SET_IRQ_LEVEL: u32 = 19;
/// `XEN_DMOP_nr_vcpus`.
pub const XEN_DMOP_NR_VCPUS: u32 = 20;

/// `XEN_DMOP_IO_RANGE_MEMORY`.
pub const XEN_DMOP_IO_RANGE_MEMORY: u32 = 1;
/// `HVM_IOREQSRV_BUFIOREQ_OFF`, the only mode on Arm.
pub const HVM_IOREQSRV_BUFIOREQ_OFF: u8 = 0;

/// `XEN_DMOP_no_gfns`: the ioreq pages are not added to the guest's address space.
pub const XEN_DMOP_NO_GFNS: u16 = 1 << 0;

/// `XENMEM_resource_ioreq_server`.
pub const XENMEM_RESOURCE_IOREQ_SERVER: u32 = 0;
/// `XENMEM_resource_ioreq_server_frame_ioreq(0)`. Frame 0 is the page of buffered requests.
pub const XENMEM_RESOURCE_IOREQ_SERVER_FRAME_IOREQ_0: u32 = 1;

/// `struct xen_dm_op` with one member of its union. Xen accesses only the member of the operation `op`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct DmOp<T> {
    pub op: u32,
    pub pad: u32,
    pub u: T,
}

/// `struct xen_dm_op_create_ioreq_server`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct CreateIoreqServer {
    pub handle_bufioreq: u8,
    pub pad: [u8; 3],
    pub id: u16,
}

/// `struct xen_dm_op_get_ioreq_server_info`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct GetIoreqServerInfo {
    pub id: u16,
    pub flags: u16,
    pub bufioreq_port: u32,
    pub ioreq_gfn: u64,
    pub bufioreq_gfn: u64,
}

/// `struct xen_dm_op_ioreq_server_range`, for the map and the unmap operation.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct IoreqServerRange {
    pub id: u16,
    pub pad: u16,
    pub type_: u32,
    pub start: u64,
    pub end: u64,
}

/// `struct xen_dm_op_set_ioreq_server_state`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct SetIoreqServerState {
    pub id: u16,
    pub enabled: u8,
    pub pad: u8,
}

/// `struct xen_dm_op_destroy_ioreq_server`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct DestroyIoreqServer {
    pub id: u16,
    pub pad: u16,
}

/// `struct xen_dm_op_set_irq_level`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct SetIrqLevel {
    pub irq: u32,
    pub level: u8,
    pub pad: [u8; 3],
}

/// `struct xen_dm_op_nr_vcpus`.
#[derive(Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct NrVcpus {
    pub vcpus: u32,
}

const _: () = {
    assert!(offset_of!(DmOp<NrVcpus>, u) == 8);
    assert!(offset_of!(DmOp<CreateIoreqServer>, u) == 8);
    assert!(offset_of!(DmOp<IoreqServerRange>, u) == 8);
    assert!(size_of::<CreateIoreqServer>() == 6);
    assert!(size_of::<GetIoreqServerInfo>() == 24);
    assert!(size_of::<IoreqServerRange>() == 24);
    assert!(size_of::<SetIoreqServerState>() == 4);
    assert!(size_of::<DestroyIoreqServer>() == 4);
    assert!(size_of::<SetIrqLevel>() == 8);
    assert!(size_of::<NrVcpus>() == 4);
};
