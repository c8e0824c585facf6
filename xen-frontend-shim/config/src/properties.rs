// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The properties of one device: those of its type, or what its configuration has instead.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device_type::{DEVICE_TYPE, DeviceType, Lifetime};
use crate::{Device, WINDOW_SIZE};

/// Bytes of a window from its begin to the configuration structure (virtio 1.3, 4.2.2).
const CONFIG_OFFSET: u64 = 0x100;
/// The largest size of a split queue (virtio 1.3, 2.7).
const QUEUE_SIZE_MAX: u16 = 32768;
/// The most queues of a device: their descriptors have to fit one message of the shim's control socket.
pub const QUEUES_MAX: u16 = 125;

/// The properties of a device that vhost-user has no message for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// The name of the type in messages.
    pub type_name: String,
    /// The length of the configuration structure in bytes.
    pub config_size: u32,
    /// The range of the configuration structure that a driver may write.
    pub writable: Range<u32>,
    /// The largest queue size, a power of two.
    pub queue_size: u16,
    /// The feature bits of the type that a driver may be offered.
    pub features: u64,
    /// The feature bits that a driver has to accept.
    pub required_features: u64,
    /// The device-to-driver queues: their buffers may be offered to another backend again.
    pub inbound: Vec<u16>,
    /// What ends with the process of a backend.
    pub lifetime: Lifetime,
    /// Whether the first kick starts the device.
    pub starts_by_kick: bool,
    /// Whether a driver waits for another backend without a limit.
    pub waits: bool,
}

/// Reasons why the configuration of a device does not make a device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PropertyError {
    /// The table has no such type, and the configuration does not describe it.
    #[error(
        "no virtio device type with the ID {id} is known: write `{missing}` for it, or use another device-id \
         ({known})"
    )]
    UnknownType {
        /// The device ID.
        id: u32,
        /// The first field that is missing.
        missing: &'static str,
        /// The types that are known.
        known: String,
    },
    /// The number of queues.
    #[error("a device has 1 to {max} queues, not {0}", max = QUEUES_MAX)]
    Queues(u16),
    /// The queue size.
    #[error("queue-size = {0}: use a power of two up to {max}", max = QUEUE_SIZE_MAX)]
    QueueSize(u16),
    /// The configuration structure is too long for the window.
    #[error("config-size = {0}: a window has {max} bytes for it", max = WINDOW_SIZE - CONFIG_OFFSET)]
    ConfigSize(u32),
    /// The writable range is not within the configuration structure.
    #[error("writable = {0:?}: the configuration structure has {1} bytes")]
    Writable(Range<u32>, u32),
    /// A feature bit belongs to the transport.
    #[error("features = {0:#x}: the bits 24 to 49 belong to the transport; remove {1:#x}")]
    Features(u64, u64),
    /// A device-to-driver queue does not exist.
    #[error("inbound has queue {0}: the device has the queues 0 to {1}")]
    Inbound(u16, u16),
}

impl Properties {
    /// The properties of `device`.
    ///
    /// # Errors
    /// Returns an error if the type is unknown and not described, or if a value is out of its range.
    pub fn of(device: &Device) -> Result<Self, PropertyError> {
        let properties = match DeviceType::with_id(device.device_id) {
            Some(kind) => Self::of_type(kind, device),
            None => Self::described(device)?,
        };
        properties.check(device.queues)?;
        Ok(properties)
    }

    fn of_type(kind: &DeviceType, device: &Device) -> Self {
        let features = device.features.unwrap_or(kind.features);
        let required = if device.strict { kind.required_features } else { 0 };
        Self {
            type_name: kind.name.to_owned(),
            config_size: device.config_size.unwrap_or(kind.config_size),
            writable: device.writable.clone().unwrap_or(kind.writable.clone()),
            queue_size: device.queue_size.unwrap_or(kind.queue_size),
            features,
            required_features: required & features,
            inbound: device.inbound.clone().unwrap_or_else(|| kind.inbound(device.queues)),
            lifetime: kind.lifetime,
            starts_by_kick: kind.starts_by_kick,
            waits: kind.waits,
        }
    }

    /// A type that is not in the table. It is assumed to have state.
    fn described(device: &Device) -> Result<Self, PropertyError> {
        let missing = |missing| {
            let known = DeviceType::all().iter().map(|kind| format!("{} {}", kind.id, kind.name));
            let known = known.collect::<Vec<_>>().join(", ");
            PropertyError::UnknownType { id: device.device_id, missing, known }
        };
        Ok(Self {
            type_name: format!("with the ID {}", device.device_id),
            config_size: device.config_size.ok_or_else(|| missing("config-size"))?,
            writable: device.writable.clone().unwrap_or(0..0),
            queue_size: device.queue_size.ok_or_else(|| missing("queue-size"))?,
            features: device.features.ok_or_else(|| missing("features"))?,
            required_features: 0,
            inbound: device.inbound.clone().ok_or_else(|| missing("inbound"))?,
            lifetime: Lifetime::Recorded,
            starts_by_kick: false,
            waits: false,
        })
    }

    fn check(&self, queues: u16) -> Result<(), PropertyError> {
        let surplus = self.features & !DEVICE_TYPE;
        if !(1..=QUEUES_MAX).contains(&queues) {
            Err(PropertyError::Queues(queues))
        } else if !self.queue_size.is_power_of_two() {
            Err(PropertyError::QueueSize(self.queue_size))
        } else if u64::from(self.config_size) > WINDOW_SIZE - CONFIG_OFFSET {
            Err(PropertyError::ConfigSize(self.config_size))
        } else if self.writable.start > self.writable.end || self.writable.end > self.config_size {
            Err(PropertyError::Writable(self.writable.clone(), self.config_size))
        } else if surplus != 0 {
            Err(PropertyError::Features(self.features, surplus))
        } else if let Some(queue) = self.inbound.iter().find(|queue| **queue >= queues) {
            Err(PropertyError::Inbound(*queue, queues - 1))
        } else {
            Ok(())
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
    use crate::{Backend, Program};

    fn device(id: u32, queues: u16) -> Device {
        let backend = Backend::Program(Program::new(vec!["backend".into()]));
        Device::new("device".into(), id, queues, 0x200_0000, 33, backend)
    }

    #[test]
    fn device_has_the_properties_of_its_type_or_its_own() {
        let rng = Properties::of(&device(4, 1)).unwrap();
        assert_eq!((rng.config_size, rng.queue_size, rng.inbound), (0, 128, vec![0]));
        let own = Device {
            config_size: Some(16),
            writable: Some(4..8),
            queue_size: Some(512),
            features: Some(1 << 63),
            inbound: Some(vec![1]),
            ..device(4, 2)
        };
        let own = Properties::of(&own).unwrap();
        assert_eq!((own.config_size, own.writable, own.queue_size), (16, 4..8, 512));
        assert_eq!((own.features, own.inbound), (1 << 63, vec![1]));
    }

    #[test]
    fn device_that_is_not_strict_has_no_required_features() {
        assert_eq!(Properties::of(&device(34, 1)).unwrap().required_features, 1);
        let lenient = Device { strict: false, ..device(34, 1) };
        assert_eq!(Properties::of(&lenient).unwrap().required_features, 0);
    }

    #[test]
    fn unknown_type_needs_a_description() {
        let mut unknown = device(63, 1);
        for missing in ["config-size", "queue-size", "features", "inbound"] {
            let error = Properties::of(&unknown).unwrap_err().to_string();
            assert!(error.contains(&format!("write `{missing}`")) && error.contains("4 rng"), "{error}");
            match missing {
                "config-size" => unknown.config_size = Some(8),
                "queue-size" => unknown.queue_size = Some(64),
                "features" => unknown.features = Some(0),
                _ => unknown.inbound = Some(vec![]),
            }
        }
        assert_eq!(Properties::of(&unknown).unwrap().type_name, "with the ID 63");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let refused = |device: Device| Properties::of(&device).unwrap_err();
        assert_eq!(refused(device(4, 0)), PropertyError::Queues(0));
        assert_eq!(refused(device(4, 126)), PropertyError::Queues(126));
        for size in [0, 3] {
            let size_error = refused(Device { queue_size: Some(size), ..device(4, 1) });
            assert_eq!(size_error, PropertyError::QueueSize(size));
        }
        let long = Device { config_size: Some(257), ..device(4, 1) };
        assert_eq!(refused(long), PropertyError::ConfigSize(257));
        let wide = Device { writable: Some(4..9), ..device(41, 2) };
        assert_eq!(refused(wide), PropertyError::Writable(4..9, 8));
        let transport = Device { features: Some(1 << 33 | 1), ..device(4, 1) };
        assert_eq!(refused(transport), PropertyError::Features(1 << 33 | 1, 1 << 33));
        let inbound = Device { inbound: Some(vec![0, 2]), ..device(4, 2) };
        assert_eq!(refused(inbound), PropertyError::Inbound(2, 1));
    }

    #[test]
    fn write_outside_the_writable_range_is_refused() {
        let input = Properties::of(&device(18, 2)).unwrap();
        assert!(input.may_write(0, 1) && input.may_write(0, 2) && input.may_write(1, 1));
        assert!(!input.may_write(1, 2) && !input.may_write(2, 1) && !input.may_write(u32::MAX, 1));
        assert!(!Properties::of(&device(41, 2)).unwrap().may_write(0, 1));
    }
}
