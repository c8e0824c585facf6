// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The register table of virtio 1.3, 4.2.2 (table 4.1).
//!
//! A write-only register has no [`Readable`] in its row of [`TABLE`], and a read-only register no
//! [`Writable`]. An access that the table does not permit reads 0 or has no effect, as does an access to an
//! offset without a row.

/// "virt", little-endian.
pub const MAGIC: u32 = u32::from_le_bytes(*b"virt");

/// The version of the register layout: not legacy.
pub const VERSION: u32 = 2;

/// VendorID: a value that identifies the project.
pub const VENDOR: u32 = u32::from_le_bytes(*b"XBA ");

/// The offset of the configuration, after the registers.
pub const CONFIG: u64 = 0x100;

/// The offset of QueueNotify, which the kernel's ioeventfd watches.
pub const QUEUE_NOTIFY: u64 = 0x50;

/// Registers that can be read.
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
    /// QueueReset of the selected queue.
    QueueReset,
    /// ConfigGeneration.
    ConfigGeneration,
}

/// Registers that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// A register that only sets a value.
    Field(Field),
    /// QueueReady of the selected queue.
    QueueReady,
    /// QueueNotify.
    QueueNotify,
    /// InterruptACK.
    InterruptAcknowledge,
    /// Status.
    Status,
    /// SHMSel. It has no effect, as there are no shared memory regions.
    SharedMemorySelect,
    /// QueueReset of the selected queue.
    QueueReset,
}

/// Registers that set a value and have no effect on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
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
    /// Half of an address of the selected queue.
    QueueAddress(Part, Half),
}

/// The part of a queue that an address register describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The descriptor table (QueueDesc).
    Descriptors,
    /// The available ring (QueueDriver).
    Available,
    /// The used ring (QueueDevice).
    Used,
}

/// The half of an address that a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Bits 0 to 31.
    Low,
    /// Bits 32 to 63.
    High,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The offset in the window, in bytes.
    pub offset: u64,
    /// The name in the specification.
    pub name: &'static str,
    /// What a read returns.
    pub readable: Option<Readable>,
    /// What a write sets.
    pub writable: Option<Writable>,
    /// The clause of virtio 1.3 with the requirements for the device.
    pub clause: &'static str,
}

/// The table, in the order of the offsets.
pub const TABLE: [Register; 29] = [
    read_only(0x000, "MagicValue", Readable::Magic, "4.2.2.1"),
    read_only(0x004, "Version", Readable::Version, "4.2.2.1"),
    read_only(0x008, "DeviceID", Readable::DeviceId, "5"),
    read_only(0x00c, "VendorID", Readable::VendorId, "4.2.2"),
    read_only(0x010, "DeviceFeatures", Readable::DeviceFeatures, "2.2.2"),
    write_only(0x014, "DeviceFeaturesSel", Writable::Field(Field::DeviceFeaturesSelect), "4.2.2"),
    write_only(0x020, "DriverFeatures", Writable::Field(Field::DriverFeatures), "2.2.2"),
    write_only(0x024, "DriverFeaturesSel", Writable::Field(Field::DriverFeaturesSelect), "4.2.2"),
    write_only(0x030, "QueueSel", Writable::Field(Field::QueueSelect), "4.2.2"),
    read_only(0x034, "QueueSizeMax", Readable::QueueSizeMax, "4.2.2"),
    write_only(0x038, "QueueSize", Writable::Field(Field::QueueSize), "4.2.2"),
    both(0x044, "QueueReady", Readable::QueueReady, Writable::QueueReady, "4.2.2.1"),
    write_only(QUEUE_NOTIFY, "QueueNotify", Writable::QueueNotify, "4.2.3.3"),
    read_only(0x060, "InterruptStatus", Readable::InterruptStatus, "4.2.2.1"),
    write_only(0x064, "InterruptACK", Writable::InterruptAcknowledge, "4.2.2.1"),
    both(0x070, "Status", Readable::Status, Writable::Status, "2.1.2"),
    write_only(0x080, "QueueDescLow", address(Part::Descriptors, Half::Low), "4.2.2"),
    write_only(0x084, "QueueDescHigh", address(Part::Descriptors, Half::High), "4.2.2"),
    write_only(0x090, "QueueDriverLow", address(Part::Available, Half::Low), "4.2.2"),
    write_only(0x094, "QueueDriverHigh", address(Part::Available, Half::High), "4.2.2"),
    write_only(0x0a0, "QueueDeviceLow", address(Part::Used, Half::Low), "4.2.2"),
    write_only(0x0a4, "QueueDeviceHigh", address(Part::Used, Half::High), "4.2.2"),
    write_only(0x0ac, "SHMSel", Writable::SharedMemorySelect, "4.2.2"),
    read_only(0x0b0, "SHMLenLow", Readable::SharedMemory, "4.2.2"),
    read_only(0x0b4, "SHMLenHigh", Readable::SharedMemory, "4.2.2"),
    read_only(0x0b8, "SHMBaseLow", Readable::SharedMemory, "4.2.2"),
    read_only(0x0bc, "SHMBaseHigh", Readable::SharedMemory, "4.2.2"),
    both(0x0c0, "QueueReset", Readable::QueueReset, Writable::QueueReset, "4.2.2.1"),
    read_only(0x0fc, "ConfigGeneration", Readable::ConfigGeneration, "4.2.2.1"),
];

const fn read_only(offset: u64, name: &'static str, readable: Readable, clause: &'static str) -> Register {
    Register { offset, name, readable: Some(readable), writable: None, clause }
}

const fn write_only(offset: u64, name: &'static str, writable: Writable, clause: &'static str) -> Register {
    Register { offset, name, readable: None, writable: Some(writable), clause }
}

const fn both(
    offset: u64,
    name: &'static str,
    readable: Readable,
    writable: Writable,
    clause: &'static str,
) -> Register {
    Register { offset, name, readable: Some(readable), writable: Some(writable), clause }
}

const fn address(part: Part, half: Half) -> Writable {
    Writable::Field(Field::QueueAddress(part, half))
}

impl Register {
    /// The register at `offset`.
    #[must_use]
    pub fn at(offset: u64) -> Option<&'static Self> {
        let row = TABLE.binary_search_by_key(&offset, |register| register.offset).ok()?;
        TABLE.get(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_value_is_that_of_the_specification() {
        // virtio 1.3, 4.2.2.1
        assert_eq!(MAGIC, 0x7472_6976);
    }

    #[test]
    fn table_is_sorted_and_each_row_is_aligned_and_accessible() {
        assert!(TABLE.is_sorted_by(|a, b| a.offset < b.offset));
        for register in TABLE {
            assert!(register.offset % 4 == 0 && register.offset < CONFIG, "{register:?}");
            assert!(register.readable.is_some() || register.writable.is_some(), "{register:?}");
        }
    }

    #[test]
    fn every_row_is_found_and_nothing_else() {
        for offset in (0..CONFIG).chain([CONFIG, 0x200, u64::MAX]) {
            let row = TABLE.iter().find(|register| register.offset == offset);
            assert_eq!(Register::at(offset), row, "{offset:#x}");
        }
    }
}
