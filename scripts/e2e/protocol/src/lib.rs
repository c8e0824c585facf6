// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host and an agent say to each other over the one console that all domains share.
//!
//! ```text
//!  host                                                agent in a domain
//!  request ─▶ frames ─▶ UART, Xen, emulated PL011 ─▶ exchange ─▶ request: run a program
//!  answer  ◀─ frames ◀──────────────────────────────  exchange ◀─ answer
//! ```
//!
//! [`frame`] is one line of the console, [`request`] what is asked and answered, [`exchange`] the agent's
//! side of asking again until it has arrived. There are two agents, one on Linux and one on nothing at all:
//! this needs an allocator and no operating system.

#![no_std]

extern crate alloc;

pub mod exchange;
pub mod frame;
pub mod request;
