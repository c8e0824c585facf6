// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptions of hypercalls and sub-operations, and their common parts.

use Word::{Frame, Is, List, Target};

use super::words::{LANDING_FRAMES, RESULTS, TEXT, Word};

/// The convention by which a hypercall gets its sub-operation and its structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The number, the structure, the number of structures.
    Register,
    /// The number, a vCPU, the structure.
    Vcpu,
    /// The number, the length of the structure, the structure.
    Length,
    /// The structure, which begins with the number and this version of the interface.
    Versioned(u32),
    /// The structure, which begins with the number.
    Structure,
    /// The domid, the number of buffers, the buffers: the first is the structure, which begins with the
    /// number.
    Device,
    /// The words in registers, the number first.
    Registers,
    /// The words in registers, without a sub-operation.
    None,
}

/// A hypercall.
#[derive(Debug)]
pub(super) struct Hypercall {
    /// Its number.
    pub(super) number: u64,
    /// Its name.
    pub(super) name: &'static str,
    /// Its calling convention.
    pub(super) form: Form,
    /// The limit of the numbers of sub-operations that are called, with or without a name.
    pub(super) end: u64,
    /// The words of the structure of a sub-operation without a name.
    pub(super) words: &'static [Word],
    /// The sub-operations with a name.
    pub(super) operations: &'static [Operation],
}

/// A sub-operation.
#[derive(Debug)]
pub(super) struct Operation {
    /// Its number.
    pub(super) number: u64,
    /// Its name.
    pub(super) name: &'static str,
    /// The words of its structure, after the number if the structure has it.
    pub(super) words: &'static [Word],
}

/// Returns a sub-operation with its structure.
pub(super) const fn op(number: u64, name: &'static str, words: &'static [Word]) -> Operation {
    Operation { number, name, words }
}

/// The types of a resource, and the spaces of a mapping.
pub(super) const RESOURCES: &[&str] = &["ioreq_server", "grant_table", "vmtrace_buf"];
pub(super) const SPACES: &[&str] =
    &["shared_info", "grant_table", "gmfn", "gmfn_range", "gmfn_foreign", "dev_mmio"];

/// `GNTMAP_host_map`: map the page in the own address space.
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

/// A structure that begins with a domid.
pub(super) const DOMID: &[Word] = &[Target(0, 0), Is(0), Is(1), List(LANDING_FRAMES)];
/// A structure with small numbers, for many operations of domctl.
pub(super) const SMALL: &[Word] = &[Is(1), List(TEXT), Is(1), List(LANDING_FRAMES)];
/// A structure with a vCPU and a buffer.
pub(super) const OF_VCPU: &[Word] = &[Is(0), List(RESULTS), Is(64), List(RESULTS)];
/// A structure with a range of frames.
pub(super) const FRAMES: &[Word] = &[Frame, Frame, Is(1), Is(1)];
