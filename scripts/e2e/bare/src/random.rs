// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random numbers and addresses, with preference for the values at which programs fail.

use alloc::vec::Vec;

use anyhow::Result;
use fastrand::Rng;

use crate::grants::{self, Granted, PERMIT, READ_ONLY};

/// Lengths, indices and values: the smallest, those around a page and a ring, and those around a sign or
/// carry bit.
const NUMBERS: [u32; 22] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    12,
    16,
    255,
    256,
    257,
    4095,
    4096,
    4097,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff8,
    0xffff_ffff,
];

/// A source of random values.
#[derive(Debug)]
pub(crate) struct Random(Rng);

impl Random {
    /// Creates the source of a CPU.
    pub(crate) fn new(seed: u64, cpu: usize) -> Self {
        let cpu = u64::try_from(cpu).unwrap_or(0);
        Self(Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ cpu))
    }

    /// Returns true in one of `of` cases.
    pub(crate) fn one_in(&mut self, of: u32) -> bool {
        self.0.u32(0..of) == 0
    }

    /// Returns a number less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.usize(0..end)
    }

    /// Returns one of the elements; [`Default`] if there is none.
    pub(crate) fn pick<T: Copy + Default>(&mut self, from: &[T]) -> T {
        if from.is_empty() {
            T::default()
        } else {
            from.get(self.below(from.len())).copied().unwrap_or_default()
        }
    }

    /// Returns 32 random bits.
    pub(crate) fn word(&mut self) -> u32 {
        self.0.u32(..)
    }

    /// Returns 16 random bits.
    pub(crate) fn half(&mut self) -> u16 {
        self.0.u16(..)
    }

    /// Returns one of [`NUMBERS`], or a random number.
    pub(crate) fn number(&mut self) -> u32 {
        if self.one_in(4) { self.word() } else { self.pick(&NUMBERS) }
    }

    /// As [`Random::number`], truncated to 16 bits.
    pub(crate) fn small(&mut self) -> u16 {
        let [low, high, ..] = self.number().to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Returns an address that is not one of a granted page.
    fn wild(&mut self) -> u64 {
        let any = u64::from(self.word()) << 32 | u64::from(self.word());
        let unaligned = u64::from(self.small());
        match self.below(6) {
            0 => u64::MAX - u64::from(self.number()),
            // From the last grant reference on.
            1 => grants::address(u32::MAX, 0xff0 + unaligned),
            // Without the mark of a grant: the guest's own memory.
            2 => 0x4000_0000 + unaligned,
            3 => u64::from(self.number()),
            4 => grants::address(self.word() % 4096, unaligned),
            _ => any,
        }
    }
}

/// Pages with valid and with invalid grants.
#[derive(Debug)]
pub(crate) struct Pool {
    good: Vec<Granted>,
    bad: Vec<Granted>,
}

impl Pool {
    /// Grants the pages.
    pub(crate) fn new() -> Result<Self> {
        let good = (0..4).map(|_| Granted::new()).collect::<Result<_>>()?;
        let mut bad = Vec::new();
        for flags in [PERMIT | READ_ONLY, 0, 2, 3, 0x8000 | PERMIT] {
            bad.push(Granted::with_flags(flags)?);
        }
        // A grant to another domain; frames that do not exist, of the console's registers, of the grant
        // table.
        for (domain, frame) in [(3, 0x4_0000), (1, u32::MAX), (1, 0x2_2000), (1, 0x3_8000)] {
            let granted = Granted::with_flags(0)?;
            if let Some(entry) = grants::entry(granted.reference()) {
                use core::sync::atomic::Ordering::{Relaxed, Release};
                entry.domain.store(domain, Relaxed);
                entry.frame.store(frame, Relaxed);
                entry.flags.store(PERMIT, Release);
            }
            bad.push(granted);
        }
        Ok(Self { good, bad })
    }

    /// Returns a page with a valid grant.
    pub(crate) fn page(&self, random: &mut Random) -> Option<&Granted> {
        self.good.get(random.below(self.good.len().max(1)))
    }

    /// Returns an address that is valid for a buffer.
    pub(crate) fn good(&self, random: &mut Random) -> u64 {
        self.page(random).map_or(0, |page| page.address(0))
    }

    /// Returns any address: valid, unaligned, near the end of its page, of an invalid grant, or of no page.
    pub(crate) fn any(&self, random: &mut Random) -> u64 {
        let good = self.good(random);
        match random.below(8) {
            0 | 1 => good,
            2 => good + u64::from(random.small() % 4096),
            3 => good + 4096 - u64::from(random.pick(&[1_u16, 2, 4, 8, 16])),
            4 | 5 => self.bad.get(random.below(self.bad.len().max(1))).map_or(0, |page| page.address(0)),
            _ => random.wild(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_differ_by_cpu_and_are_the_same_for_the_same_seed() {
        let throw = |seed, cpu| {
            let mut random = Random::new(seed, cpu);
            [random.word(), random.number(), u32::from(random.small()), random.word()]
        };
        assert_eq!(throw(1, 0), throw(1, 0));
        assert_ne!(throw(1, 0), throw(1, 1));
        assert_ne!(throw(1, 0), throw(2, 0));
    }

    #[test]
    fn pick_from_nothing_returns_the_default() {
        assert_eq!(Random::new(0, 0).pick::<u8>(&[]), 0);
    }
}
