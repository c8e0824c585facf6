// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One manifest to everything of an appliance image that must agree.
//!
//! ```text
//!  demo.toml ──▶ manifest ──┐
//!                           ├──▶ validate ──▶ plan ──▶ emit ─┬─▶ host.dtb            (what Xen reads)
//!  boards/x.toml ─▶ board ──┘       │           │            ├─▶ driver-domain.dtb, GUEST.dtb
//!                                   ▼           │            ├─▶ xenpolicy           (who may do what)
//!                              diagnostics      │            ├─▶ shim.toml           (who serves what)
//!                                   └───────────┘            ├─▶ driver-domain.cpio.gz
//!                                                            └─▶ qemu.json
//! ```
//!
//! [`manifest`] and [`board`] say what was written, with the place where it was written; [`load`] reads both.
//! [`validate`] finds what cannot work, with [`kernel`] what Xen does not start. [`plan`] is the one place that hands out domain ids, addresses and interrupts,
//! and [`modules`] the one that hands out places in memory, so that the files that [`build`] makes with [`emit`] cannot
//! disagree.

pub mod board;
pub mod build;
pub mod diagnostics;
pub mod emit;
pub mod kernel;
pub mod load;
pub mod manifest;
pub mod modules;
pub mod plan;
mod spanned;
pub mod validate;
