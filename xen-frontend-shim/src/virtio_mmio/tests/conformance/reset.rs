// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! 2.4: the reset of the device.

use super::{STEPS, after_of_type, everywhere, live};
use crate::virtio_mmio::registers::TABLE;
use crate::virtio_mmio::tests::test_driver::Driver;

#[test]
fn s2_4_1_a_reset_from_every_state_forgets_everything() {
    let fresh = Driver::new().window.state();
    let mut untouched = Driver::new();
    let readable = || TABLE.iter().filter(|register| register.readable.is_some());
    for mut driver in everywhere() {
        driver.write(0x30, 1);
        driver.write(0x14, 1);
        driver.write(0x24, 1);
        driver.log().used = [3, 4];
        driver.write(0x70, 0);
        assert_eq!(driver.window.state(), fresh);
        for register in readable() {
            assert_eq!(driver.read(register.offset), untouched.read(register.offset), "{}", register.name);
        }
    }
}

#[test]
fn s2_4_1_what_was_started_is_stopped_before_the_status_reads_0() {
    for mut driver in everywhere() {
        let started = driver.log().started.len();
        driver.write(0x70, 0);
        assert_eq!(driver.log().stops, started);
        driver.write(0x70, 0);
        assert_eq!(driver.log().stops, started, "once is enough");
    }
}

#[test]
fn s2_4_1_a_device_started_by_an_early_kick_is_stopped_as_well() {
    let mut driver = after_of_type(true, 6);
    driver.write(0x50, 1);
    driver.write(0x70, 0);
    let log = driver.log();
    assert_eq!((log.started.len(), log.stops), (1, 1));
}

#[test]
fn s2_4_1_no_notification_and_no_kick_between_reset_and_driver_ok() {
    let mut driver = live();
    driver.log().used = [1, 1];
    driver.write(0x70, 0);
    for (step, byte) in STEPS.iter().take(6).zip(10..) {
        step(&mut driver);
        driver.write(0x50, 0);
        driver.window.config_changed(vec![byte; 8]);
        assert_eq!(driver.read(0x60), 0);
        let log = driver.log();
        assert_eq!((log.kicks.len(), log.interrupts), (0, 0));
    }
}

#[test]
fn s4_2_2_1_reset_clears_interrupt_status_and_every_queue_ready() {
    let mut driver = live();
    driver.log().used = [2, 2];
    driver.window.config_changed(vec![0; 8]);
    assert_eq!(driver.read(0x60), 3);
    driver.write(0x70, 0);
    assert_eq!(driver.read(0x60), 0);
    for queue in 0..2 {
        driver.write(0x30, queue);
        assert_eq!((driver.read(0x44), driver.read(0xc0)), (0, 0));
    }
}

#[test]
fn s3_1_1_after_a_reset_the_device_can_be_initialised_again() {
    for mut driver in everywhere() {
        let before = driver.log().started.len();
        driver.probe();
        assert_eq!(driver.log().started.len(), before + 1);
    }
}
