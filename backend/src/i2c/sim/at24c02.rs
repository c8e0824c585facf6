// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The EEPROM AT24C02: 256 bytes, written by pages.

use super::TargetModel;

pub(super) struct At24c02 {
    cells: [u8; 256],
    /// The address counter, which persists between transactions.
    counter: u8,
    /// Mask of the address bits within a page.
    within_page: u8,
    write_protect: bool,
    busy_polls: u32,
    /// Transactions that are still refused after the last write.
    busy: u32,
    expected: ExpectedByte,
    /// The present transaction has written data.
    written: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ExpectedByte {
    /// The next byte written is an address.
    Address,
    /// The next byte written is data.
    Data,
}

impl At24c02 {
    /// Creates an erased chip. `page` is rounded up to a power of two.
    pub(super) fn new(page: u8, write_protect: bool, busy_polls: u32) -> Self {
        Self {
            cells: [0xff; 256],
            counter: 0,
            within_page: page.clamp(1, 128).next_power_of_two() - 1,
            write_protect,
            busy_polls,
            busy: 0,
            expected: ExpectedByte::Address,
            written: false,
        }
    }

    fn cell(&mut self) -> Option<&mut u8> {
        self.cells.get_mut(usize::from(self.counter))
    }
}

impl TargetModel for At24c02 {
    fn start(&mut self) -> bool {
        self.expected = ExpectedByte::Address;
        if self.busy > 0 {
            self.busy -= 1;
            return false;
        }
        true
    }

    fn write(&mut self, byte: u8) -> bool {
        if self.expected == ExpectedByte::Address {
            self.counter = byte;
            self.expected = ExpectedByte::Data;
            return true;
        }
        if self.write_protect {
            return false;
        }
        if let Some(cell) = self.cell() {
            *cell = byte;
        }
        self.written = true;
        // A write wraps around in its page.
        let page = self.counter & !self.within_page;
        self.counter = page | (self.counter.wrapping_add(1) & self.within_page);
        true
    }

    fn read(&mut self) -> u8 {
        let byte = self.cell().map_or(0xff, |cell| *cell);
        // A read wraps around in the whole chip.
        self.counter = self.counter.wrapping_add(1);
        byte
    }

    fn stop(&mut self) {
        if std::mem::take(&mut self.written) {
            self.busy = self.busy_polls;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(chip: &mut At24c02, bytes: &[u8]) -> bool {
        let done = chip.start() && bytes.iter().all(|byte| chip.write(*byte));
        chip.stop();
        done
    }

    fn read(chip: &mut At24c02, address: u8, count: usize) -> Vec<u8> {
        assert!(chip.start() && chip.write(address) && chip.start());
        let bytes = (0..count).map(|_| chip.read()).collect();
        chip.stop();
        bytes
    }

    #[test]
    fn a_write_wraps_around_in_its_page() {
        let mut chip = At24c02::new(8, false, 0);
        assert!(write(&mut chip, &[0x16, 1, 2, 3, 4]));
        assert_eq!(read(&mut chip, 0x10, 8), [3, 4, 0xff, 0xff, 0xff, 0xff, 1, 2]);
    }

    #[test]
    fn a_read_wraps_around_in_the_chip_and_continues_after_the_last() {
        let mut chip = At24c02::new(8, false, 0);
        assert!(write(&mut chip, &[0, 7]));
        assert_eq!(read(&mut chip, 0xff, 2), [0xff, 7]);
        assert!(chip.start());
        assert_eq!(chip.read(), 0xff);
    }

    #[test]
    fn a_protected_chip_refuses_data_and_accepts_addresses() {
        let mut chip = At24c02::new(8, true, 0);
        assert!(write(&mut chip, &[0]));
        assert!(!write(&mut chip, &[0, 1]));
        assert_eq!(read(&mut chip, 0, 1), [0xff]);
    }

    #[test]
    fn a_chip_is_busy_after_a_write() {
        let mut chip = At24c02::new(8, false, 2);
        assert!(write(&mut chip, &[0, 1]));
        assert!(!chip.start());
        assert!(!chip.start());
        assert_eq!(read(&mut chip, 0, 1), [1]);
    }
}
