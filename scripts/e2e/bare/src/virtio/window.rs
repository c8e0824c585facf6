// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers of a virtio-mmio device (virtio 1.3, 4.2.2).

use alloc::vec::Vec;
use core::time::Duration;

use anyhow::{Context, Result};

use crate::clock::Moment;
use crate::machine::{self, Abort, Width};
use crate::{interrupts, platform};

/// Magic value, read only.
pub const MAGIC_VALUE: u64 = 0x000;
/// Version, read only.
pub const VERSION: u64 = 0x004;
/// Device ID, read only.
pub const DEVICE_ID: u64 = 0x008;
/// Vendor ID, read only.
pub const VENDOR_ID: u64 = 0x00c;
/// A word of the features that the device offers, read only.
pub const DEVICE_FEATURES: u64 = 0x010;
/// The number of that word, write only.
pub const DEVICE_FEATURES_SEL: u64 = 0x014;
/// A word of the features that the driver accepts, write only.
pub const DRIVER_FEATURES: u64 = 0x020;
/// The number of that word, write only.
pub const DRIVER_FEATURES_SEL: u64 = 0x024;
/// The queue that the following registers are for, write only.
pub const QUEUE_SEL: u64 = 0x030;
/// The maximum size of the queue, read only.
pub const QUEUE_SIZE_MAX: u64 = 0x034;
/// The size of the queue, write only.
pub const QUEUE_SIZE: u64 = 0x038;
/// Whether the queue is enabled, read and write.
pub const QUEUE_READY: u64 = 0x044;
/// A kick: the number of a queue, write only.
pub const QUEUE_NOTIFY: u64 = 0x050;
/// The reasons of pending interrupts, read only.
pub const INTERRUPT_STATUS: u64 = 0x060;
/// The reasons that the driver has handled, write only.
pub const INTERRUPT_ACK: u64 = 0x064;
/// Device status, read and write; 0 resets the device.
pub const STATUS: u64 = 0x070;
/// The address of the descriptor table, two words, write only.
pub const QUEUE_DESC: u64 = 0x080;
/// The address of the available ring, two words, write only.
pub const QUEUE_DRIVER: u64 = 0x090;
/// The address of the used ring, two words, write only.
pub const QUEUE_DEVICE: u64 = 0x0a0;
/// The number of a shared memory region, write only.
pub const SHM_SEL: u64 = 0x0ac;
/// Its length, two words, read only.
pub const SHM_LEN: u64 = 0x0b0;
/// Its address, two words, read only.
pub const SHM_BASE: u64 = 0x0b8;
/// Resets the selected queue, read and write.
pub const QUEUE_RESET: u64 = 0x0c0;
/// A number that changes with the configuration, read only.
pub const CONFIG_GENERATION: u64 = 0x0fc;
/// The configuration space, with accesses of any width.
pub const CONFIG: u64 = 0x100;
/// The size of the window.
pub const SIZE: u64 = 0x200;

/// The offset of the second mapping of the guest's lowest GiB. It is mapped as memory, where the CPU executes
/// unaligned accesses (machine/start.s).
const SECOND_VIEW: u64 = 4 << 30;

/// The window of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its address.
    pub base: u64,
    /// The number of its interrupt.
    pub interrupt: usize,
}

impl Window {
    /// Returns the windows of all devices, in the order of the device tree.
    ///
    /// # Errors
    /// Returns an error if there is no device tree.
    pub fn all() -> Result<Vec<Self>> {
        let devices = platform::virtio_devices()?;
        Ok(devices.into_iter().map(|(base, interrupt)| Self { base, interrupt }).collect())
    }

    /// Reads a register.
    ///
    /// # Errors
    /// Returns an error if the access faulted.
    pub fn read(self, register: u64) -> Result<u32> {
        let value = self.load(register, Width::Word).map_err(fault).context("read")?;
        Ok(u32::try_from(value)?)
    }

    /// Writes a register.
    ///
    /// # Errors
    /// Returns an error if the access faulted.
    pub fn write(self, register: u64, value: u32) -> Result<()> {
        self.store(register, Width::Word, value.into()).map_err(fault).context("write")
    }

    /// Writes a 64-bit register as two words.
    ///
    /// # Errors
    /// Returns an error if an access faulted.
    pub fn write_wide(self, register: u64, value: u64) -> Result<()> {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.write(register, u32::from_le_bytes([a, b, c, d]))?;
        self.write(register + 4, u32::from_le_bytes([e, f, g, h]))
    }

    /// Loads from any offset with any width.
    ///
    /// # Errors
    /// Returns the abort if the access faulted.
    pub fn load(self, offset: u64, width: Width) -> Result<u64, Abort> {
        machine::load(self.place(offset, width), width)
    }

    /// Stores to any offset with any width.
    ///
    /// # Errors
    /// Returns the abort if the access faulted.
    pub fn store(self, offset: u64, width: Width, value: u64) -> Result<(), Abort> {
        machine::store(self.place(offset, width), width, value)
    }

    fn place(self, offset: u64, width: Width) -> u64 {
        let address = self.base.wrapping_add(offset);
        if address.is_multiple_of(width.bytes()) { address } else { address + SECOND_VIEW }
    }

    /// Returns the number of interrupts that the device has sent.
    #[must_use]
    pub fn interrupts(self) -> u32 {
        interrupts::count(self.interrupt)
    }

    /// Waits until the number of interrupts is no longer `before`. Returns whether it is.
    #[must_use]
    pub fn wait_for_interrupt(self, before: u32, limit: Duration) -> bool {
        interrupts::wait(Some(Moment::after(limit)), || self.interrupts() != before)
    }
}

fn fault(abort: Abort) -> anyhow::Error {
    anyhow::anyhow!("abort at {:#x}, status {:#x}", abort.address, abort.status())
}
