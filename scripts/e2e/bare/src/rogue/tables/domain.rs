// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sub-operations for a domain itself, and for the domains that it serves.

use Word::{Frame, Grant, Is, Landing, LandingFrame, List, Own, OwnFrame, Target};

use crate::rogue::hypercall::{DOMID, FRAMES, HOST_MAP, Operation, SMALL, op};
use crate::rogue::words::{LANDING_FRAMES, RESULTS, TARGET_FRAMES, Word};

pub(super) const MEMORY: &[Operation] = &[
    op(0, "increase_reservation", &[List(LANDING_FRAMES), Is(1), Is(0), Target(0, 0)]),
    op(1, "decrease_reservation", &[List(TARGET_FRAMES), Is(1), Is(0), Target(0, 0)]),
    op(2, "maximum_ram_page", &[Is(0)]),
    op(3, "current_reservation", DOMID),
    op(4, "maximum_reservation", DOMID),
    op(5, "machphys_mfn_list", &[Is(1), List(RESULTS), Is(0)]),
    op(6, "populate_physmap", &[List(LANDING_FRAMES), Is(1), Is(0), Target(0, 0)]),
    op(7, "add_to_physmap:shared_info", &[Target(0, 0), Is(0), LandingFrame(0)]),
    op(7, "add_to_physmap:grant_table", &[Target(0, 1 << 32), Is(0), LandingFrame(1)]),
    op(7, "add_to_physmap:gmfn", &[Target(0, 2 << 32), Frame, LandingFrame(2)]),
    op(7, "add_to_physmap:gmfn_range", &[Target(0, 1 << 16 | 3 << 32), Frame, LandingFrame(3)]),
    op(7, "add_to_physmap:gmfn_foreign", &[Target(0, 4 << 32), Frame, LandingFrame(4)]),
    op(7, "add_to_physmap:dev_mmio", &[Target(0, 5 << 32), Is(0xa003), Is(0xa003)]),
    op(9, "memory_map", &[Is(1), List(RESULTS)]),
    op(10, "machine_memory_map", &[Is(1), List(RESULTS)]),
    op(
        11,
        "exchange",
        &[List(LANDING_FRAMES), Is(1), Is(0), Target(0, 0), List(LANDING_FRAMES), Is(1), Is(0), Target(0, 0)],
    ),
    op(12, "machphys_mapping", &[Is(0), Is(0), Is(0)]),
    op(13, "set_memory_map", &[Target(0, 0), Is(1), List(RESULTS)]),
    op(14, "maximum_gpfn", DOMID),
    op(15, "remove_from_physmap", &[Target(0, 0), Frame]),
    op(15, "remove_from_physmap", &[Target(0, 0), LandingFrame(0)]),
    op(16, "set_pod_target", &[Is(0), Is(0), Is(0), Is(0), Target(0, 0)]),
    op(17, "get_pod_target", &[Is(0), Is(0), Is(0), Is(0), Target(0, 0)]),
    op(18, "get_sharing_freed_pages", &[Is(0)]),
    op(19, "get_sharing_shared_pages", &[Is(0)]),
    op(20, "paging_op", &[Target(16, 0), List(RESULTS), Frame]),
    op(21, "access_op", &[Target(16, 7 << 8 | 1 << 32), Frame, Is(0), Is(0)]),
    op(22, "sharing_op", &[Target(16, 2), Frame, Is(1), Frame]),
    op(
        23,
        "add_to_physmap_batch:shared_info",
        &[Target(0, 1 << 32), List(TARGET_FRAMES), List(LANDING_FRAMES), List(RESULTS)],
    ),
    op(
        23,
        "add_to_physmap_batch:gmfn_foreign",
        &[Target(48, 0x7ff0 | 4 << 16 | 1 << 32), List(TARGET_FRAMES), List(LANDING_FRAMES), List(RESULTS)],
    ),
    op(24, "claim_pages", &[Is(0), Is(1), Is(0), Target(0, 0)]),
    op(25, "machphys_compat_mfn_list", &[Is(1), List(RESULTS), Is(0)]),
    op(
        26,
        "get_vnumainfo",
        &[Target(0, 1 << 32), Is(1 << 32 | 1), List(RESULTS), List(RESULTS), List(RESULTS)],
    ),
    op(27, "reserved_device_memory_map", &[Is(1 | 1 << 32), List(RESULTS), Is(0)]),
    op(28, "acquire_resource:ioreq_server", &[Target(0, 0), Is(1), Is(1), List(LANDING_FRAMES)]),
    op(28, "acquire_resource:grant_table", &[Target(0, 1 << 16), Is(1), Is(0), List(LANDING_FRAMES)]),
    op(
        28,
        "acquire_resource:grant_table",
        &[Target(0, 1 << 16 | 1 << 32), Is(1), Is(0), List(LANDING_FRAMES)],
    ),
    op(28, "acquire_resource:vmtrace_buf", &[Target(0, 2 << 16), Is(1), Is(0), List(LANDING_FRAMES)]),
];

pub(super) const GRANT_TABLE: &[Operation] = &[
    op(0, "map_grant_ref", &[Landing(8), Grant(32, HOST_MAP), Target(0, 0)]),
    op(1, "unmap_grant_ref", &[Landing(8), Is(0), Is(0)]),
    op(2, "setup_table", &[Target(0, 1 << 32), Is(0), List(RESULTS)]),
    op(3, "dump_table", DOMID),
    op(4, "transfer", &[LandingFrame(8), Target(0, 1 << 32)]),
    op(5, "copy", &[Grant(0, 0), Target(0, 0), OwnFrame, Is(0x7ff0), Is(8 | 1 << 16)]),
    op(6, "query_size", DOMID),
    op(7, "unmap_and_replace", &[Landing(8), Landing(9), Is(0)]),
    op(8, "set_version", &[Is(1)]),
    op(9, "get_status_frames", &[Target(32, 1), List(RESULTS)]),
    op(10, "get_version", DOMID),
    op(11, "swap_grant_ref", &[Is(9 << 32 | 8), Is(0)]),
    op(12, "cache_flush", &[Landing(8), Is(64 << 16 | 1 << 32)]),
];

pub(super) const EVENT_CHANNEL: &[Operation] = &[
    op(0, "bind_interdomain", &[Target(0, 1 << 32), Is(0)]),
    op(1, "bind_virq", &[Is(0), Is(0)]),
    op(2, "bind_pirq", &[Is(1), Is(0)]),
    op(3, "close", &[Is(900)]),
    op(4, "send", &[Is(1)]),
    op(5, "status", &[Target(0, 1 << 32), Is(0), Is(0)]),
    op(6, "alloc_unbound", &[Target(0, 0x7ff0 << 16)]),
    op(6, "alloc_unbound", &[Target(16, 0x7ff0)]),
    op(7, "bind_ipi", &[Is(0)]),
    op(8, "bind_vcpu", &[Is(1)]),
    op(9, "unmask", &[Is(1)]),
    op(10, "reset", DOMID),
    op(11, "init_control", &[OwnFrame, Is(0), Is(0)]),
    op(12, "expand_array", &[OwnFrame]),
    op(13, "set_priority", &[Is(1 | 7 << 32)]),
    op(14, "reset_cont", DOMID),
];

pub(super) const HVM: &[Operation] = &[
    op(0, "set_param", &[Target(0, 1 << 32), Is(1)]),
    op(1, "get_param", &[Target(0, 1 << 32), Is(0)]),
    op(2, "set_pci_intx_level", DOMID),
    op(3, "set_isa_irq_level", DOMID),
    op(4, "set_pci_link_route", DOMID),
    op(5, "flush_tlbs", &[Is(0)]),
    op(6, "track_dirty_vram", DOMID),
    op(7, "modified_memory", DOMID),
    op(8, "set_mem_type", DOMID),
    op(9, "pagetable_dying", DOMID),
    op(10, "get_time", SMALL),
    op(11, "xentrace", SMALL),
    op(12, "set_mem_access", DOMID),
    op(13, "get_mem_access", DOMID),
    op(14, "inject_trap", DOMID),
    op(15, "get_mem_type", DOMID),
    op(16, "inject_msi", DOMID),
    op(23, "set_evtchn_upcall_vector", SMALL),
    op(24, "guest_request_vm_event", &[Is(0)]),
    op(25, "altp2m", &[Target(32, 0x1_0000_0000_0001), Is(1)]),
];

/// dm_op. The words follow the operation.
pub(super) const DEVICE_MODEL: &[Operation] = &[
    op(1, "create_ioreq_server", &[Is(0)]),
    op(2, "get_ioreq_server_info", &[Is(1 << 16), Is(0), Is(0)]),
    op(3, "map_io_range_to_ioreq_server", &[Is(1 << 32), Is(0x0200_0000), Is(0x0200_01ff)]),
    op(4, "unmap_io_range_from_ioreq_server", &[Is(1 << 32), Is(0x0200_0000), Is(0x0200_01ff)]),
    op(5, "set_ioreq_server_state", &[Is(1 << 16)]),
    op(6, "destroy_ioreq_server", &[Is(7)]),
    op(7, "track_dirty_vram", FRAMES),
    op(8, "set_pci_intx_level", &[Is(1)]),
    op(9, "set_isa_irq_level", &[Is(1)]),
    op(10, "set_pci_link_route", &[Is(1)]),
    op(11, "modified_memory", &[Is(1), List(TARGET_FRAMES)]),
    op(12, "set_mem_type", &[Is(1 << 32), Frame]),
    op(13, "inject_event", &[Is(0), Is(0)]),
    op(14, "inject_msi", &[Is(0), Is(0)]),
    op(15, "map_mem_type_to_ioreq_server", &[Is(0), Is(0)]),
    op(16, "remote_shutdown", &[Is(3)]),
    op(17, "relocate_memory", &[Is(0), Frame, Frame]),
    op(18, "pin_memory_cacheattr", FRAMES),
    op(19, "set_irq_level", &[Is(40 | 1 << 32)]),
    op(20, "nr_vcpus", &[Is(0)]),
];

pub(super) const SCHEDULER: &[Operation] = &[
    op(0, "yield", &[Is(0)]),
    op(1, "block", &[Is(0)]),
    op(2, "shutdown", &[Is(3)]),
    op(3, "poll", &[List(RESULTS), Is(1), Is(1)]),
    op(4, "remote_shutdown", &[Target(0, 3 << 32)]),
    op(5, "shutdown_code", &[Is(3)]),
    op(6, "watchdog", &[Is(1 << 32)]),
    op(7, "pin_override", &[Is(1)]),
];

pub(super) const VCPU: &[Operation] = &[
    op(0, "initialise", &[List(RESULTS)]),
    op(1, "up", &[Is(0)]),
    op(2, "down", &[Is(0)]),
    op(3, "is_up", &[Is(0)]),
    op(4, "get_runstate_info", &[Is(0)]),
    op(5, "register_runstate_memory_area", &[Own]),
    op(6, "set_periodic_timer", &[Is(1_000_000)]),
    op(7, "stop_periodic_timer", &[Is(0)]),
    op(8, "set_singleshot_timer", &[Is(1), Is(0)]),
    op(9, "stop_singleshot_timer", &[Is(0)]),
    op(10, "register_vcpu_info", &[OwnFrame, Is(0)]),
    op(11, "send_nmi", &[Is(0)]),
    op(12, "get_physid", &[Is(0)]),
    op(13, "register_vcpu_time_memory_area", &[Own]),
    op(14, "register_runstate_phys_area", &[OwnFrame]),
    op(15, "register_vcpu_time_phys_area", &[OwnFrame]),
];

pub(super) const PHYSICAL_DEVICE: &[Operation] = &[
    op(4, "IRQ_UNMASK_NOTIFY", &[Is(39)]),
    op(5, "irq_status_query", &[Is(39)]),
    op(6, "set_iopl", &[Is(3)]),
    op(7, "set_iobitmap", SMALL),
    op(8, "apic_read", &[Is(0), Is(0)]),
    op(9, "apic_write", &[Is(0), Is(0)]),
    op(10, "alloc_irq_vector", &[Is(39)]),
    op(11, "free_irq_vector", &[Is(39)]),
    op(12, "eoi", &[Is(39)]),
    op(13, "map_pirq", &[Target(0, 1 << 32), Is(39), Is(0)]),
    op(14, "unmap_pirq", &[Target(0, 39 << 32)]),
    op(15, "manage_pci_add", &[Is(0)]),
    op(16, "manage_pci_remove", &[Is(0)]),
    op(17, "pirq_eoi_gmfn_v1", &[OwnFrame]),
    op(19, "restore_msi", &[Is(0)]),
    op(20, "manage_pci_add_ext", &[Is(0)]),
    op(21, "setup_gsi", &[Is(39)]),
    op(23, "get_free_pirq", &[Is(0)]),
    op(24, "pci_mmcfg_reserved", &[Is(0x3f00_0000), Is(0)]),
    op(25, "pci_device_add", &[Is(0)]),
    op(26, "pci_device_remove", &[Is(0)]),
    op(27, "restore_msi_ext", &[Is(0)]),
    op(28, "pirq_eoi_gmfn_v2", &[OwnFrame]),
    op(29, "dbgp_op", &[Is(1)]),
    op(30, "prepare_msix", &[Is(0)]),
    op(31, "release_msix", &[Is(0)]),
    op(32, "pci_device_reset", &[Is(0)]),
];

pub(super) const VERSION: &[Operation] = &[
    op(0, "version", &[Is(0)]),
    op(1, "extraversion", &[Is(0)]),
    op(2, "compile_info", &[Is(0)]),
    op(3, "capabilities", &[Is(0)]),
    op(4, "changeset", &[Is(0)]),
    op(5, "platform_parameters", &[Is(0)]),
    op(6, "get_features", &[Is(0)]),
    op(7, "pagesize", &[Is(0)]),
    op(8, "guest_handle", &[Is(0)]),
    op(9, "commandline", &[Is(0)]),
    op(10, "build_id", &[Is(64)]),
    op(11, "extraversion2", &[Is(64)]),
    op(12, "capabilities2", &[Is(64)]),
    op(13, "changeset2", &[Is(64)]),
    op(14, "commandline2", &[Is(64)]),
];

pub(super) const ARGO: &[Operation] = &[
    op(1, "register_ring", &[Target(32, 1), Is(4096)]),
    op(2, "unregister_ring", &[Target(32, 1)]),
    op(3, "sendv", &[Target(32, 1), Target(32, 1)]),
    op(4, "notify", &[Target(32, 1)]),
];

pub(super) const HYPERVISOR_FILES: &[Operation] =
    &[op(0, "get_version", &[Is(0)]), op(1, "read", &[Is(0x2f)]), op(2, "write_contents", &[Is(0x2f)])];
