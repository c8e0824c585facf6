// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The protocol between the host and the agents, over the console that all domains share.
//!
//! ```text
//!  host                                                agent in a domain
//!  request ─▶ frames ─▶ UART, Xen, emulated PL011 ─▶ exchange ─▶ request: run a program
//!  answer  ◀─ frames ◀──────────────────────────────  exchange ◀─ answer
//! ```
//!
//! [`frame`] is one line of the console, [`request`] the requests and answers, [`exchange`] the agent's side
//! of
//! acknowledgement and repetition. There are two agents, one on Linux and one without an operating system:
//! this
//! crate needs only an allocator.

#![no_std]

extern crate alloc;

pub mod exchange;
pub mod frame;
pub mod request;
