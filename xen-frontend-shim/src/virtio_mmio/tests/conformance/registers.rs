// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! 4.2.2, table 4.1: one test per row, named after its offset.

use super::{STEPS, after, everywhere, live};
use crate::virtio_mmio::interrupt::{CONFIG_CHANGE, USED_BUFFER};
use crate::virtio_mmio::registers::VENDOR;
use crate::virtio_mmio::tests::test_driver::{Driver, FEATURES};

const HIGH: u32 = 0x103;
const LOW: u32 = 0x2000_0001;

#[test]
fn s4_2_2_x000_magic_value_is_virt() {
    assert!(everywhere().all(|mut driver| driver.read(0x000) == 0x7472_6976));
}

#[test]
fn s4_2_2_x004_version_is_2() {
    assert!(everywhere().all(|mut driver| driver.read(0x004) == 2));
}

#[test]
fn s4_2_2_x008_device_id_is_the_type() {
    assert!(everywhere().all(|mut driver| driver.read(0x008) == 34));
}

#[test]
fn s4_2_2_x00c_vendor_id_names_the_maker() {
    assert!(everywhere().all(|mut driver| driver.read(0x00c) == VENDOR));
}

#[test]
fn s4_2_2_x010_device_features_shows_32_bits_of_the_offer() {
    assert_eq!(u64::from(HIGH) << 32 | u64::from(LOW), FEATURES);
    for mut driver in everywhere() {
        for (select, bits) in
            [(0, LOW), (1, HIGH), (2, 0), (0, LOW), (0x8000_0001, 0), (1, HIGH), (u32::MAX, 0)]
        {
            driver.write(0x014, select);
            assert_eq!(driver.read(0x010), bits, "select {select:#x}");
        }
    }
}

#[test]
fn s4_2_2_x014_device_features_sel_chooses_for_reading_only() {
    let mut driver = after(3);
    driver.write(0x024, 1);
    driver.write(0x014, 0);
    driver.write(0x020, HIGH);
    driver.write(0x024, 0);
    driver.write(0x014, 1);
    driver.write(0x020, LOW);
    assert_eq!(driver.window.state().driver_features, FEATURES);
    assert_eq!(driver.read(0x010), HIGH);
}

#[test]
fn s4_2_2_x020_driver_features_replaces_32_bits() {
    let mut driver = after(3);
    let features = |driver: &Driver| driver.window.state().driver_features;
    driver.write(0x020, 0xffff_ffff);
    driver.write(0x020, 5);
    assert_eq!(features(&driver), 5);
    driver.write(0x024, 1);
    driver.write(0x020, 0xf);
    driver.write(0x020, 6);
    assert_eq!(features(&driver), 0x6_0000_0005);
    driver.write(0x024, 2);
    driver.write(0x020, 0xffff_ffff);
    assert_eq!(features(&driver), 0x6_0000_0005);
}

#[test]
fn s4_2_2_x024_driver_features_sel_may_be_written_in_any_order() {
    let writes = [(0, LOW), (1, HIGH), (2, 77), (u32::MAX, 77)];
    for first in 0..writes.len() {
        for step in [1, 3] {
            let mut driver = after(3);
            for n in 0..writes.len() {
                let (select, bits) = writes[(first + n * step) % writes.len()];
                driver.write(0x024, select);
                driver.write(0x020, bits);
            }
            driver.write(0x070, 0xb);
            assert_eq!((driver.read(0x070), driver.window.state().driver_features), (0xb, FEATURES));
        }
    }
}

#[test]
fn s4_2_2_x030_queue_sel_chooses_the_queue_that_the_others_mean() {
    let mut driver = after(5);
    driver.describe_queue(1, 16);
    driver.write(0x030, 0);
    assert_eq!(driver.read(0x044), 0);
    driver.write(0x030, 1);
    assert_eq!(driver.read(0x044), 1);
}

#[test]
fn s4_2_2_x034_queue_size_max_is_0_where_there_is_no_queue() {
    for mut driver in everywhere() {
        for (queue, max) in
            [(0, 256), (1, 256), (2, 0), (0xffff, 0), (0x1_0000, 0), (0x1_0001, 0), (u32::MAX, 0)]
        {
            driver.write(0x030, queue);
            assert_eq!(driver.read(0x034), max, "queue {queue:#x}");
        }
    }
}

#[test]
fn s4_2_2_x038_queue_size_is_that_of_the_ring() {
    for size in [1, 2, 128, 256] {
        let mut driver = after(5);
        driver.describe_queue(0, 8);
        driver.write(0x044, 0);
        driver.write(0x038, size);
        driver.write(0x044, 1);
        driver.write(0x070, 0xf);
        assert_eq!(u32::from(driver.log().started[0].1[0].size), size);
    }
}

#[test]
fn s4_2_2_x044_queue_ready_reads_the_last_value_written() {
    let mut driver = after(5);
    for (value, reads) in [(1, 1), (0, 0), (1, 1), (1, 1), (0, 0), (2, 0), (u32::MAX, 0)] {
        driver.write(0x044, value);
        assert_eq!(driver.read(0x044), reads, "{value:#x}");
    }
}

#[test]
fn s4_2_2_x050_queue_notify_kicks_the_queue_of_that_index() {
    let mut driver = live();
    // Where the kernel serves kicks, 0x1_0000 is one of queue 0: a deviation of CONFORMANCE.md.
    for (value, kicks) in [(1, 1), (0, 2), (2, 2), (0x1_0000, 2), (0xffff_ffff, 2), (1, 3)] {
        driver.write(0x050, value);
        assert_eq!(driver.log().kicks.len(), kicks, "{value:#x}");
    }
    assert_eq!(driver.log().kicks, [1, 0, 1]);
}

#[test]
fn s4_2_2_x060_interrupt_status_is_a_mask_of_events() {
    let mut driver = live();
    assert_eq!(driver.read(0x060), 0);
    driver.log().used = [0, 5];
    assert_eq!(driver.read(0x060), USED_BUFFER);
    driver.window.config_changed(vec![0; 8]);
    assert_eq!(driver.read(0x060), USED_BUFFER | CONFIG_CHANGE);
}

#[test]
fn s4_2_2_x064_interrupt_ack_clears_the_bits_that_it_names() {
    for mask in [0, 1, 2, 3, 4, 0xffff_fffd, 0xffff_fffe, u32::MAX] {
        let mut driver = live();
        driver.log().used = [1, 0];
        driver.window.config_changed(vec![0; 8]);
        let before = driver.read(0x060);
        driver.write(0x064, mask);
        assert_eq!((before, driver.read(0x060)), (3, 3 & !mask), "{mask:#x}");
    }
}

#[test]
fn s4_2_2_x070_status_reads_what_was_reached_and_is_reset_by_0() {
    let mut driver = Driver::new();
    for (step, status) in STEPS.iter().zip([0, 1, 3, 3, 0xb, 0xb, 0xf]) {
        step(&mut driver);
        assert_eq!(driver.read(0x070), status);
    }
    driver.write(0x070, 0);
    assert_eq!(driver.read(0x070), 0);
}

/// The three addresses of a queue of which one half was written to `register` before the others.
fn addresses_with(register: u64, value: u32) -> [u64; 3] {
    let mut driver = after(5);
    driver.write(0x030, 0);
    driver.write(0x038, 64);
    driver.write(register, value);
    for (low, page) in [(0x080, 8), (0x090, 16), (0x0a0, 24)] {
        for (offset, half) in [(low, page * 4096), (low + 4, 1 << 31)] {
            if offset != register {
                driver.write(offset, half);
            }
        }
    }
    driver.write(0x044, 1);
    driver.write(0x070, 0xf);
    let log = driver.log();
    log.started.first().map_or([0; 3], |(_, rings)| rings[0].parts().map(|part| part.start() & !(1 << 63)))
}

#[test]
fn s4_2_2_x080_queue_desc_low_is_half_of_the_descriptor_area() {
    assert_eq!(addresses_with(0x080, 0x5010), [0x5010, 0x1_0000, 0x1_8000]);
}

#[test]
fn s4_2_2_x084_queue_desc_high_is_half_of_the_descriptor_area() {
    assert_eq!(addresses_with(0x084, 1 << 31), [0x8000, 0x1_0000, 0x1_8000]);
    assert_eq!(addresses_with(0x084, 0), [0; 3], "no grant, so the device does not start");
}

#[test]
fn s4_2_2_x090_queue_driver_low_is_half_of_the_driver_area() {
    assert_eq!(addresses_with(0x090, 0x5002), [0x8000, 0x5002, 0x1_8000]);
}

#[test]
fn s4_2_2_x094_queue_driver_high_is_half_of_the_driver_area() {
    assert_eq!(addresses_with(0x094, 1 << 31), [0x8000, 0x1_0000, 0x1_8000]);
    assert_eq!(addresses_with(0x094, 0), [0; 3]);
}

#[test]
fn s4_2_2_x0a0_queue_device_low_is_half_of_the_device_area() {
    assert_eq!(addresses_with(0x0a0, 0x5004), [0x8000, 0x1_0000, 0x5004]);
}

#[test]
fn s4_2_2_x0a4_queue_device_high_is_half_of_the_device_area() {
    assert_eq!(addresses_with(0x0a4, 1 << 31), [0x8000, 0x1_0000, 0x1_8000]);
    assert_eq!(addresses_with(0x0a4, 0), [0; 3]);
}

/// Whether `register` reads all ones for every shared memory region.
fn is_none_for_every_region(register: u64) -> bool {
    let regions = [0, 1, 2, 0xff, 0x100, u32::MAX];
    let mut driver = live();
    regions.into_iter().all(|region| {
        driver.write(0x0ac, region);
        driver.read(register) == u32::MAX
    })
}

#[test]
fn s4_2_2_x0ac_shm_sel_changes_nothing_else() {
    let mut driver = live();
    let state = driver.window.state();
    for region in [0, 1, u32::MAX] {
        driver.write(0x0ac, region);
        assert_eq!(driver.window.state(), state);
    }
}

#[test]
fn s4_2_2_x0b0_shm_len_low_of_no_region() {
    assert!(is_none_for_every_region(0x0b0));
}

#[test]
fn s4_2_2_x0b4_shm_len_high_of_no_region() {
    assert!(is_none_for_every_region(0x0b4));
}

#[test]
fn s4_2_2_x0b8_shm_base_low_of_no_region() {
    assert!(is_none_for_every_region(0x0b8));
}

#[test]
fn s4_2_2_x0bc_shm_base_high_of_no_region() {
    assert!(is_none_for_every_region(0x0bc));
}

#[test]
fn s4_2_2_x0c0_queue_reset_resets_the_selected_queue() {
    let mut driver = live();
    driver.write(0x030, 1);
    driver.write(0x0c0, 1);
    assert_eq!((driver.read(0x0c0), driver.read(0x044)), (0, 0));
    driver.write(0x030, 0);
    assert_eq!((driver.read(0x0c0), driver.read(0x044)), (0, 1));
    assert_eq!(driver.log().stopped_queues, [1]);
}

#[test]
fn s4_2_2_x0fc_config_generation_counts_configurations() {
    let mut driver = live();
    let first = driver.read(0x0fc);
    assert_eq!(driver.read(0x0fc), first);
    driver.window.config_changed(vec![7; 8]);
    assert_ne!(driver.read(0x0fc), first);
}
