// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers by what one may do with them (virtio 1.3, 4.2.2, table 4.1).
//!
//! A register that may only be written has no place in [`Readable`] and the reverse, so an access against the
//! rules finds nothing: reads give 0, writes have no effect.

/// "virt", little-endian.
pub const MAGIC: u32 = u32::from_le_bytes(*b"virt");

/// The version of the register layout: not legacy.
pub const VERSION: u32 = 2;

/// Who made the device; any value that identifies the project will do.
pub const VENDOR: u32 = u32::from_le_bytes(*b"XBA ");

/// Where the registers end and the device's configuration begins.
pub const CONFIG: u64 = 0x100;

/// The offset of QueueNotify, which the kernel's ioeventfd watches.
pub const QUEUE_NOTIFY: u64 = 0x50;

/// What one may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// MagicValue.
    Magic,
    /// Version.
    Version,
    /// DeviceID.
    DeviceId,
    /// VendorID.
    VendorId,
    /// DeviceFeatures: the 32 bits that DeviceFeaturesSel chose.
    DeviceFeatures,
    /// QueueSizeMax of the selected queue (QueueNumMax in older texts).
    QueueSizeMax,
    /// QueueReady of the selected queue.
    QueueReady,
    /// InterruptStatus.
    InterruptStatus,
    /// Status.
    Status,
    /// Half of the length or the base of a shared memory region, of which there are none.
    SharedMemory,
    /// ConfigGeneration.
    ConfigGeneration,
}

/// What one may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// DeviceFeaturesSel.
    DeviceFeaturesSelect,
    /// DriverFeatures: the 32 bits that DriverFeaturesSel chose.
    DriverFeatures,
    /// DriverFeaturesSel.
    DriverFeaturesSelect,
    /// QueueSel.
    QueueSelect,
    /// QueueSize of the selected queue (QueueNum in older texts).
    QueueSize,
    /// QueueReady of the selected queue.
    QueueReady,
    /// QueueNotify.
    QueueNotify,
    /// InterruptACK.
    InterruptAcknowledge,
    /// Status.
    Status,
    /// Half of an address of the selected queue.
    QueueAddress(Part, Half),
}

/// Which part of a queue an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The descriptor table (QueueDesc).
    Descriptors,
    /// The available ring (QueueDriver).
    Available,
    /// The used ring (QueueDevice).
    Used,
}

/// Which half of an address a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Bits 0 to 31.
    Low,
    /// Bits 32 to 63.
    High,
}

impl Readable {
    /// The register at `offset`. QueueReset (0x0c0) is absent, as VIRTIO_F_RING_RESET is not offered: it reads 0.
    #[must_use]
    pub fn at(offset: u64) -> Option<Self> {
        Some(match offset {
            0x000 => Self::Magic,
            0x004 => Self::Version,
            0x008 => Self::DeviceId,
            0x00c => Self::VendorId,
            0x010 => Self::DeviceFeatures,
            0x034 => Self::QueueSizeMax,
            0x044 => Self::QueueReady,
            0x060 => Self::InterruptStatus,
            0x070 => Self::Status,
            0x0b0 | 0x0b4 | 0x0b8 | 0x0bc => Self::SharedMemory,
            0x0fc => Self::ConfigGeneration,
            _ => return None,
        })
    }
}

impl Writable {
    /// The register at `offset`. SHMSel (0x0ac) is absent, as every shared memory region answers alike.
    #[must_use]
    pub fn at(offset: u64) -> Option<Self> {
        Some(match offset {
            0x014 => Self::DeviceFeaturesSelect,
            0x020 => Self::DriverFeatures,
            0x024 => Self::DriverFeaturesSelect,
            0x030 => Self::QueueSelect,
            0x038 => Self::QueueSize,
            0x044 => Self::QueueReady,
            QUEUE_NOTIFY => Self::QueueNotify,
            0x064 => Self::InterruptAcknowledge,
            0x070 => Self::Status,
            0x080 => Self::QueueAddress(Part::Descriptors, Half::Low),
            0x084 => Self::QueueAddress(Part::Descriptors, Half::High),
            0x090 => Self::QueueAddress(Part::Available, Half::Low),
            0x094 => Self::QueueAddress(Part::Available, Half::High),
            0x0a0 => Self::QueueAddress(Part::Used, Half::Low),
            0x0a4 => Self::QueueAddress(Part::Used, Half::High),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_magic_value_is_that_of_the_specification() {
        // virtio 1.3, 4.2.2.1
        assert_eq!(MAGIC, 0x7472_6976);
    }

    #[test]
    fn only_queue_ready_and_status_can_be_both_read_and_written() {
        let both = (0..CONFIG).filter(|&at| Readable::at(at).is_some() && Writable::at(at).is_some());
        assert_eq!(both.collect::<Vec<_>>(), [0x044, 0x070]);
    }

    #[test]
    fn nothing_is_found_at_unaligned_offsets_or_beyond() {
        for offset in (0..CONFIG).filter(|offset| offset % 4 != 0).chain([CONFIG, 0x200, u64::MAX]) {
            assert_eq!((Readable::at(offset), Writable::at(offset)), (None, None), "{offset:#x}");
        }
    }
}
