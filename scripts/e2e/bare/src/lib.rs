// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest without an operating system, which Xen boots in place of Linux. It accesses its virtio devices in
//! ways that no driver does, and reports the results on its console.
//!
//! Each layer uses only the ones below it:
//!
//! ```text
//!  entry                  start of a CPU, exceptions, panics (bare metal only)
//!  agent                  the console protocol with the host
//!  commands               one function for each command
//!  conformance  hostile  rogue  witness
//!  virtio                 registers, rings, requests of I2C and GPIO
//!  random                 random values and addresses for hostile, rogue
//!  jobs                   a command and its output
//!  cpus                   work for the other CPUs
//!  console  interrupts    and below them uart, clock
//!  grants                 pages that are granted to the driver domain: pages, xen
//!  platform               the device tree
//!  machine                CPU, memory, hypercalls
//! ```
//!
//! Xen boots the same program, linked for another address, in place of the driver domain, as [`rogue`]. The
//! guests check their own memory meanwhile as [`witness`].
//!
//! All `unsafe` code is in `machine/bare_metal.rs` and `entry.rs`, which are not built for the host. The rest
//! is checked and tested there, and the tests on the host take the names of tests from [`conformance`].

#![no_std]

extern crate alloc;

pub mod agent;
pub mod clock;
pub mod commands;
pub mod conformance;
pub mod console;
pub mod cpus;
#[cfg(bare_metal)]
mod entry;
pub mod grants;
pub mod hostile;
pub mod interrupts;
pub mod jobs;
pub mod machine;
pub mod number;
pub mod pages;
pub mod platform;
mod random;
pub mod rogue;
pub mod uart;
pub mod virtio;
pub mod witness;
pub mod xen;
