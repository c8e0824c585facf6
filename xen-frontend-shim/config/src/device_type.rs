// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio device types: what a frontend has to know of a type because vhost-user has no message that asks
//! for it.
//!
//! A backend cannot be asked for the length of its configuration or for the largest size of its queues, and
//! many backends close the connection when a request exceeds them.
//!
//! Types that vhost-user does not carry are missing: the memory balloon, virtio-iommu, virtio-mem and
//! virtio-pmem change the guest's address space, 9P has a configuration without a fixed length. A device of
//! such a type, or of one that is not standardised, has all properties in its configuration.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The feature bits that belong to the device type: 0 to 23 and 50 to 63 (virtio 1.3, 2.2).
pub const DEVICE_TYPE: u64 = ((1 << 24) - 1) | (!0 << 50);

/// The queues whose buffers may be offered to another backend again: as a rule the device-to-driver queues,
/// in which the driver posts buffers in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// These queues.
    Queues(&'static [u16]),
    /// All queues with an even number: the receive queues of network devices (virtio 1.3, 5.1.2). Without
    /// VIRTIO_NET_F_CTRL_VQ there is no control queue.
    Even,
    /// All queues: output may be repeated.
    All,
}

/// What ends with the process of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// The device has no state between requests. The next backend continues.
    Stateless,
    /// The device has state, which a backend with the protocol feature INFLIGHT_SHMFD keeps for the next one.
    /// After any other backend the device needs a reset.
    Recorded,
    /// The device has state that no backend keeps. The device needs a reset.
    Process,
}

/// The properties of a virtio device type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceType {
    /// The virtio device ID (virtio 1.3, section 5).
    pub id: u32,
    /// The name of the type in messages, and in `type = "…"` of a manifest.
    pub name: &'static str,
    /// The length of the configuration structure in bytes.
    pub config_size: u32,
    /// The range of the configuration structure that a driver may write.
    pub writable: Range<u32>,
    /// The number of queues, unless the configuration has another one.
    pub queues: u16,
    /// The largest queue size that backends of this type accept, a power of two.
    pub queue_size: u16,
    /// The feature bits of the type, of [`DEVICE_TYPE`]: a backend's other bits there are not offered to the
    /// driver.
    pub features: u64,
    /// The feature bits that a driver has to accept.
    pub required_features: u64,
    /// The queues whose buffers may be offered again.
    pub inbound: Inbound,
    /// What ends with the process of a backend.
    pub lifetime: Lifetime,
    /// Whether the first kick starts the device. Known drivers of such a type use the device before they set
    /// DRIVER_OK, in violation of virtio 1.3, 3.1.1, and wait for the outcome.
    pub starts_by_kick: bool,
    /// Whether a driver that uses the device waits for another backend without a limit. Other devices need a
    /// reset after a time.
    pub waits: bool,
}

/// What the rows of the table have in common. vm-memory's upstream backends accept queues of 64 at least.
const COMMON: DeviceType = DeviceType {
    id: 0,
    name: "",
    config_size: 0,
    writable: 0..0,
    queues: 1,
    queue_size: 128,
    features: 0,
    required_features: 0,
    inbound: Inbound::Queues(&[]),
    lifetime: Lifetime::Stateless,
    starts_by_kick: false,
    waits: false,
};

/// The types in the order of their IDs.
static TYPES: [DeviceType; 18] = [
    // 5.1.4: the fields belong to features that the frontend implements (MAC, STATUS, MQ, MTU, CTRL_VQ), and
    // backends have no CONFIG. What remains of 5.1.3: checksums, segmentation, merged buffers, header length.
    DeviceType {
        id: 1,
        name: "net",
        queues: 2,
        features: 0b11 | 0xff << 7 | 1 << 15 | 0b111 << 54 | 1 << 59,
        inbound: Inbound::Even,
        ..COMMON
    },
    // 5.2.3 without SECURE_ERASE and ZONED: backends have the configuration up to `write_zeroes`. 5.2.4: the
    // driver writes `writeback`.
    DeviceType {
        id: 2,
        name: "block",
        config_size: 60,
        writable: 32..33,
        features: 0b1_1110_0111_0110 | 1 << 14 | 1 << 13,
        ..COMMON
    },
    // 5.3.3: SIZE, MULTIPORT, EMERG_WRITE. 5.3.4: the driver writes `emerg_wr`. Linux waits for the use of
    // each output buffer with interrupts disabled, without a limit, and does not react to
    // DEVICE_NEEDS_RESET: a console that needed a reset would stop its guest at the next `printk`. Output
    // that is repeated does less harm.
    DeviceType {
        id: 3,
        name: "console",
        config_size: 12,
        writable: 8..12,
        queues: 4,
        features: 0b111,
        inbound: Inbound::All,
        waits: true,
        ..COMMON
    },
    // 5.4.3: no features. 5.4.4: no configuration.
    DeviceType { id: 4, name: "rng", inbound: Inbound::Queues(&[0]), ..COMMON },
    // 5.6.3: INOUT, HOTPLUG, CHANGE, T10_PI. A driver may write `sense_size` and `cdb_size` (5.6.4). Linux
    // writes the defaults, and upstream's backend ends at SET_CONFIG: writes have no effect. A request takes
    // up to `seg_max` + 2 descriptors, and upstream's backend has a `seg_max` of 126.
    DeviceType {
        id: 8,
        name: "scsi",
        config_size: 36,
        queues: 3,
        queue_size: 128,
        features: 0b1111,
        inbound: Inbound::Queues(&[1]),
        ..COMMON
    },
    // 5.7.3: VIRGL, EDID, RESOURCE_UUID, RESOURCE_BLOB, CONTEXT_INIT. 5.7.4: the driver writes
    // `events_clear`.
    DeviceType {
        id: 16,
        name: "gpu",
        config_size: 16,
        writable: 4..8,
        queues: 2,
        features: 0b1_1111,
        lifetime: Lifetime::Process,
        ..COMMON
    },
    // 5.8.3: no features. 5.8.4: the driver writes `select` and `subsel`.
    DeviceType {
        id: 18,
        name: "input",
        config_size: 136,
        writable: 0..2,
        queues: 2,
        inbound: Inbound::Queues(&[0]),
        ..COMMON
    },
    // 5.10.3: STREAM, SEQPACKET, NO_IMPLIED_STREAM. Connections end with the backend.
    DeviceType {
        id: 19,
        name: "vsock",
        config_size: 8,
        queues: 3,
        features: 0b111,
        inbound: Inbound::Queues(&[0, 2]),
        lifetime: Lifetime::Process,
        ..COMMON
    },
    // 5.9.3: REVISION_1, the stateless modes, AKCIPHER. Sessions end with the backend.
    DeviceType {
        id: 20,
        name: "crypto",
        config_size: 56,
        queues: 2,
        features: 0b11_1111,
        lifetime: Lifetime::Process,
        ..COMMON
    },
    // 5.14.3: CTLS. Streams end with the backend.
    DeviceType {
        id: 25,
        name: "sound",
        config_size: 16,
        queues: 4,
        queue_size: 64,
        features: 1,
        inbound: Inbound::Queues(&[1, 3]),
        lifetime: Lifetime::Process,
        ..COMMON
    },
    // 5.11.4: `notify_buf_size` belongs to NOTIFICATION, which is not offered, as its queue would be in the
    // place of a request queue. Inode numbers and open files end with the backend.
    DeviceType {
        id: 26,
        name: "fs",
        config_size: 40,
        queues: 2,
        queue_size: 1024,
        lifetime: Lifetime::Process,
        ..COMMON
    },
    // 5.12.4
    DeviceType { id: 28, name: "rpmb", config_size: 3, ..COMMON },
    // 5.17.3: P2A_CHANNELS. Not SHARED_MEMORY (1), since this transport has no shared memory regions. Enabled
    // sensors and notifications end with the backend.
    DeviceType {
        id: 32,
        name: "scmi",
        queues: 2,
        features: 1,
        inbound: Inbound::Queues(&[1]),
        lifetime: Lifetime::Recorded,
        ..COMMON
    },
    // 5.16: bit 0 is VIRTIO_I2C_F_ZERO_LENGTH_REQUEST, mandatory by 5.16.3. A transfer takes up to three
    // descriptors for each of Linux's 42 messages. The probe function of Linux 6.12 (i2c-virtio.c) adds the
    // adapter, which probes the drivers of targets in the device tree, before it sets DRIVER_OK.
    DeviceType {
        id: 34,
        name: "i2c",
        queue_size: 256,
        features: 1,
        required_features: 1,
        starts_by_kick: true,
        ..COMMON
    },
    // virtio 1.4: CAN_CLASSIC, CAN_FD, RTR_FRAMES, LATE_TX_ACK; queues for transmission, reception, control.
    // The controller is stopped when its backend ends.
    DeviceType {
        id: 36,
        name: "can",
        config_size: 2,
        queues: 3,
        queue_size: 64,
        features: 0b1111,
        inbound: Inbound::Queues(&[1]),
        lifetime: Lifetime::Process,
        ..COMMON
    },
    // 5.18.3: bit 0 is VIRTIO_GPIO_F_IRQ. 5.18.4: two requests for each line may be in flight. Directions,
    // values and types of interrupts are state.
    DeviceType {
        id: 41,
        name: "gpio",
        config_size: 8,
        queues: 2,
        queue_size: 256,
        features: 1,
        lifetime: Lifetime::Recorded,
        ..COMMON
    },
    // virtio 1.4: no features.
    DeviceType { id: 45, name: "spi", config_size: 32, ..COMMON },
    // virtio 1.4: `device_caps`, `device_type`, `card`. Sessions end with the backend.
    DeviceType {
        id: 48,
        name: "media",
        config_size: 40,
        queues: 2,
        inbound: Inbound::Queues(&[1]),
        lifetime: Lifetime::Process,
        ..COMMON
    },
];

impl DeviceType {
    /// All types, in the order of their IDs.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &TYPES
    }

    /// The type with the virtio device ID `id`.
    #[must_use]
    pub fn with_id(id: u32) -> Option<&'static Self> {
        TYPES.iter().find(|kind| kind.id == id)
    }

    /// The type with the name `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TYPES.iter().find(|kind| kind.name == name)
    }

    /// The device-to-driver queues of a device with `queues` queues.
    #[must_use]
    pub fn inbound(&self, queues: u16) -> Vec<u16> {
        match self.inbound {
            Inbound::Queues(list) => list.iter().copied().filter(|queue| *queue < queues).collect(),
            Inbound::Even => (0..queues).step_by(2).collect(),
            Inbound::All => (0..queues).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_id_and_its_name() {
        assert!(TYPES.is_sorted_by(|one, other| one.id < other.id));
        for kind in DeviceType::all() {
            assert_eq!(DeviceType::with_id(kind.id), Some(kind));
            assert_eq!(DeviceType::named(kind.name), Some(kind));
        }
        assert_eq!((DeviceType::with_id(63), DeviceType::named("balloon")), (None, None));
    }

    #[test]
    fn configuration_of_every_type_fits_the_window() {
        for kind in DeviceType::all() {
            assert!(u64::from(kind.config_size) <= crate::WINDOW_SIZE - 0x100, "{}", kind.name);
            assert!(kind.writable.end <= kind.config_size, "{}", kind.name);
            assert!(kind.queue_size.is_power_of_two(), "{}", kind.name);
        }
    }

    #[test]
    fn required_features_are_features_of_the_type() {
        for kind in DeviceType::all() {
            assert_eq!(kind.required_features & !kind.features, 0, "{}", kind.name);
            assert_eq!(kind.features & !DEVICE_TYPE, 0, "{}", kind.name);
        }
    }

    #[test]
    fn device_to_driver_queues_are_queues_of_the_device() {
        for kind in DeviceType::all() {
            assert!(kind.inbound(kind.queues).iter().all(|queue| *queue < kind.queues), "{}", kind.name);
        }
        let net = DeviceType::named("net").unwrap();
        assert_eq!((net.inbound(2), net.inbound(6)), (vec![0], vec![0, 2, 4]));
        assert_eq!(DeviceType::named("console").unwrap().inbound(2), [0, 1]);
        assert_eq!(DeviceType::named("vsock").unwrap().inbound(3), [0, 2]);
    }
}
