// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Virtio device types: what a frontend has to know of a type because vhost-user has no message that asks for
//! it.
//!
//! A backend cannot be asked for the length of its configuration or for the largest size of its queues, and
//! many backends close the connection when a request exceeds them.

use std::ops::Range;

/// The feature bits that belong to the device type: 0 to 23 and 50 to 63 (virtio 1.3, 2.2).
pub const DEVICE_TYPE: u64 = ((1 << 24) - 1) | (!0 << 50);

/// The properties of a virtio device type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// The name of the type in messages.
    pub name: &'static str,
    /// The length of the configuration structure in bytes.
    pub config_size: u32,
    /// The range of the configuration structure that a driver may write.
    pub writable: Range<u32>,
    /// The largest queue size that backends of this type accept.
    pub queue_size_max: u16,
    /// The feature bits of the type, of [`DEVICE_TYPE`]: a backend's other bits there are not offered to the
    /// driver.
    pub features: u64,
    /// The feature bits that a driver has to accept.
    pub required_features: u64,
    /// Whether the first kick starts the device. Known drivers of such a type use the device before they set
    /// DRIVER_OK, in violation of virtio 1.3, 3.1.1, and wait for the outcome.
    pub starts_by_kick: bool,
}

/// A type that is not in the table: no configuration, a queue size that every backend accepts, and all
/// features of the backend.
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
    /// The type with the virtio device ID `device_id` (virtio 1.3, section 5).
    #[must_use]
    pub fn of(device_id: u32) -> Self {
        match device_id {
            // 5.4.3: no features. 5.4.4
            4 => Self { name: "entropy", features: 0, ..UNKNOWN },
            // 5.8.3: no features. 5.8.4: the driver writes select and subsel.
            18 => Self { name: "input", config_size: 136, writable: 0..2, features: 0, ..UNKNOWN },
            // 5.10.3: STREAM, SEQPACKET, NO_IMPLIED_STREAM. 5.10.4
            19 => Self { name: "socket", config_size: 8, features: 0b111, ..UNKNOWN },
            // 5.17.3: P2A_CHANNELS. Not SHARED_MEMORY (1), since this transport has no shared memory regions.
            32 => Self { name: "SCMI", features: 1, ..UNKNOWN },
            // 5.16: bit 0 is VIRTIO_I2C_F_ZERO_LENGTH_REQUEST, mandatory by 5.16.3. A transfer takes up to
            // three descriptors for each of Linux's 42 messages. The probe function of Linux 6.12
            // (i2c-virtio.c) adds the adapter, which probes the drivers of targets in the device tree, before
            // it sets DRIVER_OK.
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

    /// Whether a driver may write `length` bytes of the configuration structure at `offset`.
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
    fn write_outside_the_writable_range_is_refused() {
        let input = DeviceKind::of(18);
        assert!(input.may_write(0, 1) && input.may_write(0, 2) && input.may_write(1, 1));
        assert!(!input.may_write(1, 2) && !input.may_write(2, 1) && !input.may_write(u32::MAX, 1));
        assert!(!DeviceKind::of(41).may_write(0, 1));
    }

    #[test]
    fn configuration_of_every_type_fits_the_window() {
        for id in 0..64 {
            let kind = DeviceKind::of(id);
            assert!(u64::from(kind.config_size) <= crate::WINDOW_SIZE - 0x100);
            assert!(kind.queue_size_max.is_power_of_two());
        }
    }

    #[test]
    fn required_features_are_features_of_the_type() {
        for id in 0..64 {
            let kind = DeviceKind::of(id);
            assert_eq!(kind.required_features & !kind.features, 0, "{id}");
            assert_eq!(kind.features & !DEVICE_TYPE, 0, "{id}");
        }
    }
}
