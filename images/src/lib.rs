// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The image builder: makes everything that the domains of an appliance must agree on from one manifest.
//!
//! ```text
//!  demo.toml ──▶ manifest ──┐
//!                           ├──▶ validate ──▶ plan ──▶ emit ─┬─▶ host.dtb            (for Xen)
//!  boards/x.toml ─▶ board ──┘       │           │            ├─▶ driver-domain.dtb, GUEST.dtb
//!                                   ▼           │            ├─▶ xenpolicy           (for FLASK)
//!                              diagnostics      │            ├─▶ shim.toml           (for the shim)
//!                                   └───────────┘            ├─▶ driver-domain.cpio.gz
//!                                                            └─▶ qemu.json
//! ```
//!
//! [`load`] reads a [`manifest`] and its [`board`], whose values carry their places in the file. Each type of
//! [`device`] has a file with all that is particular to it. [`validate`] finds what cannot work, with the
//! help of [`kernel`]. [`plan`] assigns domids, addresses and interrupts, and [`modules`] places in memory.
//! [`build`] writes the files that [`emit`] makes from both, so they cannot disagree. [`explain`] prints who
//! reaches what.

pub mod board;
pub mod build;
pub mod device;
pub mod diagnostics;
pub mod emit;
pub mod error;
pub mod explain;
pub mod kernel;
pub mod load;
pub mod manifest;
pub mod modules;
pub mod plan;
mod spanned;
pub mod validate;
