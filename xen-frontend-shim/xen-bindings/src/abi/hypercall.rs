// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Xen: hypercalls that only tests make, from `xen.h` and the headers that it names. The policy forbids them.

use std::ops::RangeInclusive;

macro_rules! numbers {
    ($($type:ty { $($rust:ident = $value:literal $c:literal,)+ })+) => {
        $($(#[doc = concat!("`", $c, "`.")] pub const $rust: $type = $value;)+)+

        /// The constants with their names in C.
        #[cfg(test)]
        pub(super) const NAMES: &[(i128, &str)] = &[$($(($value, $c),)+)+];
    };
}

numbers! {
    u16 {
        HYPERVISOR_PLATFORM_OP = 7 "__HYPERVISOR_platform_op",
        HYPERVISOR_MEMORY_OP = 12 "__HYPERVISOR_memory_op",
        HYPERVISOR_CONSOLE_IO = 18 "__HYPERVISOR_console_io",
        HYPERVISOR_GRANT_TABLE_OP = 20 "__HYPERVISOR_grant_table_op",
        HYPERVISOR_XSM_OP = 27 "__HYPERVISOR_xsm_op",
        HYPERVISOR_SCHED_OP = 29 "__HYPERVISOR_sched_op",
        HYPERVISOR_EVENT_CHANNEL_OP = 32 "__HYPERVISOR_event_channel_op",
        HYPERVISOR_HVM_OP = 34 "__HYPERVISOR_hvm_op",
        HYPERVISOR_SYSCTL = 35 "__HYPERVISOR_sysctl",
        HYPERVISOR_DOMCTL = 36 "__HYPERVISOR_domctl",
        FLASK_VERSION = 1 "XEN_FLASK_INTERFACE_VERSION",
        EVTCHNOP_STATUS = 5 "EVTCHNOP_status",
        EVTCHNOP_ALLOC_UNBOUND = 6 "EVTCHNOP_alloc_unbound",
        EVTCHNOP_RESET = 10 "EVTCHNOP_reset",
        HVMOP_SET_PARAM = 0 "HVMOP_set_param",
        HVMOP_GET_PARAM = 1 "HVMOP_get_param",
        SCHEDOP_REMOTE_SHUTDOWN = 4 "SCHEDOP_remote_shutdown",
        XENMEM_CURRENT_RESERVATION = 3 "XENMEM_current_reservation",
        XENMEM_ADD_TO_PHYSMAP = 7 "XENMEM_add_to_physmap",
        XENMEM_REMOVE_FROM_PHYSMAP = 15 "XENMEM_remove_from_physmap",
        GNTTABOP_SETUP_TABLE = 2 "GNTTABOP_setup_table",
        GNTTABOP_QUERY_SIZE = 6 "GNTTABOP_query_size",
        CONSOLEIO_WRITE = 0 "CONSOLEIO_write",
    }
    u32 {
        XENMEM_RESOURCE_GRANT_TABLE = 1 "XENMEM_resource_grant_table",
        XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED = 0 "XENMEM_resource_grant_table_id_shared",
        XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS = 1 "XENMEM_resource_grant_table_id_status",
        XENMEM_RESOURCE_VMTRACE_BUF = 2 "XENMEM_resource_vmtrace_buf",
    }
}

/// The versions of `XEN_DOMCTL_INTERFACE_VERSION` that are tried.
pub const DOMCTL_VERSIONS: RangeInclusive<u16> = 0x17..=0x1f;
/// The versions of `XEN_SYSCTL_INTERFACE_VERSION` that are tried.
pub const SYSCTL_VERSIONS: RangeInclusive<u16> = 0x15..=0x1f;
/// `XENPF_INTERFACE_VERSION`, lower half first.
pub const PLATFORM_VERSION: [u16; 2] = [1, 0x0300];
