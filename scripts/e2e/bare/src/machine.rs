// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine: an AArch64 CPU at EL1, and Xen.
//!
//! `bare_metal` has assembly, system registers and accesses to any address. `host` has the same functions
//! without effect, so that the other modules can be checked and tested on the host.

mod types;

#[cfg(bare_metal)]
mod bare_metal;
#[cfg(bare_metal)]
use bare_metal as here;
#[cfg(bare_metal)]
pub(crate) use bare_metal::{INTERRUPT, Registers, handle_abort, initialise};

#[cfg(not(bare_metal))]
mod host;
#[cfg(not(bare_metal))]
use host as here;
#[cfg(test)]
pub(crate) use host::on_interrupt;

pub use here::{
    acknowledge_interrupt, barrier, constant_image, counter, cpu, device_tree, enable_cpu_interface,
    end_of_interrupt, frequency, grant_table, hypercall, load, mask_interrupts, ram, send_interrupt,
    set_timer, start_cpu, store, unmask_interrupts, wait_for_interrupt,
};
pub use types::{Abort, GRANT_ENTRIES, GrantEntry, Width};
