// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! 2.6.1, 4.2.2.1: queues, their notifications and their reset.

use super::{STEPS, after, live};
use crate::memory::{GrantReference, Page};
use crate::virtio_mmio::features::RING_RESET;
use crate::virtio_mmio::interrupt::{CONFIG_CHANGE, USED_BUFFER};
use crate::virtio_mmio::queue::Queue;
use crate::virtio_mmio::tests::test_driver::{Driver, FEATURES};

fn without_ring_reset() -> Driver {
    let mut driver = after(3);
    driver.take_features(FEATURES & !RING_RESET);
    STEPS[4..].iter().for_each(|step| step(&mut driver));
    driver
}

#[test]
fn s4_2_2_1_an_event_shows_from_its_moment_until_it_is_acknowledged() {
    let mut driver = live();
    driver.log().used = [1, 0];
    for _ in 0..3 {
        assert_eq!(driver.read(0x60), USED_BUFFER);
    }
    driver.write(0x64, CONFIG_CHANGE);
    assert_eq!(driver.read(0x60), USED_BUFFER);
    driver.write(0x64, USED_BUFFER);
    assert_eq!(driver.read(0x60), 0);
}

#[test]
fn s4_2_2_1_an_event_between_reading_and_acknowledging_shows_again() {
    let mut driver = live();
    driver.log().used = [1, 0];
    assert_eq!(driver.read(0x60), USED_BUFFER);
    driver.log().used = [1, 1];
    driver.write(0x64, USED_BUFFER);
    assert_eq!(driver.read(0x60), USED_BUFFER);
}

#[test]
fn s4_2_2_1_bits_without_an_event_are_0() {
    let mut driver = live();
    driver.write(0x64, u32::MAX);
    driver.write(0x50, 0);
    assert_eq!(driver.read(0x60), 0);
    driver.window.config_changed(vec![1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(driver.read(0x60), 0, "the configuration is the same");
}

#[test]
fn s4_2_2_1_a_queue_is_not_touched_when_queue_ready_is_0() {
    let mut driver = after(6);
    driver.write(0x30, 1);
    driver.write(0x44, 0);
    driver.write(0x70, 0xf);
    assert_eq!(driver.log().started[0].1.iter().map(|ring| ring.index).collect::<Vec<_>>(), [0]);
    driver.write(0x30, 0);
    driver.write(0x44, 0);
    assert_eq!((driver.read(0x44), driver.read(0x70)), (0, 0xf));
    assert_eq!(driver.log().stopped_queues, [0]);
}

#[test]
fn s4_2_2_1_a_queue_taken_out_of_use_comes_back_only_by_a_reset() {
    let mut driver = live();
    driver.write(0x44, 0);
    driver.write(0x44, 1);
    assert_eq!((driver.read(0x44), driver.log().started_queues.len()), (0, 0));
    driver.write(0xc0, 1);
    driver.describe_queue(1, 16);
    assert_eq!((driver.read(0x44), driver.log().started_queues.len()), (1, 1));
}

#[test]
fn s4_2_2_1_queue_reset_is_0_on_reset() {
    let mut driver = Driver::new();
    for round in 0..2 {
        for queue in 0..2 {
            driver.write(0x30, queue);
            assert_eq!(driver.read(0xc0), 0, "round {round}");
        }
        driver.probe();
        driver.write(0xc0, 1);
        driver.write(0x70, 0);
    }
}

#[test]
fn s4_2_2_1_queue_reset_is_0_after_the_queue_is_enabled() {
    let mut driver = live();
    driver.write(0xc0, 1);
    driver.describe_queue(1, 16);
    assert_eq!((driver.read(0xc0), driver.read(0x44)), (0, 1));
}

#[test]
fn s4_2_2_1_queue_reset_and_queue_ready_are_0_when_the_reset_has_completed() {
    let mut driver = live();
    driver.write(0xc0, 1);
    // It completes before the write returns: the device was asked to stop the queue by then.
    assert_eq!(driver.log().stopped_queues, [1]);
    assert_eq!((driver.read(0xc0), driver.read(0x44)), (0, 0));
}

#[test]
fn s2_6_1_1_1_a_queue_that_was_reset_is_neither_served_nor_notified_for() {
    let mut driver = live();
    driver.write(0xc0, 1);
    driver.log().used = [0, 9];
    assert_eq!(driver.log().stopped_queues, [1]);
    assert_eq!(driver.read(0x60), 0, "what is used of it is of no queue");
    driver.log().used = [1, 9];
    assert_eq!(driver.read(0x60), USED_BUFFER, "the other queue goes on");
    driver.write(0xc0, 1);
    assert_eq!(driver.log().stopped_queues, [1], "it is stopped already");
}

#[test]
fn s2_6_1_1_1_a_queue_that_was_reset_is_as_new() {
    let mut driver = live();
    driver.log().used = [0, 5];
    assert_eq!(driver.read(0x60), USED_BUFFER);
    driver.write(0x64, USED_BUFFER);
    driver.write(0xc0, 1);
    assert_eq!(driver.window.state().queues[1], Queue::default());
    // The used ring begins at 0 again, and what is used of it shows.
    driver.describe_queue(1, 16);
    driver.log().used = [0, 0];
    assert_eq!(driver.read(0x60), 0);
    driver.log().used = [0, 5];
    assert_eq!(driver.read(0x60), USED_BUFFER);
}

#[test]
fn s2_6_1_2_1_a_queue_is_enabled_with_what_the_driver_changed() {
    let mut driver = live();
    driver.write(0xc0, 1);
    driver.describe_queue(1, 40);
    driver.write(0xc0, 1);
    driver.describe_queue(1, 48);
    let log = driver.log();
    let first_pages: Vec<_> = log.started_queues.iter().map(|ring| ring.descriptors.first()).collect();
    assert_eq!(first_pages, [40, 48].map(|reference| Page::Granted(GrantReference(reference))));
}

#[test]
fn s2_6_1_2_1_a_queue_that_comes_back_unusable_costs_a_reset() {
    let mut driver = live();
    driver.write(0xc0, 1);
    driver.write(0x44, 1);
    assert_eq!((driver.read(0x70), driver.read(0x60)), (0x4f, CONFIG_CHANGE));
    driver.probe();
    driver.write(0xc0, 1);
    driver.log().refuse_start = true;
    driver.describe_queue(1, 16);
    assert_eq!(driver.read(0x70), 0x4f);
}

#[test]
fn s2_6_1_a_queue_can_be_reset_before_driver_ok() {
    let mut driver = after(6);
    driver.write(0xc0, 1);
    assert_eq!(driver.read(0x44), 0);
    assert!(driver.log().stopped_queues.is_empty());
    driver.describe_queue(1, 24);
    driver.write(0x70, 0xf);
    assert_eq!(driver.log().started[0].1.len(), 2);
}

#[test]
fn s2_6_1_queue_reset_is_nothing_to_a_driver_without_ring_reset() {
    let mut driver = without_ring_reset();
    driver.write(0xc0, 1);
    assert_eq!((driver.read(0xc0), driver.read(0x44)), (0, 1));
    assert!(driver.log().stopped_queues.is_empty());
    // Nor before the features are agreed.
    let mut driver = after(4);
    driver.write(0x44, 1);
    driver.write(0xc0, 1);
    assert_eq!(driver.read(0x44), 1);
}

#[test]
fn s3_1_1_without_ring_reset_no_queue_is_enabled_after_driver_ok() {
    let mut driver = after(3);
    driver.take_features(FEATURES & !RING_RESET);
    driver.write(0x70, 0xb);
    driver.write(0x70, 0xf);
    driver.write(0x44, 1);
    assert_eq!((driver.read(0x44), driver.log().started_queues.len()), (0, 0));
}

#[test]
fn s2_6_1_values_other_than_1_reset_no_queue() {
    let mut driver = live();
    for value in [0, 2, 3, 0x8000_0001, u32::MAX] {
        driver.write(0xc0, value);
        assert_eq!(driver.read(0x44), 1, "{value:#x}");
    }
}
