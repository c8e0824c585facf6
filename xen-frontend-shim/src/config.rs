// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The shim's configuration: which guests, and which virtio devices each of them has.
//!
//! Nobody writes this file by hand. The image builder makes it from the manifest by serialising the types of
//! this module, so that what the builder writes and what the shim reads cannot differ.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Bytes of guest physical address space that one virtio-mmio device occupies (the registers end at 0x100, the
/// configuration space follows: virtio 1.3, 4.2.2).
pub const WINDOW_SIZE: u64 = 0x200;

/// All that the shim serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The guests, each served by a worker of its own.
    #[serde(default)]
    pub guest: Vec<Guest>,
}

/// One guest and its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Guest {
    /// The guest's name in the manifest; it names the guest in every log line.
    pub name: String,
    /// The guest's domid: its position among the domains of the host device tree, from 1.
    pub domid: u16,
    /// The guest's virtio-mmio devices.
    #[serde(default)]
    pub device: Vec<Device>,
}

/// One virtio-mmio device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Device {
    /// The device's name, unique within its guest.
    pub name: String,
    /// The virtio device ID (virtio 1.3, section 5), for example 34 for an I2C adapter and 41 for GPIO.
    pub device_id: u32,
    /// The guest physical address of the register window, a multiple of [`WINDOW_SIZE`].
    pub base: u64,
    /// The interrupt's number at the guest's GIC (INTID: the SPI number plus 32).
    pub irq: u32,
    /// How many virtqueues the device has.
    pub queues: u16,
    /// Who serves the device.
    pub backend: Backend,
}

/// Who serves a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Backend {
    /// A vhost-user backend program that the shim starts, with its arguments. The shim appends `--fd=N` (the
    /// vhost-user specification's "Backend program conventions").
    Command(Vec<String>),
    /// A socket at which somebody else serves the device.
    Socket(PathBuf),
}
