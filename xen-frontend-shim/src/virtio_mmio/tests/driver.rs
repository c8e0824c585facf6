// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sequences of a driver: Linux's probe step by step, errors of drivers and what follows them. `conformance`
//! tests what the specification demands of each step.

use super::test_driver::{Driver, FEATURES};
use crate::memory::{GrantReference, Page};
use crate::virtio_mmio::features::{ACCESS_PLATFORM, VERSION_1};
use crate::virtio_mmio::interrupt::{CONFIG_CHANGE, USED_BUFFER};

#[test]
fn linux_probes_and_uses_the_device() {
    let mut driver = Driver::new();
    assert_eq!(driver.read(0), 0x7472_6976);
    assert_eq!(driver.read(4), 2);
    assert_eq!(driver.read(8), 34);
    driver.probe();
    {
        let log = driver.log();
        let (features, rings) = &log.started[0];
        assert_eq!((*features, rings.len(), log.started.len()), (FEATURES, 2, 1));
        assert_eq!(rings[1].descriptors.first(), Page::Granted(GrantReference(16)));
        assert_eq!(rings[1].used.first(), Page::Granted(GrantReference(17)));
    }
    driver.write(0x50, 1);
    assert_eq!(driver.log().kicks, [1]);
    driver.log().used = [0, 1];
    assert_eq!(driver.read(0x60), USED_BUFFER);
    driver.write(0x64, USED_BUFFER);
    assert_eq!(driver.read(0x60), 0);
}

#[test]
fn it_can_be_unbound_and_bound_again() {
    let mut driver = Driver::new();
    for round in 1..=10 {
        driver.probe();
        assert_eq!(driver.log().started.len(), round);
        driver.write(0x70, 0);
        assert_eq!(driver.log().stops, round);
        assert_eq!(driver.read(0x70), 0);
        for queue in 0..2 {
            driver.write(0x30, queue);
            driver.write(0x44, 0);
            assert_eq!(driver.read(0x44), 0);
        }
    }
}

#[test]
fn features_ok_is_refused_and_can_be_tried_again() {
    let mut driver = Driver::new();
    driver.write(0x70, 3);
    for wrong in
        [FEATURES | 2, FEATURES & !1, FEATURES & !VERSION_1, FEATURES & !ACCESS_PLATFORM, 0, u64::MAX]
    {
        driver.take_features(wrong);
        driver.write(0x70, 0xb);
        assert_eq!(driver.read(0x70), 3, "{wrong:#x}");
    }
    driver.take_features(FEATURES);
    driver.write(0x70, 0xb);
    assert_eq!(driver.read(0x70), 0xb);
    // What was agreed stands.
    driver.take_features(0);
    driver.write(0x70, 0xf);
    assert_eq!(driver.log().started[0].0, FEATURES);
}

#[test]
fn queues_that_are_not_ready_are_left_out_and_a_broken_one_breaks_the_device() {
    let mut driver = Driver::new();
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x70, 0xb);
    driver.describe_queue(1, 16);
    driver.write(0x70, 0xf);
    assert_eq!(driver.log().started[0].1.iter().map(|ring| ring.index).collect::<Vec<_>>(), [1]);

    driver.write(0x70, 0);
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x70, 0xb);
    driver.write(0x30, 0);
    driver.write(0x44, 1);
    driver.write(0x70, 0xf);
    assert_eq!(driver.read(0x70), 0x4f, "DEVICE_NEEDS_RESET");
    assert_eq!(driver.log().started.len(), 1);
    assert_eq!(driver.read(0x60), CONFIG_CHANGE);
    driver.write(0x70, 0);
    driver.probe();
    assert_eq!(driver.log().started.len(), 2);
}

#[test]
fn a_lost_backend_shows_in_the_status_until_reset() {
    let mut driver = Driver::new();
    driver.window.device_lost();
    assert_eq!((driver.read(0x70), driver.log().interrupts), (0x40, 0));
    driver.write(0x70, 0);
    driver.probe();
    driver.window.device_lost();
    driver.window.device_lost();
    assert_eq!((driver.read(0x70), driver.log().interrupts), (0x4f, 1));
    assert_eq!(driver.read(0x60), CONFIG_CHANGE);
    driver.write(0x50, 0);
    assert!(driver.log().kicks.is_empty());
    driver.write(0x70, 0);
    assert_eq!((driver.read(0x70), driver.log().stops), (0, 1));
    driver.log().refuse_start = true;
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x70, 0xf);
    assert_eq!(driver.read(0x70), 0x4f);
}

/// A driver that comes after the reset chooses from what there is, and the device serves it.
#[test]
fn after_a_reset_a_driver_finds_what_the_present_backend_offers() {
    let mut driver = Driver::new();
    driver.probe();
    driver.window.backend_replaced(FEATURES & !(1 << 29), vec![7; 8]);
    assert_eq!((driver.read(0x70), driver.log().interrupts), (0x4f, 1));
    driver.probe();
    assert_eq!((driver.read(0x70), driver.read(0x100)), (0xf, 0x0707_0707));
    assert_eq!(driver.log().started[1].0, FEATURES & !(1 << 29));
    // A driver that does not use what goes does not mind, and neither if there is more.
    driver.window.backend_replaced(FEATURES, vec![7; 8]);
    driver.window.backend_replaced(FEATURES & !(1 << 29), vec![7; 8]);
    assert_eq!((driver.read(0x70), driver.read(0x60) & CONFIG_CHANGE), (0xf, 0));
}

#[test]
fn another_configuration_costs_a_driver_a_reset_that_uses_the_device() {
    let mut driver = Driver::new();
    driver.probe();
    driver.window.backend_replaced(FEATURES, vec![7; 4]);
    assert_eq!((driver.read(0x70), driver.read(0x60), driver.log().interrupts), (0x4f, CONFIG_CHANGE, 1));
    assert_eq!((driver.read(0x100), driver.read(0x104), driver.read(0xfc)), (0x0707_0707, 0, 1));
    driver.write(0x70, 0);
    driver.window.backend_replaced(FEATURES, vec![8; 8]);
    assert_eq!((driver.read(0x70), driver.read(0x100)), (0, 0x0808_0808));
}

#[test]
fn where_drivers_are_early_a_kick_starts_the_device_once() {
    let mut driver = Driver::of_type(true);
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x50, 0);
    driver.write(0x70, 0xb);
    // Nothing is ready to be started.
    driver.write(0x50, 0);
    assert!(driver.log().started.is_empty());
    assert!(driver.log().kicks.is_empty());
    driver.describe_queue(0, 8);
    driver.write(0x50, 1);
    assert!(driver.log().started.is_empty());
    assert!(driver.window.transport().awaits_early_kick());
    driver.write(0x50, 0);
    assert_eq!(driver.log().started.len(), 1);
    assert_eq!(driver.log().kicks, [0]);
    assert_eq!(driver.read(0x70), 0xb);
    driver.window.kicked_early(0);
    driver.write(0x70, 0xf);
    assert_eq!((driver.read(0x70), driver.log().started.len()), (0xf, 1));
    driver.write(0x70, 0);
    assert_eq!((driver.log().stops, driver.window.transport().awaits_early_kick()), (1, false));
}

#[test]
fn an_early_driver_that_resets_before_driver_ok_leaves_nothing_running() {
    let mut driver = Driver::of_type(true);
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x70, 0xb);
    driver.describe_queue(0, 8);
    driver.window.kicked_early(0);
    assert_eq!(driver.log().started.len(), 1);
    driver.write(0x70, 0);
    assert_eq!(driver.log().stops, 1);
}

#[test]
fn an_early_driver_that_gave_up_starts_nothing() {
    let mut driver = Driver::of_type(true);
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x70, 0xb);
    driver.describe_queue(0, 8);
    driver.write(0x70, 0x8b);
    assert!(!driver.window.transport().awaits_early_kick());
    driver.write(0x50, 0);
    driver.window.kicked_early(0);
    assert!(driver.log().started.is_empty());
}

/// 4.2.2.1: an event is presented until it is acknowledged. The device may have used buffers and then have
/// broken.
#[test]
fn what_was_used_before_the_device_was_lost_is_told() {
    let mut driver = Driver::new();
    driver.probe();
    driver.log().used = [0, 3];
    driver.window.device_lost();
    driver.log().used = [0, 0];
    assert_eq!((driver.read(0x70), driver.read(0x60), driver.log().abandoned), (0x4f, 3, 1));
    driver.write(0x64, 3);
    assert_eq!(driver.read(0x60), 0);
}
