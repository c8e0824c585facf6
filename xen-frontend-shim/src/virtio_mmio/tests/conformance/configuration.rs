// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! 2.5, 4.2.2: the device configuration space, its generation and its notification.

use super::{STEPS, after, everywhere, live};
use crate::virtio_mmio::Width;
use crate::virtio_mmio::interrupt::CONFIG_CHANGE;

const BYTES: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn s2_5_2_every_field_can_be_read_before_features_ok() {
    for mut driver in everywhere() {
        for (offset, byte) in (0x100..).zip(BYTES) {
            assert_eq!(driver.window.read(offset, Width::One), u64::from(byte));
        }
    }
}

#[test]
fn s4_2_2_x100_config_is_accessed_with_byte_alignment_and_in_every_width() {
    let mut driver = live();
    for width in [Width::One, Width::Two, Width::Four, Width::Eight] {
        for start in 0..10 {
            let mut expected = [0; 8];
            let bytes = BYTES.iter().skip(start).take(width.bytes());
            expected.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            let offset = 0x100 + u64::try_from(start).expect("small");
            assert_eq!(
                driver.window.read(offset, width),
                u64::from_le_bytes(expected),
                "{width:?} at {start}"
            );
        }
    }
}

#[test]
fn s4_2_2_x100_config_beyond_its_end_reads_0_and_ignores_writes() {
    let mut driver = live();
    let before = driver.window.state();
    for offset in [0x108, 0x1fc, 0xffc, u64::MAX - 8, u64::MAX] {
        for width in [Width::One, Width::Two, Width::Four, Width::Eight] {
            assert_eq!(driver.window.read(offset, width), 0);
            driver.window.write(offset, width, u64::MAX);
        }
    }
    // Nor does a write that is partly within.
    driver.window.write(0x107, Width::Two, u64::MAX);
    assert_eq!(driver.window.state(), before);
}

#[test]
fn s4_2_2_x100_config_takes_what_the_device_takes() {
    let mut driver = live();
    // The device of these tests has a field of four bytes that may be written.
    driver.window.write(0x100, Width::Four, 0xffff_ffff);
    assert_eq!((driver.read(0x100), driver.read(0xfc)), (0x0403_0201, 0));
    driver.window.write(0x104, Width::Four, 0xaabb_ccdd);
    assert_eq!((driver.read(0x104), driver.read(0xfc)), (0xaabb_ccdd, 1));
    assert_eq!(driver.read(0x60), 0, "what the driver itself has changed is no news");
}

#[test]
fn s4_2_2_1_config_generation_changes_with_the_configuration_and_only_then() {
    let mut driver = live();
    let mut generations = vec![driver.read(0xfc)];
    for round in 0..20 {
        driver.window.config_changed(vec![round; 8]);
        let generation = driver.read(0xfc);
        assert!(!generations.contains(&generation), "round {round}");
        generations.push(generation);
        driver.window.config_changed(vec![round; 8]);
        assert_eq!(driver.read(0xfc), generation);
    }
}

#[test]
fn s4_2_2_1_a_driver_that_reads_in_parts_sees_a_change_in_between() {
    // As 2.5.1 tells drivers to read, with a change between any two accesses.
    for change_before in 0..4 {
        let mut driver = live();
        let mut seen = [0; 4];
        for (access, offset) in [0xfc, 0x100, 0x104, 0xfc].into_iter().enumerate() {
            if access == change_before {
                driver.window.config_changed(vec![9; 8]);
            }
            seen[access] = driver.read(offset);
        }
        let is_consistent = seen[1..3] == [0x0403_0201, 0x0807_0605] || seen[1..3] == [0x0909_0909; 2];
        assert!(is_consistent || seen[0] != seen[3], "changed before access {change_before}: {seen:x?}");
    }
}

#[test]
fn s2_3_a_changed_configuration_is_notified_to_a_driver_that_is_ready() {
    for steps in 0..=STEPS.len() {
        let mut driver = after(steps);
        driver.window.config_changed(vec![9; 8]);
        let is_ready = steps == STEPS.len();
        let expected = if is_ready { CONFIG_CHANGE } else { 0 };
        assert_eq!((driver.read(0x60), driver.log().interrupts), (expected, usize::from(is_ready)));
        assert_eq!(driver.read(0x100), 0x0909_0909, "it is to be seen all the same");
    }
}

#[test]
fn s2_3_a_configuration_that_is_the_same_is_not_notified() {
    let mut driver = live();
    driver.window.config_changed(BYTES.to_vec());
    assert_eq!((driver.read(0x60), driver.log().interrupts), (0, 0));
}

#[test]
fn s3_1_1_config_cannot_be_written_before_features_ok() {
    for steps in 0..=STEPS.len() {
        let mut driver = after(steps);
        driver.window.write(0x104, Width::Four, 0xaabb_ccdd);
        let is_agreed = driver.read(0x70) & 8 != 0;
        let expected = if is_agreed { 0xaabb_ccdd } else { 0x0807_0605 };
        assert_eq!(driver.read(0x104), expected, "after {steps} steps");
    }
}
