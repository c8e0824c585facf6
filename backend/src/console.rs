// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio console (virtio 1.3, 5.3): one port, on which a guest reads a log or asks for figures.
//!
//! ```text
//!   transmitq ─▶ lines ─▶ Source::request ─┐
//!               (parse)                    ▼
//!   receiveq  ◀─ device ◀─ Source::read ─ Source ─┬─ kmsg    the log of this kernel
//!                (buffers that wait for text)     ├─ file    a file that grows
//!                                                 └─ unix    a socket that answers requests
//! ```
//!
//! Text is read from the source only when the driver has queued a buffer for it. So a guest that does not
//! read costs no memory here.

pub mod arguments;
pub mod device;
pub mod file;
pub mod kmsg;
pub mod lines;
pub mod source;
pub mod spec;
pub mod unix;

pub use arguments::Arguments;
