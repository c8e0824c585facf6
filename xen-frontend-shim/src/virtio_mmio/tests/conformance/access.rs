// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a driver must not do to registers (4.2.2.2), and does without effect.

use super::{everything, everywhere, live};
use crate::virtio_mmio::Width;
use crate::virtio_mmio::registers::{CONFIG, Readable, TABLE};
use crate::virtio_mmio::tests::test_driver::Driver;

const VALUES: [u32; 6] = [0, 1, 2, 0xf, 0x8000_0000, u32::MAX];

#[test]
fn s4_2_2_2_write_only_registers_read_0() {
    for mut driver in everywhere() {
        for register in TABLE.iter().filter(|register| register.readable.is_none()) {
            let before = everything(&driver);
            assert_eq!(driver.read(register.offset), 0, "{}", register.name);
            assert_eq!(everything(&driver), before, "{}", register.name);
        }
    }
}

#[test]
fn s4_2_2_2_read_only_registers_ignore_writes() {
    for mut driver in everywhere() {
        for register in TABLE.iter().filter(|register| register.writable.is_none()) {
            for value in VALUES {
                let before = (everything(&driver), driver.read(register.offset));
                driver.write(register.offset, value);
                let after = (everything(&driver), driver.read(register.offset));
                assert_eq!(after, before, "{} := {value:#x}", register.name);
            }
        }
    }
}

#[test]
fn s4_2_2_2_what_the_table_does_not_name_reads_0_and_ignores_writes() {
    let is_named = |offset: u64| TABLE.iter().any(|register| register.offset == offset);
    let mut driver = live();
    for offset in (0..CONFIG).step_by(4).filter(|&offset| !is_named(offset)) {
        let before = everything(&driver);
        VALUES.into_iter().for_each(|value| driver.write(offset, value));
        assert_eq!(driver.read(offset), 0, "{offset:#x}");
        assert_eq!(everything(&driver), before, "{offset:#x}");
    }
}

#[test]
fn s4_2_2_2_accesses_of_8_16_and_64_bits_read_0_and_change_nothing() {
    for mut driver in everywhere() {
        let before = everything(&driver);
        for width in [Width::One, Width::Two, Width::Eight] {
            for offset in 0..CONFIG {
                assert_eq!(driver.window.read(offset, width), 0, "{width:?} at {offset:#x}");
                for value in [0, 1, 0xf, u64::MAX] {
                    driver.window.write(offset, width, value);
                }
            }
        }
        assert_eq!(everything(&driver), before);
    }
}

#[test]
fn s4_2_2_2_unaligned_accesses_read_0_and_change_nothing() {
    for mut driver in everywhere() {
        let before = everything(&driver);
        for offset in (0..CONFIG).filter(|offset| offset % 4 != 0) {
            assert_eq!(driver.read(offset), 0, "{offset:#x}");
            VALUES.into_iter().for_each(|value| driver.write(offset, value));
        }
        assert_eq!(everything(&driver), before);
    }
}

#[test]
fn s4_2_2_2_only_the_low_32_bits_of_a_value_count() {
    let mut driver = Driver::new();
    driver.window.write(0x70, Width::Four, 0xffff_ffff_0000_0001);
    assert_eq!(driver.read(0x70), 1);
    driver.window.write(0x70, Width::Four, 0xffff_ffff_0000_0000);
    assert_eq!(driver.read(0x70), 0);
}

#[test]
fn s4_2_2_2_reading_changes_nothing_but_what_interrupt_status_has_shown() {
    for mut driver in everywhere() {
        let before = everything(&driver);
        for register in TABLE.iter().filter(|register| register.readable.is_some()) {
            let first = driver.read(register.offset);
            assert_eq!(driver.read(register.offset), first, "{}", register.name);
        }
        assert_eq!(everything(&driver), before);
    }
    assert!(TABLE.iter().any(|register| register.readable == Some(Readable::InterruptStatus)));
}

#[test]
fn s4_2_2_2_a_queue_that_is_ready_keeps_its_description() {
    let mut driver = live();
    let before = everything(&driver);
    for offset in [0x38, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4] {
        VALUES.into_iter().for_each(|value| driver.write(offset, value));
    }
    assert_eq!(everything(&driver), before);
}

#[test]
fn s4_2_2_registers_of_a_queue_beyond_the_last_read_0_and_ignore_writes() {
    for beyond in [2, 3, 0xffff, 0x1_0000, 0x1_0001, u32::MAX] {
        for mut driver in everywhere() {
            driver.write(0x30, beyond);
            let before = everything(&driver);
            for offset in [0x38, 0x44, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xc0] {
                VALUES.into_iter().for_each(|value| driver.write(offset, value));
            }
            assert_eq!([0x34, 0x44, 0xc0].map(|offset| driver.read(offset)), [0; 3]);
            assert_eq!(everything(&driver), before);
        }
    }
}
