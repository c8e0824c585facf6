// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device's configuration space (virtio 1.3, 2.5), as the backend gave it, behind the registers.

use crate::virtio_mmio::Width;

/// The configuration and its generation.
#[derive(Clone, Debug, Default)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    generation: u32,
}

impl ConfigSpace {
    /// A configuration of generation 0.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, generation: 0 }
    }

    /// A configuration of another worker, with its generation.
    #[must_use]
    pub fn restored(bytes: Vec<u8>, generation: u32) -> Self {
        Self { bytes, generation }
    }

    /// Replaces the configuration. If it differs, the generation changes, which a driver that reads a field
    /// in parts compares (2.5.3). Returns whether it differs.
    pub fn replace(&mut self, bytes: Vec<u8>) -> bool {
        let differs = self.bytes != bytes;
        if differs {
            self.bytes = bytes;
            self.generation = self.generation.wrapping_add(1);
        }
        differs
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// ConfigGeneration.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The little-endian value at `offset`. Bytes beyond the end are 0.
    #[must_use]
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        let mut value = [0; 8];
        let tail =
            usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..)).unwrap_or_default();
        for (to, from) in value.iter_mut().zip(tail.iter().take(width.bytes())) {
            *to = *from;
        }
        u64::from_le_bytes(value)
    }

    /// Whether an access lies within the configuration.
    #[must_use]
    pub fn contains(&self, offset: u64, width: Width) -> bool {
        let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(width.bytes()));
        end.is_some_and(|end| end <= self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_any_width_are_read_and_beyond_the_end_is_zero() {
        let config = ConfigSpace::new(vec![1, 2, 3, 4, 5]);
        assert_eq!(config.read(0, Width::Four), 0x0403_0201);
        assert_eq!(config.read(1, Width::Two), 0x0302);
        assert_eq!(config.read(4, Width::One), 5);
        assert_eq!(config.read(2, Width::Eight), 0x0005_0403);
        for offset in [5, 0x100, u64::MAX] {
            assert_eq!(config.read(offset, Width::Eight), 0);
        }
        assert!(config.contains(1, Width::Four));
        assert!(!config.contains(2, Width::Four));
        assert!(!config.contains(u64::MAX, Width::One));
    }

    #[test]
    fn the_generation_changes_with_the_content() {
        let mut config = ConfigSpace::new(vec![1]);
        assert!(!config.replace(vec![1]));
        assert_eq!(config.generation(), 0);
        assert!(config.replace(vec![2]));
        assert_eq!(config.generation(), 1);
    }
}
