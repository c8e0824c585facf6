// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All hypercalls and their sub-operations, with the numbers, names and structures of Xen's public headers (4.20), each
//! with values that make sense. A number without a name is called, too.

use Word::{Frame, Grant, Is, Landing, LandingFrame, List, Own, OwnFrame, Target};

use super::words::{LANDING_FRAMES, RESULTS, TARGET_FRAMES, TEXT, Word};

/// How a hypercall is told its sub-operation, and where its structure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The number, the structure, how many of them.
    Register,
    /// The number, a vCPU, the structure.
    Vcpu,
    /// The number, a length, the structure.
    Length,
    /// The structure, which begins with the number and this version of the interface.
    Versioned(u32),
    /// The structure, which begins with the number.
    Structure,
    /// The domain, how many buffers, and they: the first is the structure, which begins with the number.
    Device,
    /// The words are in the registers, the number first.
    Registers,
    /// There are no sub-operations; the words are in the registers.
    None,
}

/// A hypercall.
#[derive(Debug)]
pub(super) struct Hypercall {
    /// Its number.
    pub(super) number: u64,
    /// Its name.
    pub(super) name: &'static str,
    /// How it is called.
    pub(super) form: Form,
    /// Sub-operations below this are called, whether they have a name or not.
    pub(super) end: u64,
    /// What the structure of one without a name has.
    pub(super) words: &'static [Word],
    /// Those that have a name.
    pub(super) operations: &'static [Operation],
}

/// A sub-operation.
#[derive(Debug)]
pub(super) struct Operation {
    /// Its number.
    pub(super) number: u64,
    /// Its name.
    pub(super) name: &'static str,
    /// What its structure has, after the number if that is in it.
    pub(super) words: &'static [Word],
}

/// A sub-operation with a structure of its own.
const fn op(number: u64, name: &'static str, words: &'static [Word]) -> Operation {
    Operation { number, name, words }
}

/// Types of a resource, spaces of a mapping: what distinguishes two calls of the same sub-operation.
pub(super) const RESOURCES: &[&str] = &["ioreq_server", "grant_table", "vmtrace_buf"];
pub(super) const SPACES: &[&str] =
    &["shared_info", "grant_table", "gmfn", "gmfn_range", "gmfn_foreign", "dev_mmio"];

/// `GNTMAP_host_map`: the page shall be put somewhere.
pub(super) const HOST_MAP: u64 = 2;

pub(super) const GRANT_TABLE_OP: u64 = 20;
pub(super) const MEMORY_OP: u64 = 12;
pub(super) const EVENT_CHANNEL_OP: u64 = 32;
pub(super) const DEVICE_MODEL_OP: u64 = 41;
pub(super) const DOMCTL: u64 = 36;
pub(super) const HVM_OP: u64 = 34;
pub(super) const SCHED_OP: u64 = 29;
pub(super) const SCHED_OP_COMPAT: u64 = 6;
pub(super) const VCPU_OP: u64 = 24;

/// A structure whose first field is a domid.
const DOMID: &[Word] = &[Target(0, 0), Is(0), Is(1), List(LANDING_FRAMES)];
/// What many operations of domctl want: numbers that are small.
const SMALL: &[Word] = &[Is(1), List(TEXT), Is(1), List(LANDING_FRAMES)];
/// Those whose first field is a vCPU, and then comes a buffer.
const OF_VCPU: &[Word] = &[Is(0), List(RESULTS), Is(64), List(RESULTS)];
/// Those that name a range of frames.
const FRAMES: &[Word] = &[Frame, Frame, Is(1), Is(1)];

/// So many of the hypercalls, the first ones, are there on Arm and have much to check.
pub(super) const FREQUENT: usize = 9;

/// The hypercalls. One that is not here has no sub-operations that anybody knows of on Arm.
pub(super) const HYPERCALLS: &[Hypercall] = &[
    Hypercall {
        number: MEMORY_OP,
        name: "memory_op",
        form: Form::Register,
        end: 32,
        words: DOMID,
        operations: MEMORY,
    },
    Hypercall {
        number: GRANT_TABLE_OP,
        name: "grant_table_op",
        form: Form::Register,
        end: 16,
        words: DOMID,
        operations: GRANT_TABLE,
    },
    Hypercall {
        number: EVENT_CHANNEL_OP,
        name: "event_channel_op",
        form: Form::Register,
        end: 17,
        words: DOMID,
        operations: EVENT_CHANNEL,
    },
    Hypercall {
        number: DOMCTL,
        name: "domctl",
        form: Form::Versioned(0x17),
        end: 96,
        words: SMALL,
        operations: DOMAIN_CONTROL,
    },
    Hypercall {
        number: 35,
        name: "sysctl",
        form: Form::Versioned(0x15),
        end: 36,
        words: SMALL,
        operations: SYSTEM_CONTROL,
    },
    Hypercall {
        number: 7,
        name: "platform_op",
        form: Form::Versioned(0x0300_0001),
        end: 72,
        words: SMALL,
        operations: PLATFORM,
    },
    Hypercall {
        number: 27,
        name: "xsm_op",
        form: Form::Versioned(1),
        end: 30,
        words: &[List(TEXT), Is(26), List(TEXT), Is(26)],
        operations: FLASK,
    },
    Hypercall {
        number: HVM_OP,
        name: "hvm_op",
        form: Form::Register,
        end: 30,
        words: DOMID,
        operations: HVM,
    },
    Hypercall {
        number: DEVICE_MODEL_OP,
        name: "dm_op",
        form: Form::Device,
        end: 24,
        words: &[Is(0), Is(1), Is(0)],
        operations: DEVICE_MODEL,
    },
    Hypercall {
        number: SCHED_OP,
        name: "sched_op",
        form: Form::Register,
        end: 12,
        words: &[Is(0), Is(0)],
        operations: SCHEDULER,
    },
    Hypercall {
        number: 16,
        name: "event_channel_op_compat",
        form: Form::Structure,
        end: 17,
        words: DOMID,
        operations: EVENT_CHANNEL,
    },
    Hypercall {
        number: SCHED_OP_COMPAT,
        name: "sched_op_compat",
        form: Form::Register,
        end: 12,
        words: &[Is(0), Is(0)],
        operations: SCHEDULER,
    },
    Hypercall {
        number: VCPU_OP,
        name: "vcpu_op",
        form: Form::Vcpu,
        end: 18,
        words: &[OwnFrame, Is(0)],
        operations: VCPU,
    },
    Hypercall {
        number: 33,
        name: "physdev_op",
        form: Form::Register,
        end: 34,
        words: &[Target(0, 0), Is(1), Is(1)],
        operations: PHYSICAL_DEVICE,
    },
    Hypercall {
        number: 19,
        name: "physdev_op_compat",
        form: Form::Structure,
        end: 34,
        words: &[Is(1), Is(1)],
        operations: PHYSICAL_DEVICE,
    },
    Hypercall {
        number: 17,
        name: "xen_version",
        form: Form::Register,
        end: 18,
        words: &[Is(0), Is(512)],
        operations: VERSION,
    },
    Hypercall {
        number: 18,
        name: "console_io",
        form: Form::Length,
        end: 4,
        words: &[Is(0x0a2e_2e2e)],
        operations: &[op(0, "write", &[Is(0x0a2e_2e2e)]), op(1, "read", &[Is(0)])],
    },
    Hypercall {
        number: 21,
        name: "vm_assist",
        form: Form::Registers,
        end: 4,
        words: &[Is(5)],
        operations: &[op(0, "enable", &[Is(5)]), op(1, "disable", &[Is(5)])],
    },
    Hypercall {
        number: 39,
        name: "argo_op",
        form: Form::Register,
        end: 6,
        words: &[Target(32, 1), List(LANDING_FRAMES), Is(1)],
        operations: ARGO,
    },
    Hypercall {
        number: 42,
        name: "hypfs_op",
        form: Form::Register,
        end: 4,
        words: &[Is(0x2f)],
        operations: HYPERVISOR_FILES,
    },
    Hypercall {
        number: 40,
        name: "xenpmu_op",
        form: Form::Register,
        end: 8,
        words: &[Is(1), Is(0), Is(0)],
        operations: &[],
    },
    Hypercall {
        number: 31,
        name: "xenoprof_op",
        form: Form::Register,
        end: 20,
        words: SMALL,
        operations: &[],
    },
    Hypercall { number: 37, name: "kexec_op", form: Form::Register, end: 8, words: SMALL, operations: &[] },
    Hypercall {
        number: 30,
        name: "callback_op",
        form: Form::Register,
        end: 4,
        words: SMALL,
        operations: &[],
    },
    Hypercall { number: 28, name: "nmi_op", form: Form::Register, end: 4, words: SMALL, operations: &[] },
    Hypercall {
        number: 1,
        name: "mmu_update",
        form: Form::None,
        end: 1,
        words: &[List(TARGET_FRAMES), Is(1), List(RESULTS), Target(0, 0)],
        operations: &[],
    },
    Hypercall {
        number: 26,
        name: "mmuext_op",
        form: Form::None,
        end: 1,
        words: &[List(TARGET_FRAMES), Is(1), List(RESULTS), Target(0, 0)],
        operations: &[],
    },
    Hypercall {
        number: 22,
        name: "update_va_mapping_otherdomain",
        form: Form::None,
        end: 1,
        words: &[Landing(0), Frame, Is(0), Target(0, 0)],
        operations: &[],
    },
    Hypercall {
        number: 14,
        name: "update_va_mapping",
        form: Form::None,
        end: 1,
        words: &[Landing(0), Frame, Is(0)],
        operations: &[],
    },
];

const MEMORY: &[Operation] = &[
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

const GRANT_TABLE: &[Operation] = &[
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

const EVENT_CHANNEL: &[Operation] = &[
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

/// The words of these come after the command, the version and the domid.
const DOMAIN_CONTROL: &[Operation] = &[
    op(1, "createdomain", &[Is(0), Is(0), Is(0), Is(1 << 32 | 1)]),
    op(2, "destroydomain", SMALL),
    op(3, "pausedomain", SMALL),
    op(4, "unpausedomain", SMALL),
    op(5, "getdomaininfo", SMALL),
    op(9, "setvcpuaffinity", &[Is(1 << 32), List(RESULTS), Is(8), List(RESULTS), Is(8)]),
    op(10, "shadow_op", &[Is(30), Is(0), Is(0)]),
    op(11, "max_mem", &[Is(4096)]),
    op(12, "setvcpucontext", OF_VCPU),
    op(13, "getvcpucontext", OF_VCPU),
    op(14, "getvcpuinfo", OF_VCPU),
    op(15, "max_vcpus", SMALL),
    op(16, "scheduler_op", &[Is(5 | 1 << 32), Is(1)]),
    op(17, "setdomainhandle", SMALL),
    op(18, "setdebugging", SMALL),
    op(19, "irq_permission", &[Is(33 | 1 << 8)]),
    op(20, "iomem_permission", FRAMES),
    op(21, "ioport_permission", SMALL),
    op(22, "hypercall_init", &[OwnFrame]),
    op(23, "soft_reset_cont", SMALL),
    op(24, "settimeoffset", SMALL),
    op(25, "getvcpuaffinity", &[Is(1 << 32), List(RESULTS), Is(8), List(RESULTS), Is(8)]),
    op(26, "real_mode_area", SMALL),
    op(27, "resumedomain", SMALL),
    op(28, "sendtrigger", &[Is(3)]),
    op(29, "subscribe", SMALL),
    op(33, "gethvmcontext", &[Is(256), List(RESULTS)]),
    op(34, "sethvmcontext", &[Is(256), List(RESULTS)]),
    op(35, "set_address_size", &[Is(64)]),
    op(36, "get_address_size", SMALL),
    op(37, "assign_device", &[Is(1), Is(22), List(TEXT)]),
    op(38, "bind_pt_irq", &[Is(39 | 4 << 32), Is(39)]),
    op(39, "memory_mapping", FRAMES),
    op(40, "ioport_mapping", SMALL),
    op(42, "set_ext_vcpucontext", OF_VCPU),
    op(43, "get_ext_vcpucontext", OF_VCPU),
    op(44, "set_opt_feature", SMALL),
    op(45, "test_assign_device", &[Is(1), Is(22), List(TEXT)]),
    op(46, "set_target", &[Is(3)]),
    op(47, "deassign_device", &[Is(1), Is(22), List(TEXT)]),
    op(48, "unbind_pt_irq", &[Is(39 | 4 << 32), Is(39)]),
    op(50, "get_device_group", &[Is(1 << 32), List(RESULTS)]),
    op(54, "debug_op", OF_VCPU),
    op(55, "gethvmcontext_partial", &[Is(1), Is(64), List(RESULTS)]),
    op(56, "vm_event_op", &[Is(1), Is(1)]),
    op(57, "mem_sharing_op", SMALL),
    op(59, "gettscinfo", SMALL),
    op(60, "settscinfo", SMALL),
    op(61, "getpageframeinfo3", &[Is(1), List(TARGET_FRAMES)]),
    op(62, "setvcpuextstate", OF_VCPU),
    op(63, "getvcpuextstate", OF_VCPU),
    op(64, "set_access_required", SMALL),
    op(65, "audit_p2m", SMALL),
    op(66, "set_virq_handler", &[Is(3)]),
    op(67, "set_broken_page_p2m", &[Frame]),
    op(68, "setnodeaffinity", &[List(RESULTS), Is(8)]),
    op(69, "getnodeaffinity", &[List(RESULTS), Is(8)]),
    op(71, "cacheflush", &[Frame, Is(1)]),
    op(72, "get_vcpu_msrs", OF_VCPU),
    op(73, "set_vcpu_msrs", OF_VCPU),
    op(
        74,
        "setvnumainfo",
        &[Is(1 | 1 << 32), Is(1), List(RESULTS), List(RESULTS), List(RESULTS), List(RESULTS)],
    ),
    op(75, "psr_cmt_op", SMALL),
    op(77, "monitor_op", &[Is(0), Is(0)]),
    op(78, "psr_alloc", SMALL),
    op(79, "soft_reset", SMALL),
    op(81, "vuart_op", &[Is(0x0001_0000_0000), OwnFrame]),
    op(82, "get_cpu_policy", SMALL),
    op(83, "set_cpu_policy", SMALL),
    op(84, "vmtrace_op", &[Is(1)]),
    op(85, "get_paging_mempool_size", SMALL),
    op(86, "set_paging_mempool_size", &[Is(1 << 20)]),
    op(87, "dt_overlay", &[List(TEXT), Is(64 | 3 << 32)]),
    op(88, "gsi_permission", SMALL),
    op(89, "set_llc_colors", &[Is(1), List(RESULTS)]),
    op(1000, "gdbsx_guestmemio", &[Is(0), Is(0x4000_0000), List(RESULTS), Is(64), Is(0)]),
    op(1001, "gdbsx_pausevcpu", &[Is(0)]),
    op(1002, "gdbsx_unpausevcpu", &[Is(0)]),
    op(1003, "gdbsx_domstatus", SMALL),
];

/// The words of these come after the command and the version.
const SYSTEM_CONTROL: &[Operation] = &[
    op(1, "readconsole", &[Is(0), List(RESULTS), Is(64)]),
    op(2, "tbuf_op", SMALL),
    op(3, "physinfo", SMALL),
    op(4, "sched_id", SMALL),
    op(5, "perfc_op", SMALL),
    op(6, "getdomaininfolist", &[Target(0, 1 << 32), List(RESULTS), Is(0)]),
    op(7, "debug_keys", &[List(TEXT), Is(1)]),
    op(8, "getcpuinfo", SMALL),
    op(9, "availheap", SMALL),
    op(10, "get_pmstat", SMALL),
    op(11, "cpu_hotplug", &[Is(1 | 1 << 32)]),
    op(12, "pm_op", SMALL),
    op(14, "page_offline_op", &[Is(1), Frame, Is(0), List(RESULTS)]),
    op(15, "lockprof_op", SMALL),
    op(16, "cputopoinfo", SMALL),
    op(17, "numainfo", SMALL),
    op(18, "cpupool_op", &[Is(1), Target(0, 0)]),
    op(19, "scheduler_op", SMALL),
    op(20, "coverage_op", SMALL),
    op(21, "psr_cmt_op", SMALL),
    op(22, "pcitopoinfo", SMALL),
    op(23, "psr_alloc", SMALL),
    op(25, "get_cpu_levelling_caps", SMALL),
    op(26, "get_cpu_featureset", SMALL),
    op(27, "livepatch_op", SMALL),
    op(29, "get_cpu_policy", SMALL),
    op(30, "dt_overlay", &[List(TEXT), Is(64 | 1 << 32)]),
];

const PLATFORM: &[Operation] = &[
    op(17, "settime32", SMALL),
    op(31, "add_memtype", SMALL),
    op(32, "del_memtype", SMALL),
    op(33, "read_memtype", SMALL),
    op(35, "microcode_update", SMALL),
    op(39, "platform_quirk", SMALL),
    op(48, "get_cpu_version", SMALL),
    op(49, "efi_runtime_call", SMALL),
    op(50, "firmware_info", SMALL),
    op(51, "enter_acpi_sleep", SMALL),
    op(52, "change_freq", SMALL),
    op(53, "getidletime", SMALL),
    op(54, "set_processor_pminfo", SMALL),
    op(55, "get_cpuinfo", SMALL),
    op(56, "cpu_online", SMALL),
    op(57, "cpu_offline", SMALL),
    op(58, "cpu_hotadd", SMALL),
    op(59, "mem_hotadd", SMALL),
    op(60, "core_parking", SMALL),
    op(61, "resource_op", SMALL),
    op(62, "settime64", &[Is(1), Is(0), Is(0)]),
    op(63, "get_symbol", SMALL),
    op(64, "get_dom0_console", SMALL),
    op(65, "get_ucode_revision", SMALL),
    op(66, "microcode_update2", SMALL),
];

const FLASK: &[Operation] = &[
    op(1, "LOAD", &[List(TEXT), Is(64)]),
    op(2, "GETENFORCE", &[Is(0)]),
    op(3, "SETENFORCE", &[Is(0)]),
    op(4, "CONTEXT_TO_SID", &[Is(26 << 32), List(TEXT)]),
    op(5, "SID_TO_CONTEXT", &[Is(64 << 32 | 1), List(RESULTS)]),
    op(6, "ACCESS", &[Is(1 | 1 << 32), Is(1 | 1 << 32), Is(0), Is(0)]),
    op(7, "CREATE", &[Is(1 | 1 << 32), Is(1)]),
    op(8, "RELABEL", &[Is(1 | 1 << 32), Is(1)]),
    op(9, "USER", SMALL),
    op(10, "POLICYVERS", SMALL),
    op(11, "GETBOOL", &[Is(0), List(TEXT), Is(16)]),
    op(12, "SETBOOL", &[Is(1 << 32), List(TEXT), Is(16)]),
    op(13, "COMMITBOOLS", SMALL),
    op(14, "MLS", SMALL),
    op(15, "DISABLE", SMALL),
    op(16, "GETAVC_THRESHOLD", SMALL),
    op(17, "SETAVC_THRESHOLD", SMALL),
    op(18, "AVC_HASHSTATS", SMALL),
    op(19, "AVC_CACHESTATS", SMALL),
    op(20, "MEMBER", &[Is(1 | 1 << 32), Is(1)]),
    op(21, "ADD_OCONTEXT", &[Is(1 | 1 << 32), Is(0), Is(1)]),
    op(22, "DEL_OCONTEXT", &[Is(1 | 1 << 32), Is(0), Is(1)]),
    op(23, "GET_PEER_SID", &[Is(1)]),
    op(24, "RELABEL_DOMAIN", &[Target(0, 1 << 32)]),
    op(25, "DEVICETREE_LABEL", &[Is(1 | 26 << 32), List(TEXT)]),
];

const HVM: &[Operation] = &[
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

/// The words of these come after the operation.
const DEVICE_MODEL: &[Operation] = &[
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

const SCHEDULER: &[Operation] = &[
    op(0, "yield", &[Is(0)]),
    op(1, "block", &[Is(0)]),
    op(2, "shutdown", &[Is(3)]),
    op(3, "poll", &[List(RESULTS), Is(1), Is(1)]),
    op(4, "remote_shutdown", &[Target(0, 3 << 32)]),
    op(5, "shutdown_code", &[Is(3)]),
    op(6, "watchdog", &[Is(1 << 32)]),
    op(7, "pin_override", &[Is(1)]),
];

const VCPU: &[Operation] = &[
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

const PHYSICAL_DEVICE: &[Operation] = &[
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

const VERSION: &[Operation] = &[
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

const ARGO: &[Operation] = &[
    op(1, "register_ring", &[Target(32, 1), Is(4096)]),
    op(2, "unregister_ring", &[Target(32, 1)]),
    op(3, "sendv", &[Target(32, 1), Target(32, 1)]),
    op(4, "notify", &[Target(32, 1)]),
];

const HYPERVISOR_FILES: &[Operation] =
    &[op(0, "get_version", &[Is(0)]), op(1, "read", &[Is(0x2f)]), op(2, "write_contents", &[Is(0x2f)])];
