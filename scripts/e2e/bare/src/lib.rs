// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that Xen boots in place of Linux, and that has no operating system: it does to its virtio devices what no
//! driver would, and says on its console what happened.
//!
//! ```text
//!  host: channel ◀─ console ─▶ agent ─▶ jobs (one per CPU) ─▶ commands ─┬─▶ conformance
//!                                                                      ▼
//!      virtio: window (registers), ring (in pages that are granted) ─▶ pages, grants
//!                                                                      ▼
//!      interrupts, clock, console, device tree ────────────────────▶ machine ─▶ Xen
//! ```
//!
//! Xen boots the same program, linked for another address, in place of the driver domain, too: then it is [`rogue`], and
//! the guests, which watch their own memory, are [`witness`]es.
//!
//! All `unsafe` is in [`machine`]. Only there does the guest differ from what is built for the host, where its logic is
//! checked and tested, and where the tests take their names from [`conformance`].

#![no_std]

extern crate alloc;

pub mod agent;
pub mod clock;
pub mod commands;
pub mod conformance;
pub mod console;
pub mod grants;
pub mod hostile;
pub mod interrupts;
pub mod jobs;
pub mod machine;
pub mod pages;
pub mod platform;
pub mod rogue;
pub mod virtio;
pub mod witness;
pub mod xen;

/// The first CPU comes here with a stack and a heap, and with interrupts masked.
pub fn first_cpu() -> ! {
    interrupts::enable_distributor();
    interrupts::enable_this_cpu();
    jobs::start_other_cpus();
    agent::serve()
}
