// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration of xen-frontend-shim: the guests, and the virtio devices of each.
//!
//! The image builder makes the file from the manifest by serialising the types of this crate, and the shim
//! reads it with the same types. [`DeviceKind`] is what both know of a virtio device type.

pub mod kind;

use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use confinement::User;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use kind::DeviceKind;

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
}

impl Config {
    /// Reads the configuration at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
            _ => ConfigError::Read(path.to_owned(), error),
        })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse(path.to_owned(), error))
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
    /// The user to start the backend's program as: for a program that does not change its user by itself and
    /// opens no file of root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// What serves the device.
    pub backend: Backend,
}

/// What serves a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Backend {
    /// A vhost-user backend program that the shim starts, with its arguments. The shim appends `--fd=N` (the
    /// vhost-user specification's "Backend program conventions").
    Command(Vec<String>),
    /// The socket of a vhost-user backend that is started by another program.
    Socket(PathBuf),
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
