// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end-to-end tests: Xen in QEMU with a driver domain and guests, and what the tests control it with.
//!
//! ```text
//!  host                                            QEMU
//!  ┌──────────────────────────────────────┐        ┌───────────────────────────────────────────┐
//!  │ scenario ─▶ machine ─┬─▶ console ◀───┼─ UART ─┼─▶ Xen ─┬─▶ driver domain: agent           │
//!  │                      │   (channel)   │        │        ├─▶ guest-a: agent ─▶ Linux's      │
//!  │                      ├─▶ qmp ────────┼────────┼─▶ power button   drivers ─▶ virtio ─┐     │
//!  │                      └─▶ board ◀─────┼─ vhost-user ◀─ devices of the driver domain ◀─┘     │
//!  │            (backend --sim: journal, control)  │  (passed through by Xen)                  │
//!  └──────────────────────────────────────┘        └───────────────────────────────────────────┘
//! ```
//!
//! [`protocol`] is the exchange of host and agent over the console that all domains share, [`agent`] its end
//! in a domain, [`host`] its end on the host, with QEMU and the board. The scenarios are the test target
//! `scenarios`, the demo is the program `demo`.

pub mod agent;
pub mod host;

pub use protocol::{frame, request};
