// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is counted.

/// Where an instruction lies, and so at which exception level it runs: Xen, a kernel and programs use parts
/// of the address space of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Xen, at EL2.
    Hypervisor,
    /// A kernel, at EL1.
    Kernel,
    /// A program, at EL0.
    User,
}

/// `XEN_VIRT_START` of Xen's xen/arch/arm/include/asm/config.h is 2 MiB above the first of these.
const XEN: std::ops::Range<u64> = 20 << 39..21 << 39;
/// Kernel addresses have all their top bits set.
const KERNEL: u64 = 1 << 63;

impl Class {
    /// The class of the instruction at this address.
    #[must_use]
    pub fn of(address: u64) -> Self {
        match address {
            KERNEL.. => Self::Kernel,
            _ if XEN.contains(&address) => Self::Hypervisor,
            _ => Self::User,
        }
    }
}

/// What is counted of each account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Instructions.
    Instructions,
    /// TLB invalidations (TLBI): what unmapping costs the machine.
    Invalidations,
    /// Reads of FAR_EL1, of which Linux does one for each page fault.
    Faults,
    /// Returns from an exception (ERET): in Xen one for each trap and interrupt, in a kernel also for system
    /// calls.
    Returns,
    /// Waits for an interrupt (WFI): nothing to do.
    Waits,
    /// Writes of CONTEXTIDR_EL1: in a kernel, switches to another thread.
    Switches,
}

/// How many kinds there are.
pub const KINDS: usize = 6;

/// The counters of an account.
pub type Counts = [u64; KINDS];

impl Kind {
    /// All of them, each at its place.
    pub const ALL: [Self; KINDS] =
        [Self::Instructions, Self::Invalidations, Self::Faults, Self::Returns, Self::Waits, Self::Switches];

    /// Where it is among the counters of an account.
    #[must_use]
    pub fn place(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default()
    }

    /// Its value.
    #[must_use]
    pub fn of(self, counts: &Counts) -> u64 {
        counts.get(self.place()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_the_class() {
        assert_eq!(Class::of(0x0000_0a00_0020_1234), Class::Hypervisor);
        assert_eq!(Class::of(0xffff_8000_8001_0000), Class::Kernel);
        assert_eq!(Class::of(0x0000_0000_0040_1000), Class::User);
        assert_eq!(Class::of(0x0000_ffff_f7ff_0000), Class::User);
    }

    #[test]
    fn every_kind_has_a_place_of_its_own() {
        let places = Kind::ALL.map(Kind::place);
        assert_eq!(places, [0, 1, 2, 3, 4, 5]);
        assert_eq!(Kind::Waits.of(&[1, 2, 3, 4, 5, 6]), 5);
    }
}
