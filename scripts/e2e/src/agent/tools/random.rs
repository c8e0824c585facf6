// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Statistics of random bytes, in which a constant, a counter or text differ from random bytes.

use std::fs::File;
use std::io::Read;

use super::arguments::Failure;

/// The statistics of some bytes.
#[derive(Debug, PartialEq)]
struct Statistics {
    /// The number of bytes.
    bytes: usize,
    /// The number of bits that are 1.
    ones: u64,
    /// Chi-square of the counts of the 256 values. For random bytes it has a mean of 255 and a standard
    /// deviation of 23.
    chi_square: f64,
    /// The number of bytes that equal the byte before them: 1 of 256 of random bytes.
    repeated: usize,
}

impl Statistics {
    fn of(bytes: &[u8]) -> Self {
        let mut counts = [0_u32; 256];
        for &byte in bytes {
            if let Some(count) = counts.get_mut(usize::from(byte)) {
                *count += 1;
            }
        }
        let total = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let expected = f64::from(total) / 256.0;
        Self {
            bytes: bytes.len(),
            ones: bytes.iter().map(|byte| u64::from(byte.count_ones())).sum(),
            chi_square: counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum(),
            repeated: bytes.windows(2).filter(|pair| matches!(pair, [a, b] if a == b)).count(),
        }
    }
}

/// Reads `length` bytes of a file and prints their statistics.
pub(super) fn statistics(path: &str, length: usize) -> Result<(), Failure> {
    let mut bytes = vec![0; length];
    File::open(path)?.read_exact(&mut bytes)?;
    let Statistics { bytes, ones, chi_square, repeated } = Statistics::of(&bytes);
    println!("bytes={bytes} ones={ones} chi-square={chi_square:.0} repeated={repeated}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_and_counter_do_not_look_random() {
        let zeros = Statistics::of(&[0; 65536]);
        assert_eq!((zeros.ones, zeros.repeated), (0, 65535));
        assert!(zeros.chi_square > 1e6, "{zeros:?}");
        let counter: Vec<u8> = (0..=255_u8).cycle().take(65536).collect();
        let counter = Statistics::of(&counter);
        assert_eq!((counter.ones, counter.repeated, counter.chi_square), (65536 * 4, 0, 0.0));
    }

    #[test]
    fn generated_bytes_look_random() {
        // A linear congruential generator (Knuth's), of which the high bits are taken.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        let bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(65536).collect();
        let seen = Statistics::of(&bytes);
        assert!((261_000..263_300).contains(&seen.ones) && (150..400).contains(&seen.repeated), "{seen:?}");
        assert!((140.0..370.0).contains(&seen.chi_square), "{seen:?}");
    }
}
