// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end-to-end run: Xen in QEMU, a driver domain, two guests, and the scenarios that they have to pass.
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
//! [`protocol`] is what host and agent say to each other over the one console that all domains share,
//! [`agent`] is the end inside a domain, [`host`] the end outside with all that belongs to it. The scenarios
//! are the test target `scenarios`, the demo is the program `demo`.

pub mod agent;
pub mod host;

pub use protocol::{frame, request};
