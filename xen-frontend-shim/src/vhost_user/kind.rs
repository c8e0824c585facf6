// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the shim has to know of a device type, because vhost-user does not tell: a backend cannot be asked how long
//! its configuration is, or how large its queues may be, and many end the connection when they are asked for more.

use std::ops::Range;

use crate::virtio_mmio::features::DEVICE_TYPE;

/// What differs between device types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// For messages.
    pub name: &'static str,
    /// Bytes of the configuration structure.
    pub config_size: u32,
    /// The part of it that a driver may write.
    pub writable: Range<u32>,
    /// The largest queue that backends of this type take.
    pub queue_size_max: u16,
    /// Feature bits that the type has: a backend's other bits of bits 0 to 23 and 50 to 63 are not offered.
    pub features: u64,
    /// Feature bits without which a driver must not use the device.
    pub required_features: u64,
    /// Whether drivers of this type are known to use the device before they say DRIVER_OK, which they must not
    /// (virtio 1.3, 3.1.1), and to wait for the outcome. Then the first kick starts the device.
    pub starts_by_kick: bool,
}

/// A type of which nothing is known: no configuration, and queues that every backend takes. Which features it has is the
/// backend's to know. That includes bits 50 to 63, which virtio 1.3 gives to device types like bits 0 to 23 (2.2), and of
/// which some types make use (5.1.3).
const UNKNOWN: DeviceKind = DeviceKind {
    name: "unknown",
    config_size: 0,
    writable: 0..0,
    queue_size_max: 64,
    features: DEVICE_TYPE,
    required_features: 0,
    starts_by_kick: false,
};

impl DeviceKind {
    /// What is known of the virtio device ID (virtio 1.3, section 5).
    #[must_use]
    pub fn of(device_id: u32) -> Self {
        match device_id {
            // 5.4.3: no features. 5.4.4
            4 => Self { name: "entropy", features: 0, ..UNKNOWN },
            // 5.8.3: no features. 5.8.4: select and subsel choose what the rest shows.
            18 => Self { name: "input", config_size: 136, writable: 0..2, features: 0, ..UNKNOWN },
            // 5.10.3: STREAM, SEQPACKET, NO_IMPLIED_STREAM. 5.10.4
            19 => Self { name: "socket", config_size: 8, features: 0b111, ..UNKNOWN },
            // 5.17.3: P2A_CHANNELS. Not SHARED_MEMORY (1), since this transport has no shared memory regions.
            32 => Self { name: "SCMI", features: 1, ..UNKNOWN },
            // 5.16: bit 0 is VIRTIO_I2C_F_ZERO_LENGTH_REQUEST, mandatory by 5.16.3. A transfer takes up to three
            // descriptors for each of Linux's 42 messages. Linux (6.12, i2c-virtio.c) adds the adapter in its probe function,
            // by which the drivers of targets in the device tree are probed, and says DRIVER_OK after that.
            34 => Self {
                name: "I2C adapter",
                queue_size_max: 256,
                features: 1,
                required_features: 1,
                starts_by_kick: true,
                ..UNKNOWN
            },
            // 5.18.3: bit 0 is VIRTIO_GPIO_F_IRQ. 5.18.4: two requests for each line may be in flight.
            41 => Self { name: "GPIO", config_size: 8, queue_size_max: 256, features: 1, ..UNKNOWN },
            _ => UNKNOWN,
        }
    }

    /// Whether a driver may write `length` bytes of configuration at `offset`.
    #[must_use]
    pub fn may_write(&self, offset: u32, length: u32) -> bool {
        offset >= self.writable.start
            && offset.checked_add(length).is_some_and(|end| end <= self.writable.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_writable_part_may_be_written() {
        let input = DeviceKind::of(18);
        assert!(input.may_write(0, 1) && input.may_write(0, 2) && input.may_write(1, 1));
        assert!(!input.may_write(1, 2) && !input.may_write(2, 1) && !input.may_write(u32::MAX, 1));
        assert!(!DeviceKind::of(41).may_write(0, 1));
    }

    #[test]
    fn every_kind_fits_the_window() {
        for id in 0..64 {
            let kind = DeviceKind::of(id);
            assert!(u64::from(kind.config_size) <= crate::config::WINDOW_SIZE - 0x100);
            assert!(kind.queue_size_max.is_power_of_two());
        }
    }

    #[test]
    fn what_a_type_demands_it_has() {
        for id in 0..64 {
            let kind = DeviceKind::of(id);
            assert_eq!(kind.required_features & !kind.features, 0, "{id}");
            assert_eq!(kind.features & !DEVICE_TYPE, 0, "{id}");
        }
    }
}
