// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The benchmark: the cost of a request with our backends, with the upstream daemons behind our shim, and
//! with the plain system call in the driver domain, and its parts.
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
