// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Instructions by address, of Xen and of the driver domain's kernel.

use std::ops::Range;

use crate::record::{DRIVER_DOMAIN, Party};

/// A range that contains Xen's text (`XEN_VIRT_START` of xen/arch/arm/include/asm/config.h).
const XEN: Range<u64> = 0x0a00_0020_0000..0x0a00_0040_0000;
/// A range that contains the text of a Linux without CONFIG_RANDOMIZE_BASE.
const KERNEL: Range<u64> = 0xffff_8000_8000_0000..0xffff_8000_8100_0000;
/// The size of an instruction in bytes.
const SIZE: u64 = 4;
const KERNEL_SLOTS: u64 = (KERNEL.end - KERNEL.start) / SIZE;

/// The number of counters.
pub const SLOTS: u64 = KERNEL_SLOTS + (XEN.end - XEN.start) / SIZE;

/// Returns the number of the counter of an instruction, if it has one.
#[must_use]
pub fn slot(party: Party, address: u64) -> Option<u64> {
    match party {
        Party::Kernel(DRIVER_DOMAIN) if KERNEL.contains(&address) => Some((address - KERNEL.start) / SIZE),
        Party::Xen if XEN.contains(&address) => Some(KERNEL_SLOTS + (address - XEN.start) / SIZE),
        _ => None,
    }
}

/// Returns the address of the instruction with this counter.
#[must_use]
pub fn address(slot: u64) -> u64 {
    match slot.checked_sub(KERNEL_SLOTS) {
        Some(slot) => XEN.start + slot * SIZE,
        None => KERNEL.start + slot * SIZE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instruction_has_its_own_counter() {
        for (party, place) in [
            (Party::Xen, XEN.start),
            (Party::Xen, XEN.end - SIZE),
            (Party::Kernel(DRIVER_DOMAIN), KERNEL.start),
            (Party::Kernel(DRIVER_DOMAIN), KERNEL.end - SIZE),
        ] {
            let slot = slot(party, place).unwrap();
            assert!(slot < SLOTS);
            assert_eq!(address(slot), place);
        }
        assert_eq!(slot(Party::Kernel(2), KERNEL.start), None, "a guest's kernel has the same addresses");
        assert_eq!(slot(Party::Xen, XEN.end), None);
    }
}
