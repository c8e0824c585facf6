// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All hypercalls with their sub-operations: numbers, names and structures of Xen's public headers (4.20),
//! with plausible values. Numbers without a name are called as well.

mod control;
mod domain;

use Word::{Frame, Is, Landing, List, OwnFrame, Target};
use control::{DOMAIN_CONTROL, FLASK, PLATFORM, SYSTEM_CONTROL};
use domain::{
    ARGO, DEVICE_MODEL, EVENT_CHANNEL, GRANT_TABLE, HVM, HYPERVISOR_FILES, MEMORY, PHYSICAL_DEVICE,
    SCHEDULER, VCPU, VERSION,
};

use super::hypercall::{
    DEVICE_MODEL_OP, DOMCTL, DOMID, EVENT_CHANNEL_OP, Form, GRANT_TABLE_OP, HVM_OP, Hypercall, MEMORY_OP,
    SCHED_OP, SCHED_OP_COMPAT, SMALL, VCPU_OP, op,
};
use super::words::{LANDING_FRAMES, RESULTS, TARGET_FRAMES, TEXT, Word};

/// The number of hypercalls at the start of the table that exist on Arm and have many checks.
pub(super) const FREQUENT: usize = 9;

/// The hypercalls. Others have no known sub-operations on Arm.
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
