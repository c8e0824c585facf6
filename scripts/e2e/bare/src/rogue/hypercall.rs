// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a hypercall and its sub-operations are described, and what several descriptions have in common.

use Word::{Frame, Is, List, Target};

use super::words::{LANDING_FRAMES, RESULTS, TEXT, Word};

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
pub(super) const fn op(number: u64, name: &'static str, words: &'static [Word]) -> Operation {
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
pub(super) const DOMID: &[Word] = &[Target(0, 0), Is(0), Is(1), List(LANDING_FRAMES)];
/// What many operations of domctl want: numbers that are small.
pub(super) const SMALL: &[Word] = &[Is(1), List(TEXT), Is(1), List(LANDING_FRAMES)];
/// Those whose first field is a vCPU, and then comes a buffer.
pub(super) const OF_VCPU: &[Word] = &[Is(0), List(RESULTS), Is(64), List(RESULTS)];
/// Those that name a range of frames.
pub(super) const FRAMES: &[Word] = &[Frame, Frame, Is(1), Is(1)];
