// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The benchmark: what a request costs a guest of ours, beside the upstream daemons on our shim and beside
//! the plain system call in the driver domain, and where it goes.
//!
//! ```text
//!  image (manifest, backends) ─▶ stack: QEMU with the plugin ─▶ measure: workload × contender × round
//!                                     │ marks of the agents            │
//!                                     ▼                                ▼
//!                                  records ─▶ spent: by party ─▶ figures ─▶ table, plot, baseline
//! ```

pub mod baseline;
pub mod calls;
pub mod figures;
pub mod image;
pub mod measure;
pub mod plot;
pub mod profile;
pub mod records;
pub mod spent;
pub mod stack;
pub mod statistics;
pub mod table;
pub mod workload;
