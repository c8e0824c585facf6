// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration of xen-frontend-shim: the guests, and the virtio devices of each.
//!
//! The image builder makes the file from the manifest by serialising the types of this crate, and the shim
//! reads it with the same types. [`DeviceType`] is what both know of a virtio device type, and [`Properties`]
//! what follows for one device.

pub mod backend;
pub mod device_type;
pub mod properties;

use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use confinement::User;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use backend::{Backend, Confine, Program};
pub use device_type::{DeviceType, Lifetime};
pub use properties::{Properties, PropertyError};

/// Bytes of guest physical address space that one virtio-mmio device occupies (the registers end at 0x100,
/// the configuration space follows: virtio 1.3, 4.2.2).
pub const WINDOW_SIZE: u64 = 0x200;

/// The guest physical addresses that Xen reserves for virtio-mmio (`GUEST_VIRTIO_MMIO_BASE` and `_SIZE` in
/// its public header `arch-arm.h`).
pub const WINDOWS: Range<u64> = 0x0200_0000..0x0210_0000;

/// The interrupts that Xen reserves for virtio-mmio (`GUEST_VIRTIO_MMIO_SPI_FIRST` to `_LAST`), as INTIDs of
/// the GIC.
pub const INTERRUPTS: RangeInclusive<u32> = 33..=43;

/// The file in the shim's state directory that holds its lock. Each guest has a directory of its name beside
/// it, so no guest can have this name.
pub const LOCK_FILE: &str = "lock";

/// The guests that the shim serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The domid of the driver domain itself: Xen reports the end of a guest to it.
    pub domid: u16,
    /// The guests, each served by a worker of its own.
    #[serde(default)]
    pub guest: Vec<Guest>,
}

/// Reasons why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file does not exist.
    #[error("there is no {0}: `images build` makes it from a manifest; or give the path of another one")]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// The file is not valid TOML, or has an unknown, missing or malformed field.
    #[error("{0}: {1}")]
    Parse(PathBuf, #[source] toml::de::Error),
    /// A device cannot be made of its configuration.
    #[error("{path}: device {device} of {guest}: {error}")]
    Device {
        /// The file.
        path: PathBuf,
        /// The name of the guest.
        guest: String,
        /// The name of the device.
        device: String,
        /// The reason.
        #[source]
        error: PropertyError,
    },
}

impl Config {
    /// Reads the configuration at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
            _ => ConfigError::Read(path.to_owned(), error),
        })?;
        let config: Self =
            toml::from_str(&text).map_err(|error| ConfigError::Parse(path.to_owned(), error))?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        for guest in &self.guest {
            for device in &guest.device {
                Properties::of(device).map_err(|error| ConfigError::Device {
                    path: path.to_owned(),
                    guest: guest.name.clone(),
                    device: device.name.clone(),
                    error,
                })?;
            }
        }
        Ok(())
    }
}

/// One guest and its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Guest {
    /// The guest's name in the manifest; it names the guest in every log line.
    pub name: String,
    /// The guest's domid: its position among the domains of the host device tree, from 1.
    pub domid: u16,
    /// The user of the guest's worker. Without it the worker stays root, without capabilities. A backend that
    /// changes its user by itself has the user in its command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// The guest's RAM, if the backends reach all of it. Empty: they reach what the guest grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<MemoryBank>,
    /// The guest's virtio-mmio devices.
    #[serde(default)]
    pub device: Vec<Device>,
}

/// A range of a guest's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryBank {
    /// The guest physical address.
    pub base: u64,
    /// The size in bytes.
    pub size: u64,
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
    /// The largest queue size, in place of that of the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_size: Option<u16>,
    /// The length of the configuration structure in bytes, in place of that of the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_size: Option<u32>,
    /// The feature bits 0 to 23 and 50 to 63 that the driver may be offered, in place of those of the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<u64>,
    /// The bytes of the configuration structure that the driver may write, in place of those of the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable: Option<Range<u32>>,
    /// The device-to-driver queues, in place of those of the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Vec<u16>>,
    /// Whether a driver that does not accept a mandatory feature of the type is refused.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub strict: bool,
    /// Whether the guest starts and works without the device while its backend is absent.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    /// What serves the device.
    pub backend: Backend,
}

impl Device {
    /// A device with the properties of its type.
    #[must_use]
    pub fn new(name: String, device_id: u32, queues: u16, base: u64, irq: u32, backend: Backend) -> Self {
        Self {
            name,
            device_id,
            base,
            irq,
            queues,
            queue_size: None,
            config_size: None,
            features: None,
            writable: None,
            inbound: None,
            strict: true,
            optional: false,
            backend,
        }
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_file_and_the_place_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shim.toml");
        let error = || Config::read(&path).unwrap_err().to_string();
        let missing = error();
        assert!(
            missing.starts_with(&format!("there is no {}: `images build` makes it", path.display())),
            "{missing}"
        );
        // (content, words of the error)
        let cases: [(&str, &[&str]); 5] = [
            ("domid = 1\n[[guest]\n", &["line 2", "[[guest]"]),
            ("domid = 1\ncolour = 2\n", &["line 2", "unknown field `colour`", "`domid` or `guest`"]),
            ("domid = 1\n[[guest]]\nname = 'a'\ndomid = 'b'\n", &["line 4", "domid = 'b'"]),
            ("domid = 70000\n", &["line 1", "domid = 70000"]),
            ("", &["missing field `domid`"]),
        ];
        for (text, expected) in cases {
            std::fs::write(&path, text).unwrap();
            let error = error();
            assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
            assert!(expected.iter().all(|words| error.contains(words)), "{expected:?}: {error}");
        }
        std::fs::write(&path, "domid = 1\n").unwrap();
        assert_eq!(Config::read(&path).unwrap(), Config { domid: 1, guest: Vec::new() });
    }

    #[test]
    fn unreadable_file_is_not_reported_as_missing() {
        let directory = tempfile::tempdir().unwrap();
        let error = Config::read(directory.path()).unwrap_err();
        assert!(matches!(&error, ConfigError::Read(path, _) if path == directory.path()), "{error}");
    }
}
