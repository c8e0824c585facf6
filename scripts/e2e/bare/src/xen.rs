// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The hypercalls that the guest needs, with the numbers and structures of Xen's public headers.

use anyhow::{Result, ensure};

use crate::machine;

/// `__HYPERVISOR_memory_op`.
const MEMORY_OP: u64 = 12;
/// `XENMEM_add_to_physmap`.
const ADD_TO_PHYSMAP: u64 = 7;
/// `XENMEM_remove_from_physmap`.
const REMOVE_FROM_PHYSMAP: u64 = 15;
/// `XENMAPSPACE_grant_table`.
const GRANT_TABLE: u64 = 1;
/// `__HYPERVISOR_grant_table_op`, `GNTTABOP_unmap_grant_ref`.
const GRANT_TABLE_OP: u64 = 20;
const UNMAP_GRANT_REF: u64 = 1;
/// `DOMID_SELF`.
const SELF: u64 = 0x7ff0;
/// `__HYPERVISOR_sched_op`.
const SCHED_OP: u64 = 29;
/// `SCHEDOP_shutdown`.
const SHUTDOWN: u64 = 2;
/// `SHUTDOWN_poweroff` and `SHUTDOWN_crash`.
const POWER_OFF: u32 = 0;
const CRASH: u32 = 3;

/// Maps frame `index` of the grant table at `address`.
///
/// # Errors
/// Returns an error if Xen refuses.
pub fn map_grant_table(index: u64, address: u64) -> Result<()> {
    // struct xen_add_to_physmap: domid (16 bits), size (16), space (32), idx (64), gpfn (64).
    let argument = [SELF | GRANT_TABLE << 32, index, address >> 12];
    let pointer = argument.as_ptr().addr();
    let result = machine::hypercall(MEMORY_OP, [ADD_TO_PHYSMAP, u64::try_from(pointer)?, 0, 0]);
    ensure!(result == 0, "Xen does not map frame {index} of the grant table: error {result}");
    Ok(())
}

/// Removes the page at a frame of this guest's address space.
///
/// # Errors
/// Returns an error if there is no page.
pub fn remove_from_physmap(frame: u64) -> Result<()> {
    // struct xen_remove_from_physmap: domid (16 bits), gpfn (64).
    let argument = [SELF, frame];
    let pointer = argument.as_ptr().addr();
    let result = machine::hypercall(MEMORY_OP, [REMOVE_FROM_PHYSMAP, u64::try_from(pointer)?, 0, 0]);
    ensure!(result == 0, "Xen does not remove the page at frame {frame:#x}: error {result}");
    Ok(())
}

/// Unmaps a page that was mapped by a grant.
///
/// # Errors
/// Returns an error if the handle is invalid.
pub fn unmap_grant(address: u64, handle: u64) -> Result<()> {
    // struct gnttab_unmap_grant_ref: host_addr (64 bits), dev_bus_addr (64), handle (32), status (16).
    let argument = [address, 0, handle & 0xffff_ffff];
    let pointer = argument.as_ptr().addr();
    let result = machine::hypercall(GRANT_TABLE_OP, [UNMAP_GRANT_REF, u64::try_from(pointer)?, 1, 0]);
    ensure!(result == 0, "Xen does not unmap {address:#x}: error {result}");
    Ok(())
}

/// Ends this guest with the reason SHUTDOWN_crash.
pub fn crash() -> ! {
    shutdown(CRASH)
}

/// Ends this guest with the reason SHUTDOWN_poweroff.
pub fn power_off() -> ! {
    shutdown(POWER_OFF)
}

fn shutdown(reason: u32) -> ! {
    let pointer = u64::try_from((&raw const reason).addr()).unwrap_or(0);
    loop {
        let _ = machine::hypercall(SCHED_OP, [SHUTDOWN, pointer, 0, 0]);
    }
}
