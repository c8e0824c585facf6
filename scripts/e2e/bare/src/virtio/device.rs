// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The initialisation of a device, from reset to DRIVER_OK (virtio 1.3, 3.1.1), step by step.

use alloc::vec::Vec;
use core::time::Duration;

use anyhow::{Context, Result, ensure};

use super::queue::Queue;
use super::window::{
    DEVICE_FEATURES, DEVICE_FEATURES_SEL, DEVICE_ID, DRIVER_FEATURES, DRIVER_FEATURES_SEL, INTERRUPT_ACK,
    QUEUE_SEL, QUEUE_SIZE_MAX, STATUS, Window,
};
use crate::clock::Moment;

/// The driver has found the device (virtio 1.3, 2.1).
pub const ACKNOWLEDGE: u32 = 1;
/// The driver supports the type of device.
pub const DRIVER: u32 = 2;
/// The driver is set up and uses the device.
pub const DRIVER_OK: u32 = 4;
/// Features are negotiated.
pub const FEATURES_OK: u32 = 8;
/// The device has failed and needs a reset.
pub const DEVICE_NEEDS_RESET: u32 = 64;
/// The driver has failed and does not use the device.
pub const FAILED: u32 = 128;

/// VIRTIO_F_VERSION_1 (virtio 1.3, 6).
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_ACCESS_PLATFORM: addresses are grant references.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// VIRTIO_F_RING_RESET.
pub const RING_RESET: u64 = 1 << 40;
/// The features without which none of our devices starts.
pub const REQUIRED: u64 = VERSION_1 | ACCESS_PLATFORM;
/// VIRTIO_I2C_F_ZERO_LENGTH_REQUEST (5.16.3) or VIRTIO_GPIO_F_IRQ (5.18.3).
pub const DEVICE_FEATURE: u64 = 1;
/// The features that Linux's driver accepts.
pub const USUAL: u64 = REQUIRED | DEVICE_FEATURE;

/// The time within which a device has to complete a reset.
const RESET_LIMIT: Duration = Duration::from_secs(10);

/// The type of a device (virtio 1.3, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An I2C adapter.
    I2c,
    /// A GPIO controller.
    Gpio,
}

impl Kind {
    /// All types.
    pub const ALL: [Self; 2] = [Self::I2c, Self::Gpio];

    /// The device ID.
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Self::I2c => 34,
            Self::Gpio => 41,
        }
    }

    /// The number of queues (5.16.2 and 5.18.2).
    #[must_use]
    pub const fn queues(self) -> u32 {
        match self {
            Self::I2c => 1,
            Self::Gpio => 2,
        }
    }
}

/// A device. When it is dropped, it is reset in any state, and its rings are freed after that.
#[derive(Debug)]
pub struct Device {
    /// Its registers.
    pub window: Window,
    /// Its queues, after [`Device::start`].
    pub queues: Vec<Queue>,
}

impl Device {
    /// Finds the device of a type and resets it.
    ///
    /// # Errors
    /// Returns an error if there is none or it does not answer.
    pub fn find(kind: Kind) -> Result<Self> {
        for window in Window::all()? {
            if window.read(DEVICE_ID)? == kind.id() {
                let mut device = Self { window, queues: Vec::new() };
                device.reset()?;
                return Ok(device);
            }
        }
        None.with_context(|| alloc::format!("no device {kind:?}"))
    }

    /// Finds the device of a type and starts it with the usual features and queues of `size` entries.
    ///
    /// # Errors
    /// Returns an error if there is none or it does not start.
    pub fn started(kind: Kind, size: u16) -> Result<Self> {
        let mut device = Self::find(kind)?;
        device.start(USUAL, size)?;
        Ok(device)
    }

    /// Resets the device and waits until Status reads 0 (virtio 1.3, 4.2.3.1).
    ///
    /// # Errors
    /// Returns an error if this takes longer than 10 s or an access faulted.
    pub fn reset(&mut self) -> Result<()> {
        self.window.write(STATUS, 0)?;
        let end = Moment::after(RESET_LIMIT);
        while self.window.read(STATUS)? != 0 {
            ensure!(!end.has_come(), "Status is {:#x} after a reset", self.status()?);
        }
        self.queues.clear();
        Ok(())
    }

    /// Reads Status.
    ///
    /// # Errors
    /// Returns an error if the access faulted.
    pub fn status(&self) -> Result<u32> {
        self.window.read(STATUS)
    }

    /// Sets bits of Status. Returns the new value.
    ///
    /// # Errors
    /// Returns an error if an access faulted.
    pub fn advance(&self, bits: u32) -> Result<u32> {
        self.window.write(STATUS, self.status()? | bits)?;
        self.status()
    }

    /// Reads the features that the device offers.
    ///
    /// # Errors
    /// Returns an error if an access faulted.
    pub fn offered(&self) -> Result<u64> {
        let word = |number| {
            self.window.write(DEVICE_FEATURES_SEL, number)?;
            self.window.read(DEVICE_FEATURES).map(u64::from)
        };
        Ok(word(0)? | word(1)? << 32)
    }

    /// Writes the features that the driver accepts.
    ///
    /// # Errors
    /// Returns an error if an access faulted.
    pub fn take(&self, features: u64) -> Result<()> {
        let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
        for (number, word) in [(0, [a, b, c, d]), (1, [e, f, g, h])] {
            self.window.write(DRIVER_FEATURES_SEL, number)?;
            self.window.write(DRIVER_FEATURES, u32::from_le_bytes(word))?;
        }
        Ok(())
    }

    /// Resets the device and negotiates `features` up to FEATURES_OK. Returns whether the device accepts
    /// them.
    ///
    /// # Errors
    /// Returns an error if an access faulted.
    pub fn agree(&mut self, features: u64) -> Result<bool> {
        self.reset()?;
        self.advance(ACKNOWLEDGE)?;
        self.advance(DRIVER)?;
        self.take(features)?;
        Ok(self.advance(FEATURES_OK)? & FEATURES_OK != 0)
    }

    /// Starts the device with these features and `size` entries in each queue.
    ///
    /// # Errors
    /// Returns an error if the device does not accept the features or an access faulted.
    pub fn start(&mut self, features: u64, size: u16) -> Result<()> {
        ensure!(self.agree(features)?, "the device does not accept features {features:#x}");
        for number in 0.. {
            if self.queue_size_max(number)? == 0 {
                break;
            }
            self.queues.push(Queue::attach(self.window, number, size)?);
        }
        let status = self.advance(DRIVER_OK)?;
        ensure!(
            status == ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
            "Status is {status:#x} after DRIVER_OK"
        );
        Ok(())
    }

    /// Returns a queue of a started device.
    ///
    /// # Errors
    /// Returns an error if there is no queue with this number.
    pub fn queue(&mut self, number: usize) -> Result<&mut Queue> {
        self.queues.get_mut(number).context("no such queue")
    }

    /// Returns the maximum size of a queue, 0 if there is no such queue.
    ///
    /// # Errors
    /// Returns an error if an access faulted.
    pub fn queue_size_max(&self, queue: u32) -> Result<u32> {
        self.window.write(QUEUE_SEL, queue)?;
        self.window.read(QUEUE_SIZE_MAX)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A reset that fails makes the next test fail.
        let _ = self.reset();
        let _ = self.window.write(INTERRUPT_ACK, 3);
    }
}
