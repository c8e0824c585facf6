// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pages that another domain may read and write at any time. All accesses are atomic, in units of 16 bits,
//! the size of the index of a ring.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU16, Ordering};

/// The size of a page.
pub const PAGE: usize = 4096;

#[derive(Debug)]
#[repr(C, align(4096))]
struct Cells([AtomicU16; PAGE / 2]);

/// A page. Reads beyond its end return zero, writes beyond its end have no effect.
#[derive(Debug)]
pub struct Page(Box<Cells>);

impl Default for Page {
    fn default() -> Self {
        Self(Box::new(Cells([const { AtomicU16::new(0) }; PAGE / 2])))
    }
}

impl Page {
    /// Its frame number.
    #[must_use]
    pub fn frame(&self) -> u32 {
        let address = (&raw const *self.0).addr();
        u32::try_from(address / PAGE).unwrap_or(u32::MAX)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> u64 {
        u64::try_from((&raw const *self.0).addr()).unwrap_or(u64::MAX)
    }

    fn cell(&self, offset: usize) -> Option<&AtomicU16> {
        self.0.0.get(offset / 2)
    }

    /// Reads 8 bits.
    #[must_use]
    pub fn read_u8(&self, offset: usize) -> u8 {
        let [low, high] = self.read_u16(offset & !1).to_le_bytes();
        if offset.is_multiple_of(2) { low } else { high }
    }

    /// Writes 8 bits. Nothing else may write the other 8 bits of the unit meanwhile.
    pub fn write_u8(&self, offset: usize, value: u8) {
        let [low, high] = self.read_u16(offset & !1).to_le_bytes();
        let both = if offset.is_multiple_of(2) { [value, high] } else { [low, value] };
        self.write_u16(offset & !1, u16::from_le_bytes(both));
    }

    /// Reads 16 bits, at an even offset.
    #[must_use]
    pub fn read_u16(&self, offset: usize) -> u16 {
        self.cell(offset).map_or(0, |cell| u16::from_le(cell.load(Ordering::Acquire)))
    }

    /// Writes 16 bits, at an even offset, with release ordering.
    pub fn write_u16(&self, offset: usize, value: u16) {
        if let Some(cell) = self.cell(offset) {
            cell.store(value.to_le(), Ordering::Release);
        }
    }

    /// Reads 32 bits, at an even offset.
    #[must_use]
    pub fn read_u32(&self, offset: usize) -> u32 {
        u32::from(self.read_u16(offset)) | u32::from(self.read_u16(offset + 2)) << 16
    }

    /// Reads 64 bits, at an even offset.
    #[must_use]
    pub fn read_u64(&self, offset: usize) -> u64 {
        u64::from(self.read_u32(offset)) | u64::from(self.read_u32(offset + 4)) << 32
    }

    /// Writes 64 bits, at an even offset.
    pub fn write_u64(&self, offset: usize, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }

    /// Reads bytes.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        for (place, byte) in into.iter_mut().enumerate() {
            *byte = self.read_u8(offset + place);
        }
    }

    /// Writes bytes.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        for (place, &byte) in bytes.iter().enumerate() {
            self.write_u8(offset + place, byte);
        }
    }

    /// Writes the same byte to the whole page.
    pub fn fill(&self, byte: u8) {
        for cell in &self.0.0 {
            cell.store(u16::from_le_bytes([byte, byte]), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_where_they_were_written() {
        let page = Page::default();
        page.write(1, &[1, 2, 3, 4]);
        assert_eq!((page.read_u16(0), page.read_u16(2), page.read_u32(2)), (0x100, 0x302, 0x4_0302));
        let mut bytes = [0; 4];
        page.read(1, &mut bytes);
        assert_eq!(bytes, [1, 2, 3, 4]);
        page.write(PAGE - 1, &[7, 8]);
        assert_eq!((page.read_u8(PAGE - 1), page.read_u8(PAGE)), (7, 0), "the end of the page");
    }
}
