// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! 2.1, 3.1.1: the device status, and what starts when.

use super::{STEPS, after, after_of_type, everywhere, live};
use crate::virtio_mmio::features::EVENT_IDX;
use crate::virtio_mmio::interrupt::CONFIG_CHANGE;
use crate::virtio_mmio::tests::test_driver::{Driver, FEATURES, identity};
use crate::virtio_mmio::{Identity, State};

/// Before and after every permitted write that is not 0, of the bits that drivers set in order.
const PERMITTED: [(u32, u32); 10] =
    [(0, 1), (0, 3), (0, 0xb), (0, 0xf), (1, 3), (1, 0xb), (1, 0xf), (3, 0xb), (3, 0xf), (0xb, 0xf)];

#[test]
fn s2_1_1_every_write_of_the_status_is_permitted_or_ignored() {
    for mut driver in everywhere() {
        let state = driver.window.state();
        let before = driver.read(0x70);
        let progress = before & 0xf;
        for written in 1..=0xff {
            // The features that the third step needs are written before it, or it is refused: see 2.2.2.
            let mut driver = Driver::restored(state.clone());
            driver.write(0x70, written);
            let wanted = written & 0xf;
            let agrees = state.driver_features != 0 || progress & 8 != 0 || wanted & 8 == 0;
            let is_permitted = PERMITTED.contains(&(progress, wanted)) || progress == wanted;
            let expected = match () {
                () if before & 0x80 != 0 || !is_permitted => before,
                () if !agrees => progress.max(3) | before & 0x40,
                () => before | wanted | written & 0x80,
            };
            assert_eq!(driver.read(0x70), expected, "{before:#x} := {written:#x}");
        }
    }
}

#[test]
fn s2_1_1_after_failed_only_a_reset_helps() {
    for steps in 0..=STEPS.len() {
        let mut driver = after(steps);
        let status = driver.read(0x70) | 0x80;
        driver.write(0x70, status);
        assert_eq!(driver.read(0x70), status);
        for written in [1, 3, 0xb, 0xf, 0x8f, 0x7f, status] {
            driver.write(0x70, written);
            assert_eq!(driver.read(0x70), status);
        }
        driver.probe();
    }
}

#[test]
fn s2_1_2_status_is_0_upon_reset() {
    assert_eq!(Driver::new().read(0x70), 0);
    for mut driver in everywhere() {
        driver.write(0x70, 0);
        assert_eq!(driver.read(0x70), 0);
    }
}

#[test]
fn s2_1_2_nothing_is_consumed_or_notified_before_driver_ok() {
    for steps in 0..STEPS.len() {
        let mut driver = after(steps);
        driver.log().used = [1, 1];
        for queue in [0, 1, 0, 2, u32::MAX] {
            driver.write(0x50, queue);
        }
        driver.window.kicked_early(0);
        driver.window.config_changed(vec![9; 8]);
        assert_eq!(driver.read(0x60), 0);
        let log = driver.log();
        assert_eq!((log.started.len(), log.kicks.len(), log.interrupts), (0, 0, 0), "after {steps} steps");
    }
    assert_eq!(live().log().started.len(), 1);
}

/// The one deviation, for drivers that break 3.1.1: see `DeviceType::starts_by_kick`.
#[test]
fn s2_1_2_deviation_a_type_with_early_drivers_starts_by_a_kick_after_features_ok() {
    for steps in 0..STEPS.len() {
        let mut driver = after_of_type(true, steps);
        driver.write(0x50, 0);
        // Not before a queue is ready, which is the sixth step.
        assert_eq!(driver.log().started.len(), usize::from(steps == 6), "after {steps} steps");
    }
}

#[test]
fn s2_1_2_needs_reset_is_set_when_the_backend_is_lost() {
    for steps in 0..=STEPS.len() {
        let mut driver = after(steps);
        let status = driver.read(0x70);
        driver.window.device_lost();
        assert_eq!(driver.read(0x70), status | 0x40);
    }
}

#[test]
fn s2_1_2_needs_reset_is_set_when_a_ring_is_unusable() {
    let breaks: [fn(&mut Driver); 6] = [
        |driver| driver.write(0x38, 0),
        |driver| driver.write(0x38, 48),
        |driver| driver.write(0x38, 512),
        |driver| driver.write(0x80, 0x8008),
        |driver| driver.write(0x94, 0),
        |driver| driver.write(0xa4, u32::MAX),
    ];
    for (number, break_it) in breaks.iter().enumerate() {
        let mut driver = after(6);
        driver.write(0x30, 1);
        driver.write(0x44, 0);
        break_it(&mut driver);
        driver.write(0x44, 1);
        driver.write(0x70, 0xf);
        assert_eq!((driver.read(0x70), driver.read(0x60)), (0x4f, CONFIG_CHANGE), "break {number}");
        assert!(driver.log().started.is_empty());
        assert_eq!(driver.log().interrupts, 1);
    }
}

#[test]
fn s2_1_2_needs_reset_notifies_a_driver_that_is_ready() {
    let mut driver = live();
    driver.window.device_lost();
    driver.window.device_lost();
    assert_eq!((driver.read(0x60), driver.log().interrupts), (CONFIG_CHANGE, 1));
}

#[test]
fn s2_1_2_needs_reset_does_not_notify_a_driver_before_driver_ok_but_then() {
    for steps in 0..STEPS.len() {
        let mut driver = after(steps);
        driver.window.device_lost();
        assert_eq!((driver.read(0x60), driver.log().interrupts), (0, 0), "after {steps} steps");
    }
    let mut driver = after(6);
    driver.window.device_lost();
    driver.write(0x70, 0xf);
    assert_eq!((driver.read(0x70), driver.read(0x60), driver.log().interrupts), (0x4f, CONFIG_CHANGE, 1));
    assert!(driver.log().started.is_empty());
}

/// Whether the device was lost while a backend served it, with it, or with the process that knew what the
/// driver has said.
#[test]
fn s2_1_2_needs_reset_keeps_the_status_however_the_device_is_lost() {
    type Loss = (&'static str, fn(&mut Driver));
    let losses: [Loss; 5] = [
        ("lost", |driver| driver.window.device_lost()),
        ("fewer features", |driver| driver.window.backend_replaced(FEATURES & !EVENT_IDX, vec![9; 8])),
        ("another type", |driver| {
            let state = State { device_id: 41, ..driver.window.state() };
            *driver = Driver::found(Some(state), |_| {}).0;
        }),
        ("fewer queues", |driver| {
            let identity = Identity { queues: 1, ..identity() };
            *driver = Driver::found_as(identity, Some(driver.window.state()), |_| {}).0;
        }),
        ("no state", |driver| *driver = Driver::found(None, |_| {}).0),
    ];
    for (loss, lose) in losses {
        for steps in 0..=STEPS.len() {
            let mut driver = after(steps);
            let before = driver.read(0x70);
            lose(&mut driver);
            let expected = match loss {
                // Nothing is agreed on yet that could be missed.
                "fewer features" if before & 8 == 0 => before,
                "fewer queues" if before & 2 == 0 => before,
                // The driver may be ready for all that is known.
                "no state" => 0x4f,
                _ => before | 0x40,
            };
            assert_eq!(driver.read(0x70), expected, "{loss} after {steps} steps");
            let is_due = expected == 0x4f;
            assert_eq!(driver.read(0x60) & CONFIG_CHANGE != 0, is_due, "{loss} after {steps} steps");
            assert_eq!(driver.log().interrupts, usize::from(is_due), "{loss} after {steps} steps");
        }
    }
}

/// One that has agreed on features learns of it when it is ready, in whichever process.
#[test]
fn s2_1_2_a_device_that_was_lost_before_driver_ok_notifies_at_driver_ok() {
    for is_replaced in [false, true] {
        let mut driver = after(6);
        driver.window.backend_replaced(FEATURES & !EVENT_IDX, vec![9; 8]);
        if is_replaced {
            driver = Driver::restored(driver.window.state());
        }
        assert_eq!((driver.read(0x70), driver.log().interrupts), (0x4b, 0));
        driver.write(0x70, 0xf);
        let seen = (driver.read(0x70), driver.read(0x60), driver.log().interrupts);
        assert_eq!(seen, (0x4f, CONFIG_CHANGE, 1));
        assert!(driver.log().started.is_empty());
    }
}

#[test]
fn s2_1_2_a_device_that_needs_a_reset_is_left_alone_until_it_comes() {
    let mut driver = live();
    driver.window.device_lost();
    driver.write(0x50, 0);
    driver.write(0x30, 0);
    driver.write(0x44, 0);
    driver.write(0x44, 1);
    driver.write(0x30, 1);
    driver.write(0xc0, 1);
    driver.write(0x44, 1);
    {
        let log = driver.log();
        assert_eq!((log.kicks.len(), log.stopped_queues.len(), log.started_queues.len()), (0, 0, 0));
    }
    driver.write(0x70, 0);
    assert_eq!(driver.log().stops, 1);
}

#[test]
fn s3_1_1_the_device_starts_at_driver_ok_once() {
    for steps in 0..STEPS.len() {
        assert!(after(steps).log().started.is_empty(), "after {steps} steps");
    }
    let mut driver = live();
    driver.write(0x70, 0xf);
    driver.write(0x70, 0xf);
    assert_eq!(driver.log().started.len(), 1);
}
