// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is counted of each processor.

/// Where an instruction lies, and so at which exception level it runs: Xen, a kernel and programs use parts of the address
/// space of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    fn place(self) -> usize {
        match self {
            Self::Hypervisor => 0,
            Self::Kernel => 1,
            Self::User => 2,
        }
    }
}

/// What is counted of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Instructions.
    Instructions,
    /// TLB invalidations (TLBI): what unmapping costs the machine.
    Invalidations,
    /// Reads of FAR_EL1, of which Linux does one for each page fault.
    Faults,
    /// Returns from an exception (ERET): in Xen one for each trap and interrupt, in a kernel also for system calls.
    Returns,
    /// Waits for an interrupt (WFI): nothing to do.
    Waits,
}

const CLASSES: usize = 3;
const KINDS: usize = 5;

/// How many counters there are.
pub const COUNTERS: usize = CLASSES * KINDS;

/// The counters of a processor, or of a party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub [u64; COUNTERS]);

impl Counts {
    /// Which counter it is.
    #[must_use]
    pub fn place(class: Class, kind: Kind) -> usize {
        let kind = match kind {
            Kind::Instructions => 0,
            Kind::Invalidations => 1,
            Kind::Faults => 2,
            Kind::Returns => 3,
            Kind::Waits => 4,
        };
        class.place() * KINDS + kind
    }

    /// A counter's value.
    #[must_use]
    pub fn get(&self, class: Class, kind: Kind) -> u64 {
        self.0.get(Self::place(class, kind)).copied().unwrap_or_default()
    }

    /// The instructions of all classes.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        let classes = [Class::Hypervisor, Class::Kernel, Class::User];
        classes.into_iter().map(|class| self.get(class, Kind::Instructions)).sum()
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = *self;
        for (value, earlier) in difference.0.iter_mut().zip(earlier.0) {
            *value = value.saturating_sub(earlier);
        }
        difference
    }

    /// Adds what another has.
    pub fn add(&mut self, other: &Self) {
        for (value, other) in self.0.iter_mut().zip(other.0) {
            *value += other;
        }
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
    fn every_counter_has_a_place_of_its_own() {
        let mut places = Vec::new();
        for class in [Class::Hypervisor, Class::Kernel, Class::User] {
            for kind in [Kind::Instructions, Kind::Invalidations, Kind::Faults, Kind::Returns, Kind::Waits] {
                places.push(Counts::place(class, kind));
            }
        }
        places.sort_unstable();
        assert_eq!(places, (0..COUNTERS).collect::<Vec<_>>());
    }
}
