// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! 2.2, 6.2: features.

use super::after;
use crate::memory::GuestMemory;
use crate::virtio_mmio::features::{ACCESS_PLATFORM, RING_RESET, VERSION_1, offered};
use crate::virtio_mmio::tests::test_driver::{Driver, FEATURES};
use shim_config::DeviceType;
use shim_config::device_type::DEVICE_TYPE;

/// Every set of the bits of `bits`.
fn subsets(bits: u64) -> impl Iterator<Item = u64> {
    let mut next = Some(bits);
    std::iter::from_fn(move || {
        let set = next?;
        next = (set != 0).then(|| (set - 1) & bits);
        Some(set)
    })
}

/// Whether FEATURES_OK sticks for a driver that takes `features`.
fn is_accepted(features: u64) -> bool {
    let mut driver = after(3);
    driver.take_features(features);
    driver.write(0x70, 0xb);
    driver.read(0x70) == 0xb
}

const NEEDED: u64 = VERSION_1 | ACCESS_PLATFORM | 1;

#[test]
fn s2_2_2_every_valid_subset_is_accepted_and_no_other() {
    for features in subsets(FEATURES) {
        assert_eq!(is_accepted(features), features & NEEDED == NEEDED, "{features:#x}");
    }
}

#[test]
fn s2_2_2_features_ok_is_refused_for_each_bit_that_is_not_offered() {
    for bit in (0..64).map(|bit| 1 << bit).filter(|bit| FEATURES & bit == 0) {
        assert!(!is_accepted(FEATURES | bit), "{bit:#x}");
        assert!(!is_accepted(NEEDED | bit), "{bit:#x}");
    }
}

#[test]
fn s2_2_2_features_ok_is_refused_without_version_1() {
    assert!(!is_accepted(FEATURES & !VERSION_1));
}

#[test]
fn s2_2_2_features_ok_is_refused_without_access_platform() {
    assert!(!is_accepted(FEATURES & !ACCESS_PLATFORM));
}

#[test]
fn s2_2_2_features_ok_is_refused_without_the_mandatory_bit_of_the_type() {
    // 5.16.3: VIRTIO_I2C_F_ZERO_LENGTH_REQUEST.
    assert_eq!(DeviceType::with_id(34).unwrap().required_features, 1);
    assert!(!is_accepted(FEATURES & !1));
}

#[test]
fn s2_2_2_the_same_set_is_accepted_again_after_a_reset() {
    let mut driver = Driver::new();
    for _ in 0..3 {
        for features in subsets(FEATURES).filter(|features| features & NEEDED == NEEDED) {
            driver.write(0x70, 0);
            driver.write(0x70, 3);
            driver.take_features(features);
            driver.write(0x70, 0xb);
            assert_eq!(driver.read(0x70), 0xb, "{features:#x}");
        }
    }
}

#[test]
fn s2_2_2_no_offered_feature_needs_one_that_is_not() {
    // Of the bits for ring and transport, those that are passed need nothing (section 6): a bit that would is
    // never passed, whatever the backend says. (Those of the device type are the backend's to get right.)
    let needs_another = [24, 25, 26, 27, 28, 30, 31, 34, 37, 38, 39, 41, 42, 43, 44, 45, 46, 47, 48, 49];
    for bit in needs_another {
        assert_eq!(offered(1 << bit, u64::MAX, &GuestMemory::Granted) & 1 << bit, 0, "bit {bit}");
    }
}

#[test]
fn s2_2_2_of_the_bits_of_a_type_those_are_offered_that_it_has() {
    // 5.4.3, 5.8.3, 5.10.3, 5.17.3 (the second bit needs shared memory, of which there is none), 5.16.3,
    // 5.18.3.
    for (device_id, has) in [(4, 0), (18, 0), (19, 7), (32, 1), (34, 1), (41, 1)] {
        let of_type = DeviceType::with_id(device_id).unwrap().features;
        assert_eq!(offered(u64::MAX, of_type, &GuestMemory::Granted) & DEVICE_TYPE, has, "type {device_id}");
        assert_eq!(
            offered(0, of_type, &GuestMemory::Granted) & DEVICE_TYPE,
            0,
            "type {device_id}, and the backend has none"
        );
    }
    // All bits of a type can be offered.
    for bit in (0..24).chain(50..64) {
        assert_eq!(
            offered(1 << bit, DEVICE_TYPE, &GuestMemory::Granted) & DEVICE_TYPE,
            1 << bit,
            "bit {bit}"
        );
    }
}

#[test]
fn s2_2_the_set_stands_once_features_ok_is_set() {
    let mut driver = after(5);
    driver.take_features(NEEDED);
    assert_eq!(driver.window.state().driver_features, FEATURES);
}

#[test]
fn s6_2_version_1_and_access_platform_are_offered_whatever_the_backend_offers() {
    for backend in [0, 1, FEATURES, u64::MAX] {
        assert_eq!(
            offered(backend, 0, &GuestMemory::Granted) & (VERSION_1 | ACCESS_PLATFORM),
            VERSION_1 | ACCESS_PLATFORM
        );
    }
}

#[test]
fn s6_2_ring_reset_is_offered_and_may_be_left_out() {
    assert_eq!(offered(0, 0, &GuestMemory::Granted) & RING_RESET, RING_RESET);
    assert!(is_accepted(FEATURES & !RING_RESET));
}
