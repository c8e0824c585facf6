// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Feature bits (virtio 1.3, 2.2 and 6): what is offered to the driver and what it may accept.

use shim_config::device_type::DEVICE_TYPE;
use thiserror::Error;

use crate::memory::GuestMemory;

/// VIRTIO_F_EVENT_IDX.
pub const EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_ACCESS_PLATFORM: the driver uses the platform's DMA addresses, which are grants here.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// VIRTIO_F_IN_ORDER.
pub const IN_ORDER: u64 = 1 << 35;
/// VIRTIO_F_ORDER_PLATFORM.
pub const ORDER_PLATFORM: u64 = 1 << 36;

/// VIRTIO_F_RING_RESET: the driver may reset one queue (virtio 1.3, 2.6.1).
pub const RING_RESET: u64 = 1 << 40;

/// The features of the transport itself, which are offered with every backend.
const OWN: u64 = VERSION_1 | ACCESS_PLATFORM | RING_RESET;

/// The transport and ring features that are offered if the backend has them. Others are not:
///
/// - INDIRECT_DESC (28): the tables would have to be mapped for each request;
/// - RING_PACKED (34): the shim reads the used index of split rings;
/// - 26 and 30: vhost-user gives them another meaning;
/// - NOTIFICATION_DATA (38): the kernel's ioeventfd compares QueueNotify with a queue number.
const PASSED: u64 = EVENT_IDX | IN_ORDER | ORDER_PLATFORM;

/// The features to offer for a backend with the features `backend` and a device type with the features
/// `of_type` (virtio 1.3, 2.2.2), to a guest of whose memory backends reach `memory`.
#[must_use]
pub fn offered(backend: u64, of_type: u64, memory: &GuestMemory) -> u64 {
    let all = backend & (of_type & DEVICE_TYPE | PASSED) | OWN;
    match memory {
        GuestMemory::Granted => all,
        // Drivers of such a guest use guest physical addresses.
        GuestMemory::All(_) => all & !ACCESS_PLATFORM,
    }
}

/// Why FEATURES_OK is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Virtio 1.3, 2.2.1: the driver must not accept what was not offered.
    #[error("the driver accepts features that are not offered: {0:#x}")]
    NotOffered(u64),
    /// Virtio 1.3, 6.1: a legacy driver.
    #[error("the driver does not accept VIRTIO_F_VERSION_1: a legacy driver cannot use this device")]
    Legacy,
    /// Virtio 1.3, 6.2: without it the driver uses guest physical addresses, which the backend cannot map
    /// unless the configuration gives it all of the guest's RAM.
    #[error(
        "the driver does not accept VIRTIO_F_ACCESS_PLATFORM: the guest needs grants for DMA \
         (Linux: CONFIG_XEN_VIRTIO, and `iommus = <&grant_dma DOMID>` at the device's node), or \
         `memory-access = \"all\"` in the manifest"
    )]
    NoGrants,
    /// The device type has features that a driver has to accept.
    #[error("the driver does not accept features that this device type requires: {0:#x}")]
    Demanded(u64),
}

/// Checks the features that a driver has `accepted` of those that were `offered`. It has to accept those that
/// are `demanded`.
pub fn check(offered: u64, demanded: u64, accepted: u64) -> Result<(), Refusal> {
    let surplus = accepted & !offered;
    let missing = demanded & !accepted;
    if surplus != 0 {
        Err(Refusal::NotOffered(surplus))
    } else if accepted & VERSION_1 == 0 {
        Err(Refusal::Legacy)
    } else if offered & !accepted & ACCESS_PLATFORM != 0 {
        Err(Refusal::NoGrants)
    } else if missing != 0 {
        Err(Refusal::Demanded(missing))
    } else {
        Ok(())
    }
}

/// The 32 bits of `features` that `select` chooses. 0 for a `select` above 1.
#[must_use]
pub fn half(features: u64, select: u32) -> u32 {
    let bytes = features.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = bytes;
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

/// `features` with the 32 bits that `select` chooses replaced.
#[must_use]
pub fn with_half(features: u64, select: u32, value: u32) -> u64 {
    let low = u64::from(u32::MAX);
    match select {
        0 => features & !low | u64::from(value),
        1 => features & low | u64::from(value) << 32,
        _ => features,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_features_are_offered_by_name_only() {
        let all = offered(u64::MAX, u64::MAX, &GuestMemory::Granted);
        for bit in [24, 25, 26, 27, 28, 30, 31, 34, 37, 38, 39, 41] {
            assert_eq!(all & 1 << bit, 0, "bit {bit}");
        }
        for bit in [0, 23, 29, 32, 33, 40, 50, 63] {
            assert_ne!(all & 1 << bit, 0, "bit {bit}");
        }
        assert_eq!(offered(0, u64::MAX, &GuestMemory::Granted), VERSION_1 | ACCESS_PLATFORM | RING_RESET);
    }

    #[test]
    fn a_guest_whose_ram_is_reached_is_not_offered_access_platform() {
        let memory = GuestMemory::All(Vec::new());
        let all = offered(u64::MAX, u64::MAX, &memory);
        assert_eq!(offered(u64::MAX, u64::MAX, &GuestMemory::Granted) & !all, ACCESS_PLATFORM);
        assert_eq!(check(all, 0, VERSION_1), Ok(()));
        assert_eq!(check(all, 0, VERSION_1 | ACCESS_PLATFORM), Err(Refusal::NotOffered(ACCESS_PLATFORM)));
    }

    #[test]
    fn features_ok_is_refused_by_2_2_1_and_6_1() {
        let need = VERSION_1 | ACCESS_PLATFORM;
        assert_eq!(check(need | 1, 0, need), Ok(()));
        assert_eq!(check(need | 1, 0, need | 1), Ok(()));
        assert_eq!(check(need | 1, 0, need | 3), Err(Refusal::NotOffered(2)));
        assert_eq!(check(need, 0, ACCESS_PLATFORM), Err(Refusal::Legacy));
        assert_eq!(check(need, 0, VERSION_1), Err(Refusal::NoGrants));
        assert_eq!(check(need, 0, 0), Err(Refusal::Legacy));
        assert_eq!(check(need | 3, 2, need | 1), Err(Refusal::Demanded(2)));
        assert_eq!(check(need | 3, 2, need | 2), Ok(()));
    }

    #[test]
    fn halves_beyond_the_second_are_empty() {
        assert_eq!((half(u64::MAX, 2), half(u64::MAX, u32::MAX)), (0, 0));
        assert_eq!(with_half(5, 7, u32::MAX), 5);
        assert_eq!(half(with_half(with_half(0, 1, 2), 0, 3), 1), 2);
    }
}
