// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The counters.

/// The address range of an instruction, which gives its exception level: Xen, kernels and programs use
/// different parts of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Xen, at EL2.
    Hypervisor,
    /// A kernel, at EL1.
    Kernel,
    /// A program, at EL0.
    User,
}

/// The range of Xen's code. `XEN_VIRT_START` of xen/arch/arm/include/asm/config.h is 2 MiB above its start.
const XEN: std::ops::Range<u64> = 20 << 39..21 << 39;
/// The top bit, which is set in all kernel addresses.
const KERNEL: u64 = 1 << 63;

impl Class {
    /// Returns the class of the instruction at this address.
    #[must_use]
    pub fn of(address: u64) -> Self {
        match address {
            KERNEL.. => Self::Kernel,
            _ if XEN.contains(&address) => Self::Hypervisor,
            _ => Self::User,
        }
    }
}

/// The kinds of events that are counted for each account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Instructions.
    Instructions,
    /// TLB invalidations (TLBI): the cost of unmapping.
    Invalidations,
    /// Reads of FAR_EL1. Linux reads it once per page fault.
    Faults,
    /// Returns from an exception (ERET): in Xen one per trap or interrupt, in a kernel also one per system
    /// call.
    Returns,
    /// Waits for an interrupt (WFI): the processor is idle.
    Waits,
    /// Writes of CONTEXTIDR_EL1: in a kernel, switches of threads.
    Switches,
}

/// The number of kinds.
pub const KINDS: usize = 6;

/// The counters of an account.
pub type Counts = [u64; KINDS];

impl Kind {
    /// All kinds, each at the index of its counter.
    pub const ALL: [Self; KINDS] =
        [Self::Instructions, Self::Invalidations, Self::Faults, Self::Returns, Self::Waits, Self::Switches];

    /// Returns the index of the counter.
    #[must_use]
    pub fn place(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default()
    }

    /// Returns the value of the counter.
    #[must_use]
    pub fn of(self, counts: &Counts) -> u64 {
        counts.get(self.place()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_gives_the_class() {
        assert_eq!(Class::of(0x0000_0a00_0020_1234), Class::Hypervisor);
        assert_eq!(Class::of(0xffff_8000_8001_0000), Class::Kernel);
        assert_eq!(Class::of(0x0000_0000_0040_1000), Class::User);
        assert_eq!(Class::of(0x0000_ffff_f7ff_0000), Class::User);
    }

    #[test]
    fn indices_of_counters_are_unique() {
        let places = Kind::ALL.map(Kind::place);
        assert_eq!(places, [0, 1, 2, 3, 4, 5]);
        assert_eq!(Kind::Waits.of(&[1, 2, 3, 4, 5, 6]), 5);
    }
}
