// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Xen: `xen/include/public/hvm/ioreq.h`.
//!
//! The structure is [`crate::ioreq::Slot`]: it is shared memory, so its fields are atomics. The bit fields
//! share one byte, lowest bit first: four bits `state`, then `data_is_ptr`, `dir`, `df` and a bit of padding.

/// `IOREQ_READ`: the value of `dir` for a read.
pub const IOREQ_READ: u8 = 1;
/// `IOREQ_WRITE`: the value of `dir` for a write.
pub const IOREQ_WRITE: u8 = 0;

/// `STATE_IOREQ_NONE`.
pub const STATE_IOREQ_NONE: u8 = 0;
/// `STATE_IOREQ_READY`.
pub const STATE_IOREQ_READY: u8 = 1;
/// `STATE_IOREQ_INPROCESS`.
pub const STATE_IOREQ_INPROCESS: u8 = 2;
/// `STATE_IORESP_READY`.
pub const STATE_IORESP_READY: u8 = 3;

/// `IOREQ_TYPE_PIO`.
pub const IOREQ_TYPE_PIO: u8 = 0;
/// `IOREQ_TYPE_COPY`.
pub const IOREQ_TYPE_COPY: u8 = 1;
/// `IOREQ_TYPE_PCI_CONFIG`.
pub const IOREQ_TYPE_PCI_CONFIG: u8 = 2;
/// `IOREQ_TYPE_TIMEOFFSET`.
pub const IOREQ_TYPE_TIMEOFFSET: u8 = 7;
/// `IOREQ_TYPE_INVALIDATE`.
pub const IOREQ_TYPE_INVALIDATE: u8 = 8;

/// The bits of `state` in the byte of bit fields.
pub const STATE_MASK: u8 = 0x0f;
/// The bit `data_is_ptr` in the byte of bit fields.
pub const DATA_IS_PTR: u8 = 1 << 4;
/// The bit `dir` in the byte of bit fields.
pub const DIR: u8 = 1 << 5;
